"""The gate inside an application's process: pooled connections lead here instead of to the source.

Rules kept: the application's driver has no other way to the source than through the conversation
that the gateway runs, statement by statement; only this very process may sit down (a Unix socket in
a folder of mode 0700, the kernel's word for the caller's process, and a ticket used once). It runs
on a thread of its own, so that threads and event loops of the application may wait for it.
"""

import asyncio
import atexit
import os
import secrets
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from chartgate.adapters.gateway import LOGIN_SECONDS, Gateway, GatewayConfig
from chartgate.adapters.shell import Shell
from chartgate.adapters.upstream import UpstreamAddress
from chartgate.adapters.wire import Wire
from chartgate.app.conversation import Conversation
from chartgate.app.gate_session import AccessEnded, GateSession
from chartgate.app.in_force import InForce
from chartgate.app.tokens import PatientTokens
from chartgate.errors import ChartgateError, LogUnavailable, Misconfigured, Refused
from chartgate.model.event import Event, LoginRefused, SessionEnded, SessionStarted, encode
from chartgate.pgwire.frames import StartupMessage
from chartgate.pgwire.messages import AuthenticationOk
from chartgate.pgwire.violation import StartupRefused
from chartgate.sdk.sqlalchemy_seat import (
    CHANNEL,
    Acting,
    NoOne,
    People,
    Seat,
    SeatSession,
    seated,
)

PORT: Final = 5432
"""Part of the socket's name, as libpq builds it."""
MAX_CONNECTIONS: Final = 1_000
MAX_PEOPLE: Final = 500
"""Whose views are kept at a time, beyond those who have a connection just now."""
IDLE_SECONDS: Final = 600.0
"""After so long without a connection, a person's next statement begins a new session in the log."""
_START_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 30.0
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Behind:
    """What the gate stands before, and what it decides by. Opened and used on the gate's own loop."""

    node: str
    in_force: InForce
    upstream: UpstreamAddress
    people: People
    tokens: PatientTokens
    log: Any
    """The node's audit log: ``append``, ``place``, ``settled``, ``post`` as ``LogWriter`` has them."""
    service: str = "application"
    """Opaque uid of the application, for what is refused before it is known who asks."""


Opener = Callable[[], AbstractAsyncContextManager[Behind]]
"""Called once, on the gate's loop; left when the gate closes."""


