"""The wheel alone is enough: installed into an empty environment, it shows and checks the demo."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]


def environment() -> dict[str, str]:
    hidden = ("PG", "CHARTGATE_", "PYTHONPATH", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if not k.startswith(hidden)}


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, arguments)),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """The ``bin`` folder of an empty environment with nothing but the wheel in it."""
    root = tmp_path_factory.mktemp("install")
    wheels = root / "wheels"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    built = run(*pip, "wheel", "--quiet", "--no-deps", "-w", wheels, project_root, cwd=root)
    if built.returncode:
        pytest.skip("a wheel cannot be built here (no network for the build tools)")
    venv.create(root / "venv", with_pip=True)
    programs = root / "venv" / "bin"
    done = run(
        programs / "python",
        *("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"),
        *("--only-binary", ":all:", *wheels.glob("chartgate-*.whl")),
        cwd=root,
    )
    if done.returncode:
        pytest.skip("the dependencies cannot be fetched here (no network)")
    return programs


def test_it_runs_from_its_own_files(installed: Path, tmp_path: Path) -> None:
    where = "import chartgate.demo.shipped as s; print(s.shipped('policies'), s.shipped('maps'))"
    done = run(installed / "python", "-c", where, cwd=tmp_path)
    assert done.stdout.count(str(installed.parent)) == 2, done.stdout + done.stderr
    assert run(installed / "chartgate", "policy", "test", cwd=tmp_path).returncode == 0


def test_the_demo_checks_itself(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "chartgate", "demo", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 21 checks passed" in done.stdout


WITHOUT_EXTRAS = """
import importlib.util, sys
for name in ("httpx", "starlette", "django", "flask", "sqlalchemy"):
    assert importlib.util.find_spec(name) is None, name
import chartgate.sdk
from chartgate.sdk import AsyncChartgate, Chartgate, Record
assert "chartgate.adapters.node" not in sys.modules  # nor is the engine loaded by it
from chartgate.sdk.embedded import Embedded
try:
    Chartgate("https://localhost:1", token="t")
except chartgate.sdk.errors.Misused as exc:
    print(exc)
with Chartgate("unix:/nowhere/decide.sock", token="t") as gate:
    print(gate.decide("nadams", "view", Record(category="labs")).reason.code)
"""


def test_the_sdk_needs_no_framework_and_says_what_https_needs(
    installed: Path, tmp_path: Path
) -> None:
    done = run(installed / "python", "-c", WITHOUT_EXTRAS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told, reason = done.stdout.splitlines()
    assert "pip install 'chartgate[sdk]'" in told
    assert reason == "unavailable"
