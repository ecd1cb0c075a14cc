"""Where pooled connections arrive, and who sits at each: the gateway's listener, for one process.

Rules kept: the application's driver has no other way to the source than through the conversation
that the gateway runs, statement by statement; only this very process may sit down (a Unix socket in
a folder of mode 0700, the kernel's word for the caller's process, and a ticket used once).
"""

import asyncio
import os
import secrets
import socket
import struct
import sys
import time
from dataclasses import dataclass
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


class Door(Gateway):
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
            behind.people,  # type: ignore[arg-type]  # what is asked of it here is in ``People``
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


def _is_this_process(wire: Wire) -> bool:
    """The kernel says who is at the other end, where it can; the ticket and the folder do anyway."""
    assert wire.transport is not None
    peer: socket.socket | None = wire.transport.get_extra_info("socket")
    if sys.platform != "linux" or peer is None:
        return True
    pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(pid == os.getpid() and uid == os.geteuid())
