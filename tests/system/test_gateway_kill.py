"""``kill -9`` of the gateway under load: no row had been delivered without its event.

The gateway is a process of its own; several people stream rows from it, each remembering every
key that reached her, when it dies. The next start finds the servers that were left behind, the log
verifies, and each statement's keys are among the patients of that statement's release events.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chartgate.adapters.log_verify import verify
from chartgate.adapters.state import State
from chartgate.errors import Corrupt, LogUnavailable
from chartgate.model.event import Decision, NodeStarted, NodeStopped, Release, SessionStarted

pytestmark = pytest.mark.system

PEOPLE = ("nadams", "mwelby", "oncdoc", "rpatel")
QUERIES = (
    "SELECT patient_id, last_name FROM patient WHERE patient_id % 7 = {n} % 7",
    "SELECT patient_id, class FROM encounter",
    "SELECT DISTINCT patient_id FROM appointment WHERE minutes > {n} % 30",
    "SELECT patient_id, status FROM appointment ORDER BY appointment_id",
)
SERVE = """
import asyncio, sys
from pathlib import Path
from chartgate.demo.run import prepared, serving

async def main(ready):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stop.set)
    async with serving(ready) as port:
        print(port, flush=True)
        await stop.wait()

with prepared(
    Path(sys.argv[1]), data=None, port=0, host="127.0.0.1", progress=lambda _: None
) as ready:
    asyncio.run(main(ready))
"""


class Process:
    """A gateway in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def end(self, with_signal: signal.Signals) -> int:
        if self._process.poll() is None:
            os.kill(self._process.pid, with_signal)
        status = self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status

    def connect(self, name: str) -> psycopg.Connection[Any]:
        for line in State(self.root).passfile.read_text("utf-8").splitlines():
            _, _, database, user, password = line.split(":", 4)
            if user == name:
                return psycopg.connect(
                    host="127.0.0.1", port=self.port, dbname=database, user=user,
                    password=password, sslmode="disable", autocommit=True,
                )  # fmt: skip
        raise KeyError(name)


@pytest.fixture
def root(tmp_path: Path, load_hospital: Any) -> Path:
    load_hospital(tmp_path, patients=200)
    return tmp_path


@pytest.fixture
def gateway(root: Path) -> Iterator[Process]:
    process = Process(root)
    yield process
    process.end(signal.SIGKILL)


def stream(connection: psycopg.Connection[Any], heard: list[list[int]]) -> None:
    """Query until the gateway is gone; ``heard`` has every key that came, by statement."""
    try:
        for n in range(100_000):
            keys: list[int] = []
            heard.append(keys)
            with connection.cursor() as cursor:
                for row in cursor.stream(QUERIES[n % len(QUERIES)].format(n=n)):
                    keys.append(row[0])
    except psycopg.OperationalError:
        pass


def test_after_kill_9_the_log_holds_whatever_was_delivered(
    root: Path, gateway: Process, open_gate: Any
) -> None:
    connections = {name: gateway.connect(name) for name in PEOPLE}
    heard: dict[str, list[list[int]]] = {name: [] for name in PEOPLE}
    threads = [
        threading.Thread(target=stream, args=(connections[name], heard[name])) for name in PEOPLE
    ]
    for thread in threads:
        thread.start()
    limit = time.monotonic() + 20
    while min(map(len, heard.values())) < 12 and time.monotonic() < limit:
        threads[0].join(0.01)
    assert gateway.end(signal.SIGKILL) == -signal.SIGKILL
    for thread in threads:
        thread.join(10)
    for connection in connections.values():
        connection.close()

    again: AbstractContextManager[Any] = open_gate(root)
    with again as gate, gate.control() as control:
        uids = {person.uid: name for name, person in control.snapshot().persons.items()}
        events = gate.events()
        released: dict[tuple[str, int], set[str]] = {}
        decided: dict[str, int] = {}
        people = {e.session: uids[e.person] for _, e in events if isinstance(e, SessionStarted)}
        for _, event in events:
            if isinstance(event, Release):
                at = people[event.session], int(event.request.rpartition("/")[2])
                released.setdefault(at, set()).update(event.seen)
            if isinstance(event, Decision):
                decided[people[event.session]] = decided.get(people[event.session], 0) + 1
        checked = 0
        for name, statements in heard.items():
            # The last statement may not have come to the gateway.
            assert len(statements) - 1 <= decided[name]
            for number, keys in enumerate(statements, 1):
                # Pseudonyms stand for keys where record ids are not shown.
                real = {key for key in keys if key <= 200}
                assert gate.tokens(real) <= released.get((name, number), set())
                checked += len(real)
        assert checked > 100
        assert [type(e) for _, e in events].count(NodeStarted) == 2
        gate.connect("nadams").close()
    state = State(root)
    vkey = state.log_public_key.read_text("utf-8").strip()
    assert verify(state.log_dir, vkey, state.known_checkpoint()).size >= len(events)


