"""A running gate for system tests: one small generated hospital, shared by the whole session.

Fixture ``gate`` (session-scoped; both PostgreSQL servers, the gateway and its log are real, the
gateway runs on an event loop in a thread of this process):

- ``gate.connect(name, **psycopg arguments)``  a psycopg connection through the gate as a person
- ``gate.dsn(name, **parameters)``             its libpq connection string, password included
- ``gate.password(name)``, ``gate.host``, ``gate.port``, ``gate.database``
- ``gate.psql(name, *arguments)``              runs psql through the gate, answers the finished run
- ``gate.admin()``       superuser's psycopg connection to the legacy database (autocommit)
- ``gate.control()``     the control plane, to assign, end or deactivate
- ``gate.state``, ``gate.ready``               folders; what the gate is made from
- ``gate.size``          how many entries the log has now
- ``gate.events(since=0)``  decoded log events as ``(index, event)``, whole commits only
- ``gate.wait_for(test, since=0)``  the first event that passes ``test``: for events that nobody
  waits for (``completed``, ``session_ended``)
- ``gate.tokens(keys)``  the log's tokens of patient keys

Tests share it: leave people, assignments and rows as they were found.
"""

import asyncio
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chartgate.adapters.control_plane import ControlPlane, open_control_plane
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.embedded_programs import find_psql
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.state import State
from chartgate.app.tokens import PATIENT, PatientTokens
from chartgate.demo import legacy
from chartgate.demo.generator import generate
from chartgate.demo.run import Prepared, prepared, serving
from chartgate.model.event import Event, decode

PATIENTS = 300
PATIENCE = 10.0


@dataclass(slots=True)
class Gate:
    """Where the gate is and what lies behind it; see the top of this file."""

    ready: Prepared
    port: int
    host: str = "127.0.0.1"

    @property
    def state(self) -> State:
        return self.ready.state

    @property
    def database(self) -> str:
        return self.ready.instance.database

    def password(self, name: str) -> str:
        for line in self.state.passfile.read_text("utf-8").splitlines():
            _, _, _, user, password = line.split(":", 4)
            if user == name:
                return password
        raise KeyError(name)

    def dsn(self, name: str, **parameters: Any) -> str:
        given = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": name,
            "password": self.password(name),
            "sslmode": "disable",
        }
        return psycopg.conninfo.make_conninfo(**{**given, **parameters})

    def connect(self, name: str, **arguments: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(name), **{"autocommit": True, **arguments})

    def psql(
        self, name: str, *arguments: str, program: Path | str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        program = program or find_psql()
        if program is None:
            pytest.skip("there is no psql here")
        return subprocess.run(
            [str(program), "-X", "-w", "-d", self.dsn(name), *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def admin(self) -> psycopg.Connection[Any]:
        parts = psycopg.conninfo.conninfo_to_dict(self.ready.instance.legacy)
        user = psycopg.conninfo.conninfo_to_dict(self.ready.control)["user"]
        return psycopg.connect(**{**parts, "user": user}, autocommit=True)

    def control(self) -> ControlPlane:
        return open_control_plane(self.ready.control)

    @property
    def size(self) -> int:
        return LogReader(self.state.log_dir).size

    def events(self, since: int = 0) -> list[tuple[int, Event]]:
        reader = LogReader(self.state.log_dir)
        return [(index, decode(entry)) for index, entry in reader.entries(since)]

    def wait_for(self, test: Callable[[Event], bool], since: int = 0) -> tuple[int, Event]:
        limit = time.monotonic() + PATIENCE
        while True:
            for index, event in self.events(since):
                if test(event):
                    return index, event
            if time.monotonic() > limit:
                raise AssertionError("the log never got the event that was waited for")
            threading.Event().wait(0.02)

    def tokens(self, keys: Iterable[object]) -> set[str]:
        made = PatientTokens(
            TokenKeys(KeyStore(self.state.keys_dir), create=False), self.ready.instance.source
        )
        return {token for key in keys for token in made.all_years(PATIENT, str(key))}


def load_small_hospital(root: Path, *, patients: int = PATIENTS) -> None:
    """Load the hospital before the demo does, with fewer patients; it finds it and goes on."""
    state = State(root)
    state.create()
    with EmbeddedPostgres(state.legacy_pg, roles=(legacy.SERVICE,)) as server:
        made = generate(random.Random(7), date.today(), patients=patients)
        legacy.load(server, legacy.hospital_source(made))
    (state.root / "data").write_text("generated", "utf-8")


@pytest.fixture(scope="session")
def load_hospital() -> Callable[..., None]:
    """``load_hospital(root, patients=n)``: a small hospital in a state folder of a test's own."""
    return load_small_hospital


@contextmanager
def served(ready: Prepared, **limits: float) -> Iterator[int]:
    """The gateway of ``ready`` on a thread of its own; answers the port."""
    loop = asyncio.new_event_loop()
    started: Future[int] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        try:
            async with serving(ready, **limits) as port:
                started.set_result(port)
                await stop.wait()
        except BaseException as exc:
            if started.done():
                raise
            started.set_exception(exc)  # a start that failed is told at once

    failures: list[BaseException] = []

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run, name="gate")
    thread.start()

    try:
        yield started.result(30)
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
    if failures:
        raise failures[0]


@contextmanager
def opened(root: Path, data: Path | None = None, **limits: float) -> Iterator[Gate]:
    with ExitStack() as stack:
        ready = stack.enter_context(
            prepared(root, data=data, port=0, host="127.0.0.1", progress=lambda _: None)
        )
        yield Gate(ready, stack.enter_context(served(ready, **limits)))


@pytest.fixture(scope="session")
def open_gate() -> Callable[..., AbstractContextManager[Gate]]:
    """``open_gate(root, data, idle_seconds=n)``: a gate of a test's own, perhaps on other data."""
    return opened


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[int]]:
    """``serve(ready)``: one more gate, on what is prepared already; answers its port."""
    return served


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    root = tmp_path_factory.mktemp("gate")
    load_small_hospital(root)
    with opened(root) as made:
        yield made
