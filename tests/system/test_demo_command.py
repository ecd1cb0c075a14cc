"""``chartgate demo`` as its users run it: a process of its own, ended by signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chartgate.demo.folder import reset

pytestmark = [pytest.mark.system, pytest.mark.slow]

COMMAND = [sys.executable, "-P", "-m", "chartgate"]
PATIENCE = 120


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "CHARTGATE_"))}


def chartgate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@contextmanager
def running(state: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A demo that is ready, and the sheet it printed; killed at the end if still there."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--json", "--port", "0", "--state", str(state), *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line == "}\n":
                    break
            assert lines, process.stderr.read()
            yield process, json.loads("".join(lines))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
            wait_for_no_servers(state)


def servers(state: Path) -> list[str]:
    """Command lines of the PostgreSQL servers that serve this state folder."""
    folders = [str(state)]
    for name in ("legacy", "control"):
        pointer = state / name / "location"
        if pointer.exists():
            folders.append(pointer.read_text().strip())
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("/postgres") and any(f in w for f in folders for w in words):
            found.append(" ".join(words))
    return found


def wait_for_no_servers(state: Path) -> None:
    limit = time.monotonic() + 20
    while servers(state):
        assert time.monotonic() < limit, f"still there: {servers(state)}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("demo") / "state"
    yield root
    reset(root)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a failed command said, which is one line."""
    told = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert len(told) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return told[0]


def test_a_newcomer_logs_in_with_the_line_on_the_sheet_and_asks_the_log(state: Path) -> None:
    with running(state) as (process, sheet):
        assert [p["username"] for p in sheet["people"]][:6] == [
            "mwelby", "nadams", "rpatel", "bcoder", "pofficer", "ddba",
        ]  # fmt: skip
        labs = next(q["sql"] for q in sheet["queries"] if "lab_result" in q["sql"])
        doctor, receptionist = (
            chartgate("psql", "--state", state, name, "-X", "-A", "-t", "-c", labs)
            for name in ("mwelby", "rpatel")
        )
        assert doctor.returncode == receptionist.returncode == 0, doctor.stderr
        assert len(doctor.stdout.splitlines()) == 5
        assert receptionist.stdout == ""
        assert "limited by policy for rpatel" in receptionist.stderr
        if shutil.which("psql"):
            line = next(p["psql"] for p in sheet["people"] if p["username"] == "mwelby")
            pasted = subprocess.run(
                ["sh", "-c", f'{line} -X -A -t -c "$1"', "sh", labs],
                env=environment(),
                capture_output=True,
                text=True,
            )
            assert pasted.stdout == doctor.stdout
        if shutil.which("curl"):
            pasted = subprocess.run(
                ["sh", "-c", sheet["decisions"]["curl"]],
                env=environment(),
                capture_output=True,
                text=True,
            )
            told_app = json.loads(pasted.stdout)
            assert told_app["decision"] is True
            assert told_app["context"]["levels"] == {"labs": "full"}
        for file in sheet["decisions"]["tokens"].values():
            assert Path(file).stat().st_mode & 0o777 == 0o600
        told = chartgate("audit", "who", "--patient", "MRN-100001", "--state", state)
        assert "Marcus Welby" in told.stdout
        assert "Ravi Patel" not in told.stdout
        assert "there is no demo person" in one_line(chartgate("psql", "--state", state, "nobody"))
        busy = chartgate("demo", "--state", state, "--port", "0")
        assert "already running" in one_line(busy)
        kept = chartgate("demo", "--reset", "--state", state, "--port", "0")
        assert "already running" in one_line(kept)
        assert process.poll() is None


def test_ctrl_c_stops_everything_and_the_next_start_goes_on(state: Path) -> None:
    with running(state) as (process, sheet):
        assert len(servers(state)) >= 2
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not list((state / "tokens").iterdir())
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert not (state / "pgpass").exists()
    assert "is not running" in one_line(chartgate("psql", "--state", state, "mwelby"))
    with running(state) as (process, again):
        assert again["title"] == sheet["title"] == "Demo hospital"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "loading the hospital" not in process.stderr.read()