class EmbeddedGate:
    """Starts with the first connection, ends with ``close`` or the process."""

    def __init__(self, opener: Opener, *, application: str = "") -> None:
        self._opener: Final = opener
        self._application: Final = application
        self._is_closed = False
        self._renew()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _renewed(this()))

    def _renew(self) -> None:
        """As it is in a process that has no gate yet; a child process has none of its parent's."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._people: dict[tuple[str, str], Acting] = {}
        self._gone: list[Acting] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._door: _Door | None = None
        self._folder: Path | None = None

    def start(self) -> None:
        """Open the gate, if it is not open; raises what stands in the way."""
        with self._lock:
            if self._is_closed:
                raise Misconfigured("the protection of this engine was closed")
            if self._thread is not None:
                return
            started: Future[None] = Future()
            thread = threading.Thread(
                target=self._run, args=(started,), name="chartgate gate", daemon=True
            )
            thread.start()
            try:
                started.result(_START_SECONDS)
            except BaseException:
                thread.join(_START_SECONDS)
                raise
            self._thread = thread
            atexit.register(self.close)

    def close(self) -> None:
        """End every connection, then the gate. Nothing can be asked through it any more."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
        if thread is None:
            return
        atexit.unregister(self.close)
        assert self._loop is not None
        assert self._stop is not None
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(_START_SECONDS)

    def seat(self) -> Seat:
        """A place for one new connection, whose user name is the seat's ticket."""
        self.start()
        seat = Seat("cg_" + secrets.token_hex(24), self._pid)
        self._open_door.expected[seat.ticket] = seat
        return seat

    @property
    def host(self) -> str:
        """The folder of the socket, which is what drivers call the host."""
        self.start()
        assert self._folder is not None
        return str(self._folder)

    @property
    def database(self) -> str:
        """The name of the source's database."""
        self.start()
        return self._open_door.behind.upstream.database

    def sit(self, seat: Seat, name: str, purpose: str) -> None:
        """From the next statement on the connection is this person's.

        Raises ``AccessEnded`` or ``PurposeRefused``, recorded, if she may not work, or not for this.
        """
        self.start()
        try:
            with self._lock:
                acting = self._acting(name, purpose)
                if seat.acting is not acting:
                    self._leave(seat)
                    acting.seats += 1
                    seat.acting = acting
        except (AccessEnded, Refused) as exc:
            # Without the lock: the gate's thread, which takes it, is what records.
            self._refuse(name, str(exc))
            raise

    def leave(self, seat: Seat) -> None:
        """The connection is nobody's again."""
        with self._lock:
            self._leave(seat)

    @staticmethod
    def _leave(seat: Seat) -> None:
        acting, seat.acting = seat.acting, None
        if acting is not None:
            acting.seats -= 1
            acting.used = time.monotonic()

    def note(self, *events: Event) -> None:
        """Put events in the log, on disk before this returns; raises ``LogUnavailable``."""
        self.start()
        assert self._loop is not None
        entries = tuple(encode(event) for event in events)
        asyncio.run_coroutine_threadsafe(
            self._open_door.behind.log.append(entries), self._loop
        ).result(_START_SECONDS)

    def outside(self, name: str, reason: str) -> tuple[SessionStarted, SessionEnded]:
        """The two events around work that goes past the gate; raises ``AccessEnded``."""
        door = self._open_door
        person = door.person(name)
        if person is None or not person.active or not door.is_fresh():
            raise AccessEnded("only a person with an account goes past the gate")
        session = secrets.token_hex(8)
        node, uid = door.behind.node, person.uid
        started = SessionStarted(
            at=_stamp(),
            node=node,
            session=session,
            person=uid,
            channel="unprotected",
            application=reason[:64],
            authentication="application",
        )
        return started, SessionEnded(
            at=_stamp(), node=node, session=session, person=uid, reason="unprotected work ended"
        )

    # People.

    def _acting(self, name: str, purpose: str) -> Acting:
        door = self._open_door
        person = door.person(name)
        found = self._people.get((name, purpose))
        if found is not None and person is not None and found.uid == person.uid:
            found.check(purpose)
            return found
        acting = self._people[name, purpose] = door.admit(name, purpose, self._application)
        acting.used = time.monotonic()
        if len(self._people) > MAX_PEOPLE:
            idle = [item for item in self._people.items() if not item[1].seats]
            oldest, gone = min(idle, key=lambda item: item[1].used)
            if gone is not acting:
                del self._people[oldest]
                self._gone.append(gone)
        return acting

    def _refuse(self, name: str, reason: str) -> None:
        door = self._open_door
        person = door.person(name)
        uid = person.uid if person is not None else "unknown"
        self.note(
            LoginRefused(
                at=_stamp(), node=door.behind.node, login=uid, channel=CHANNEL, reason=reason
            )
        )

    def _idle(self, *, everybody: bool = False) -> list[Acting]:
        """Forget whoever has had no connection for long."""
        now = time.monotonic()
        with self._lock:
            gone = [
                (key, acting)
                for key, acting in self._people.items()
                if everybody or (not acting.seats and now - acting.used > IDLE_SECONDS)
            ]
            for key, _ in gone:
                del self._people[key]
            ended, self._gone = [*self._gone, *(acting for _, acting in gone)], []
        return ended

    # The gate's own thread.

    @property
    def _open_door(self) -> "_Door":
        assert self._door is not None
        return self._door

    def _run(self, started: "Future[None]") -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(self._serve(started))
            except BaseException as exc:
                if started.done():
                    raise
                started.set_exception(exc)

    async def _serve(self, started: "Future[None]") -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        folder = self._folder = Path(tempfile.mkdtemp(prefix="chartgate-"))
        try:
            async with self._opener() as behind:
                door = self._door = _Door(behind, folder)
                await door.start()
                started.set_result(None)
                try:
                    await self._until_stopped(door)
                finally:
                    await door.close()
                    self._end(door, self._idle(everybody=True), "the application closed its gate")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            await asyncio.sleep(0)  # transports that were closed let go of their sockets

    async def _until_stopped(self, door: "_Door") -> None:
        assert self._stop is not None
        while not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _SWEEP_SECONDS)
            self._end(door, self._idle(), "idle")

    @staticmethod
    def _end(door: "_Door", gone: list[Acting], reason: str) -> None:
        with suppress(LogUnavailable):  # then nothing was released either
            for acting in gone:
                if acting.is_recorded:
                    door.behind.log.post((encode(acting.session.ended(reason)),))


