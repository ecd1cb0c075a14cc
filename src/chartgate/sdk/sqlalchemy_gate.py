"""The gate inside an application's process: pooled connections lead here instead of to the source.

Rules kept: it runs on a thread of its own, so that threads and event loops of the application may
wait for it; a person has one session in the log for all her connections, and loses it when she has
had none for ten minutes; a forked process has a gate of its own.
"""

import asyncio
import atexit
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chartgate.app.gate_session import AccessEnded
from chartgate.errors import LogUnavailable, Misconfigured, Refused
from chartgate.model.event import Event, LoginRefused, SessionEnded, SessionStarted, encode
from chartgate.sdk.sqlalchemy_door import PORT, Behind, Door
from chartgate.sdk.sqlalchemy_seat import (
    CHANNEL,
    Acting,
    Seat,
)

MAX_PEOPLE: Final = 500
"""Whose views are kept at a time, beyond those who have a connection just now."""
IDLE_SECONDS: Final = 600.0
"""After so long without a connection, a person's next statement begins a new session in the log."""
_START_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 30.0


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
        self._door: Door | None = None
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
    def _open_door(self) -> "Door":
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
                door = self._door = Door(behind, folder)
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

    async def _until_stopped(self, door: "Door") -> None:
        assert self._stop is not None
        while not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _SWEEP_SECONDS)
            self._end(door, self._idle(), "idle")

    @staticmethod
    def _end(door: "Door", gone: list[Acting], reason: str) -> None:
        with suppress(LogUnavailable):  # then nothing was released either
            for acting in gone:
                if acting.is_recorded:
                    door.behind.log.post((encode(acting.session.ended(reason)),))


def _renewed(gate: EmbeddedGate | None) -> None:
    if gate is not None:
        gate._renew()  # noqa: SLF001  (its own, in the child)


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


__all__ = ["PORT", "Behind", "EmbeddedGate", "Opener"]
