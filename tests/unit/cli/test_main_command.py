"""The ``chartgate`` command itself: quick, plain, and one line for what stands in the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("psycopg", "cedarpy", "postgast", "asyncio", "cryptography", "rich", "z3")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "chartgate", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["demo", "--help"], ["psql", "--help"], ["audit", "who", "--help"]],
)
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from chartgate.cli.main import app\n"
        f"try:\n    app({arguments!r})\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        f"print('LOADED', *(m for m in {HEAVY!r} if m in sys.modules))\n"
    ).replace("\\\n", "\n")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "LOADED", done.stdout + done.stderr


def test_the_version_is_there_at_once() -> None:
    times = []
    for _ in range(5):
        # Processor time: how long it takes on the clock depends on what else runs.
        started = os.times()
        done = run("--version")
        ended = os.times()
        times.append(ended.children_user - started.children_user)
    assert done.stdout.startswith("chartgate ")
    assert min(times) < 0.4


def test_help_names_every_command_without_colours() -> None:
    told = run("--help").stdout
    assert all(f"  {name} " in told for name in ("demo", "psql", "policy", "audit"))
    assert "\x1b" not in told


def test_psql_says_when_no_demo_was_ever_started(tmp_path: Path) -> None:
    done = run("psql", "--state", str(tmp_path), "mwelby")
    assert done.returncode == 1
    assert done.stderr.startswith("chartgate: ")
    assert "chartgate demo" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_shipped_policies_fulfil_their_scenarios() -> None:
    done = run("policy", "test", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["failed"] == []
    assert told["passed"] == told["scenarios"] >= 150


def copied_policies(project_root: Path, folder: Path, scenario: str) -> Path:
    policies = folder / "policies"
    for path in (project_root / "policies").rglob("*"):
        if path.suffix in {".cedar", ".cedarschema", ".toml"} and path.parent.name != "scenarios":
            target = policies / path.relative_to(project_root / "policies")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (policies / "scenarios").mkdir()
    (policies / "scenarios" / "mine.toml").write_text(scenario)
    return policies


WRONG = """
[[scenario]]
title = "a receptionist reads the lab results of a patient of her department"
who = { role = "receptionist_scheduler", department = "cardiology" }
purpose = "PATADMIN"
asks = "view"
record = { category = "labs", departments = ["cardiology"] }
expect = "full"
"""


def test_a_scenario_that_fails_is_told_in_words(project_root: Path, tmp_path: Path) -> None:
    policies = copied_policies(project_root, tmp_path, WRONG)
    done = run("policy", "test", "--policies", str(policies))
    assert done.returncode == 1
    assert "FAILED  mine.toml: a receptionist reads the lab results" in done.stdout
    words = " ".join(done.stdout.split())  # lines break where the folder's name makes them
    assert "sees nothing of labs" in words
    assert "1 not as expected." in words
    told = json.loads(run("policy", "test", "--policies", str(policies), "--json").stdout)
    assert [(f["expected"], f["got"]) for f in told["failed"]] == [("full", "withheld")]


def test_a_policy_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run("policy", "test", "--policies", str(tmp_path / "none"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
