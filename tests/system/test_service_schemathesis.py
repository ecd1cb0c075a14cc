"""schemathesis against the OpenAPI document that the decision service itself serves, over HTTPS.

What the document says is what the service does: no answer that it does not name, no body that is
not as its schemas say, no request that they refuse and the service takes, or the other way round;
nothing without a credential, and no failure of the service's own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strategies.authzen_service import TOKEN, Reached, decision_service

pytestmark = [pytest.mark.system, pytest.mark.slow]

EXAMPLES = 6
"""For each operation and phase; the fuzz test of ours asks far more."""

HOOKS = """
import schemathesis

@schemathesis.hook
def map_body(context, body):
    # No schema can say that a page token is one which the service gave: the first page is asked.
    page = body.get("page") if isinstance(body, dict) else None
    if isinstance(page, dict) and isinstance(page.get("token"), str):
        page["token"] = ""
    return body
"""


@pytest.fixture
def service(tmp_path: Path, project_root: Path) -> Iterator[Reached]:
    folder = project_root / "tests/cases/authzen/certification"
    with decision_service(folder, tmp_path / "service") as reached:
        yield reached


def test_schemathesis_finds_nothing(service: Reached, tmp_path: Path):
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("schemathesis is not installed")
    (tmp_path / "hooks_of_pages.py").write_text(HOOKS)
    run = subprocess.run(
        [
            *(program, "run", f"{service.base}/openapi.json", "--url", service.base),
            *("--header", f"Authorization: Bearer {TOKEN}", "--tls-verify", service.authority),
            *("--phases", "examples,coverage,fuzzing", "--checks", "all"),
            *("--max-examples", str(EXAMPLES), "--generation-deterministic", "--no-color"),
        ],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks_of_pages", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:]
    assert "No issues found" in run.stdout
    assert "10 selected / 10 total" in run.stdout  # all but the document itself
    # And it decides as it did.
    question = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": "record-1"},
    }
    assert service.client.post("/access/v1/evaluation", json=question).json()["decision"] is True