def test_a_gateway_that_is_asked_to_stop_tells_its_clients_and_the_log(
    root: Path, gateway: Process, open_gate: Any
) -> None:
    with gateway.connect("nadams") as nurse:
        nurse.execute("SELECT patient_id FROM patient").fetchall()
        assert gateway.end(signal.SIGTERM) == 0
        with pytest.raises(psycopg.OperationalError, match="shutting down"):
            nurse.execute("SELECT 1")
    with open_gate(root) as gate:
        events = [e for _, e in gate.events()]
        assert any(isinstance(e, NodeStopped) for e in events)
        reasons = [getattr(e, "reason", "") for e in events]
        assert "the gate is shutting down" in reasons


def test_a_log_that_was_put_back_is_not_gone_on_with(root: Path, open_gate: Any) -> None:
    with open_gate(root) as gate, gate.connect("nadams") as nurse:
        nurse.execute("SELECT patient_id FROM patient LIMIT 1").fetchall()
    state = State(root)
    older = root / "older"
    shutil.copytree(state.log_dir, older)
    with open_gate(root) as gate, gate.connect("nadams") as nurse:
        nurse.execute("SELECT last_name FROM patient").fetchall()
    shutil.rmtree(state.log_dir)
    older.rename(state.log_dir)
    with pytest.raises(Corrupt), open_gate(root):
        pass


def test_a_log_put_back_never_grows_past_what_was_left(root: Path, open_gate: Any) -> None:
    state = State(root)
    with open_gate(root):
        pass
    older = root / "older"
    shutil.copytree(state.log_dir, older)
    with open_gate(root) as gate, gate.connect("nadams") as nurse:
        nurse.execute("SELECT last_name FROM patient").fetchall()
    left = state.known_checkpoint()
    shutil.rmtree(state.log_dir)
    older.rename(state.log_dir)
    served = False
    with pytest.raises(Corrupt, match="cut off"), open_gate(root):
        served = True
    assert not served
    assert state.known_checkpoint() == left


def test_a_start_needs_the_log_when_its_checkpoint_is_there_and_no_checkpoint_when_the_log_is(
    root: Path, open_gate: Any
) -> None:
    state = State(root)
    with open_gate(root):
        pass
    kept = state.known_checkpoint()
    state.checkpoint_file.unlink()
    with open_gate(root) as gate:
        gate.connect("nadams").close()
    assert state.known_checkpoint() != kept
    for file in state.log_dir.iterdir():
        file.unlink()
    served = False
    with pytest.raises(Corrupt, match="is gone"), open_gate(root):
        served = True
    assert not served


def ask_on(connection: psycopg.Connection[Any], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        connection.execute("SELECT last_name FROM patient").fetchall()


def test_a_checkpoint_that_cannot_be_kept_ends_every_release(
    root: Path, open_gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chartgate.adapters.log_service.CHECKPOINT_SECONDS", 0.3)

    def damage_and_ask() -> None:
        with open_gate(root) as gate, gate.connect("nadams") as nurse:
            State(root).checkpoint_file.write_text("not a checkpoint", "utf-8")
            with pytest.raises(psycopg.OperationalError, match="audit log"):
                ask_on(nurse, seconds=20)

    with pytest.raises((Corrupt, LogUnavailable)):  # what the node itself ends with
        damage_and_ask()