def test_after_kill_9_no_server_is_left_and_the_next_start_recovers(state: Path) -> None:
    with running(state) as (process, _):
        chartgate("psql", "--state", state, "mwelby", "-X", "-c", "SELECT * FROM patient")
        process.kill()
        process.wait()
        wait_for_no_servers(state)
    with running(state):
        again = chartgate("psql", "--state", state, "mwelby", "-X", "-t", "-c", "SELECT 1")
        assert again.returncode == 0
    verified = chartgate("audit", "verify", "--state", state)
    assert verified.returncode == 0, verified.stderr


def test_a_request_to_end_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "state"
    with subprocess.Popen(
        [*COMMAND, "demo", "--state", str(root), "--port", "0"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        limit = time.monotonic() + 60
        while not servers(root) and time.monotonic() < limit:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped before the demo was ready." in out
    assert "Traceback" not in err
    wait_for_no_servers(root)
    reset(root)


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = chartgate("demo", "--state", tmp_path / "state", "--port", port)
    assert f"port {port} on 127.0.0.1 is in use" in one_line(done)


def test_a_folder_of_somebody_else_is_neither_used_nor_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("five years")
    for arguments in ((), ("--reset",)):
        done = chartgate("demo", "--state", tmp_path, "--port", "0", *arguments)
        assert "holds other files" in one_line(done)
    assert (tmp_path / "thesis.txt").read_text() == "five years"


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    done = chartgate("demo", "--data", tmp_path / "none", "--state", tmp_path / "s", "--port", "0")
    assert "there is no folder" in one_line(done)
    (tmp_path / "empty").mkdir()
    done = chartgate("demo", "--data", tmp_path / "empty", "--state", tmp_path / "s", "--port", "0")
    assert "Synthea" in one_line(done)


def can_run(account: dict[str, Any]) -> bool:
    """Whether the account may read this Python and what is installed into it."""
    asked = [*COMMAND, "--version"]
    try:
        return not subprocess.run(asked, cwd="/", capture_output=True, **account).returncode
    except PermissionError:
        return False


@pytest.mark.parametrize("megabytes", [30, 85, 110])
def test_a_full_disk_is_one_line(megabytes: int) -> None:
    # As a plain user, whose servers keep their data in the state folder itself.
    plain: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    disk = Path(tempfile.mkdtemp(prefix="chartgate-disk-"))
    disk.chmod(0o755)
    size = f"size={megabytes}m,mode=777"
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], capture_output=True
        ).returncode
    ):
        disk.rmdir()
        pytest.skip("only root of a whole machine can make a small disk")
    try:
        if not can_run(plain):
            pytest.skip("this Python lies where a plain user cannot read it")
        done = subprocess.run(
            [*COMMAND, "demo", "--state", str(disk / "state"), "--port", "0"],
            env=environment() | {"HOME": str(disk)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            **plain,
        )
        assert "full" in one_line(done)
        wait_for_no_servers(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


def test_the_check_passes_on_the_made_up_hospital_and_leaves_nothing() -> None:
    done = chartgate("demo", "--check", "--json")
    report = json.loads(done.stdout)
    assert [c["name"] for c in report["checks"] if not c["passed"]] == [], report["checks"]
    assert done.returncode == 0
    assert report["passed"]
    assert all(check["tried"] for check in report["checks"])
    assert len(report["checks"]) >= 15


@pytest.mark.parametrize("folder", ["smart-r4-csv", "dbt-synthea-27"])
def test_the_check_passes_on_synthea(shared_dir: Path, folder: str) -> None:
    done = chartgate("demo", "--check", "--data", shared_dir / "data" / folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert "\x1b" not in done.stdout, "no colours where nobody watches"
