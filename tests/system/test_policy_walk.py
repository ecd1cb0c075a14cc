"""The walk of docs/policy.md, run as it is printed: a rule from its first draft to its rollback.

Every command of the section's ``console`` blocks is typed into a shell beside a fresh demo. What the
page shows of its answer must be in the answer, hashes and numbers aside: an ellipsis stands for
what the page leaves out.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chartgate.adapters.embedded_programs import find_psql

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
SECTION = "## A rule, from draft to rollback"
FOLDER = "/tmp/rules"
HASH = re.compile(r"\b[0-9a-f]{12}\b")
NUMBER = re.compile(r"\d[\d,.:-]*")


@dataclass(frozen=True, slots=True)
class Step:
    """A command of the page and what the page shows of its answer."""

    command: str
    shown: str


def steps() -> list[Step]:
    page = (ROOT / "docs" / "policy.md").read_text("utf-8")
    section = page.partition(SECTION)[2].partition("\n## ")[0]
    found = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            size = 1
            if match := re.search(r"<<'(\w+)'", lines[0]):
                size = lines.index(match[1]) + 1
            command = "\n".join(line.removeprefix("> ") for line in lines[:size])
            found.append(Step(command, "\n".join(lines[size:]).strip()))
    return found


def plain(text: str) -> str:
    """Without what differs from run to run: hashes, numbers, the width of the page."""
    return " ".join(NUMBER.sub("N", HASH.sub("H", text)).split())


@pytest.fixture(scope="module")
def shell_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running demo, and the environment in which ``chartgate`` and ``psql`` mean it."""
    base = tmp_path_factory.mktemp("walk")
    (base / "bin").mkdir()
    command = base / "bin" / "chartgate"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m chartgate "$@"\n')
    command.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "CHARTGATE_"))}
    environment = {
        **kept,
        "PATH": f"{base / 'bin'}:{find_psql().parent}:{kept['PATH']}",
        "CHARTGATE_STATE": str(base / "state"),
        "COLUMNS": "100",
        "WALK": str(base),
    }
    with subprocess.Popen(
        [command, "demo", "--json", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line == "}\n":
                break
        try:
            yield environment
        finally:
            demo.terminate()
            demo.wait(60)
            shutil.rmtree(base, ignore_errors=True)


def test_the_walk_goes_as_the_page_tells_it(shell_environment: dict[str, str]) -> None:
    walk = steps()
    assert len(walk) >= 10, "the section has lost its commands"
    versions: dict[str, str] = {}
    counts: list[int] = []
    for step in walk:
        command = step.command.replace(FOLDER, f"{shell_environment['WALK']}/rules")
        for printed, real in versions.items():
            command = command.replace(printed, real)
        done = subprocess.run(
            ["bash", "-c", f"{command}"],
            cwd=ROOT,
            env=shell_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        said = done.stdout.replace(f"{shell_environment['WALK']}/rules", FOLDER)
        for part in step.shown.split("…"):
            assert plain(part) in plain(said), f"$ {step.command}\n{said}"
        if step.command.startswith("chartgate psql"):
            counts += [int(n) for n in re.findall(r"^ +(\d+)$", said, re.MULTILINE)]
        # The page's hashes stand for those of this run, in the order in which they appear.
        for printed, real in zip(
            dict.fromkeys(HASH.findall(step.shown)), dict.fromkeys(HASH.findall(said)), strict=False
        ):
            versions.setdefault(printed, real)
    before, under_the_rule, after = counts
    assert before == after < under_the_rule
