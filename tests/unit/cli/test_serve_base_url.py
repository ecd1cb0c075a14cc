"""``chartgate serve --base-url``: the address that discovery tells."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chartgate.adapters.state import State
from chartgate.cli.serving import Wanted, _config
from chartgate.errors import Misconfigured


def wanted(base_url: str) -> Wanted:
    return Wanted(
        state=None,
        listen="127.0.0.1:0",
        unix=None,
        workers=1,
        certificate=None,
        key=None,
        names=(),
        base_url=base_url,
        callers=None,
        durability="fsync",
        plain_http=True,
        access_log=False,
    )


@pytest.mark.parametrize("base", ["", "https://pdp.example.org", "https://example.org:8443/pdp"])
def test_the_service_is_told_what_was_asked_for(tmp_path: Path, base: str) -> None:
    assert _config(wanted(base), State(tmp_path), own_writer=True).base_url == base


@pytest.mark.parametrize("base", ["http://pdp.example.org", "https://pdp.example.org/", "pdp"])
def test_an_address_that_discovery_may_not_tell_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(Misconfigured, match=r"--base-url: .* has to be https://"):
        _config(wanted(base), State(tmp_path), own_writer=True)


def test_it_is_one_line_before_anything_is_started(tmp_path: Path, project_root: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "chartgate", "serve", "--base-url", "http://pdp"),
            *("--policies", project_root / "tests/cases/authzen/certification"),
            *("--state", tmp_path / "state"),
        ],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("chartgate: --base-url: the public URL has to be https://")
    assert done.stderr.count("\n") == 1