class _Door(Gateway):
    """The gateway's listener for connections of this process alone, told who sits at each."""

    def __init__(self, behind: Behind, folder: Path) -> None:
        config = GatewayConfig(
            node=behind.node,
            database=behind.upstream.database,
            idle_seconds=_NEVER,  # a pool keeps connections; the application ends idle sessions
            max_sessions=MAX_CONNECTIONS,
        )
        super().__init__(
            config,
            behind.in_force,
            behind.upstream,
            behind.people,  # type: ignore[arg-type]  (what is asked of it here is in ``People``)
            behind.tokens,
            behind.log,
        )
        self.behind: Final = behind
        self.expected: Final[dict[str, Seat]] = {}
        """Seats whose connection has not come yet, by ticket."""
        self._folder: Final = folder
        self._nobody: Final = NoOne(
            session_id=secrets.token_hex(8),
            node=behind.node,
            uid=behind.service,
            in_force=behind.in_force,
            tokens=behind.tokens,
            now=self._now,
        )

    async def start(self) -> int:
        """Listen in the folder."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: Wire(self._accept), str(self._folder / f".s.PGSQL.{PORT}")
        )
        return PORT

    def is_fresh(self) -> bool:
        """Whether the control plane was heard of within the last 15 seconds; from any thread."""
        return self.behind.people.is_fresh(time.monotonic())

    def admit(self, name: str, purpose: str, application: str) -> Acting:
        """A session for a person; raises ``AccessEnded`` or ``PurposeRefused``."""
        session = GateSession(
            session_id=secrets.token_hex(8),
            name=name,
            node=self.behind.node,
            channel=CHANNEL,
            secret=secrets.token_hex(16),
            purpose="",
            in_force=self.behind.in_force,
            directory=self,
            tokens=self.behind.tokens,
            now=self._now,
        )
        if not session.person.live(at=self._now()):
            raise AccessEnded("no role is assigned to you now")
        session.begin(purpose)
        return Acting(session, client=f"pid {os.getpid()}", application=application)

    async def _session(self, wire: Wire) -> None:
        async with asyncio.timeout(LOGIN_SECONDS) as limit:
            startup = await self._start_up(wire)
            if startup is None:
                return
            seat = self._seat_of(wire, startup)
            sitting = SeatSession(seat, self._nobody)
            session = sitting.as_session()
            upstream = await self._connect(session, startup)
            limit.reschedule(None)
        wire.typed(runs=False)
        pid = self._register(upstream)
        try:
            seat.is_seated = True
            wire.write(AuthenticationOk().encode())
            self._welcome(wire, upstream, pid, session, startup)
            shell = Shell(wire, upstream, self._log, idle_seconds=_NEVER)
            await shell.run(seated(sitting, Conversation(session).talk()))
        finally:
            self._cancel.pop(pid, None)
            await self._leave(upstream)

    def _seat_of(self, wire: Wire, startup: StartupMessage) -> Seat:
        if not _is_this_process(wire):
            raise StartupRefused("only the process that opened this gate may sit down at it")
        seat = self.expected.pop(startup.user, None)
        if seat is None:
            raise StartupRefused("there is no such seat")
        return seat


def _renewed(gate: EmbeddedGate | None) -> None:
    if gate is not None:
        gate._renew()  # noqa: SLF001  (its own, in the child)


def _is_this_process(wire: Wire) -> bool:
    """The kernel says who is at the other end, where it can; the ticket and the folder do anyway."""
    assert wire.transport is not None
    peer: socket.socket | None = wire.transport.get_extra_info("socket")
    if sys.platform != "linux" or peer is None:
        return True
    pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(pid == os.getpid() and uid == os.geteuid())


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


__all__ = ["Behind", "ChartgateError", "EmbeddedGate", "Opener"]
