"""The gateway: listens, logs people in, and opens a session for each.

It listens on loopback only: TLS comes with the listener that leaves the host. One client session
is one connection to the source. A session that cannot be recorded is not let in.
"""

import asyncio
import contextlib
import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chartgate.adapters.control_plane_feed import ControlPlaneFeed
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.login import PURPOSE, authenticate, settings_of
from chartgate.adapters.shell import Shell
from chartgate.adapters.upstream import (
    Upstream,
    UpstreamAddress,
    cancel_upstream,
    connect_upstream,
)
from chartgate.adapters.wire import ConnectionEnded, Wire
from chartgate.app.conversation import Conversation
from chartgate.app.exchange import HIDDEN_STATUS
from chartgate.app.gate_session import AccessEnded, GateSession
from chartgate.app.in_force import InForce
from chartgate.app.tokens import PatientTokens
from chartgate.errors import ChartgateError, LogUnavailable, Refused
from chartgate.model.event import LoginRefused, encode
from chartgate.model.principal import Person
from chartgate.pgwire.frames import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    StartupReader,
)
from chartgate.pgwire.messages import (
    AuthenticationOk,
    AuthenticationSASLFinal,
    BackendKeyData,
    ParameterStatus,
    ReadyForQuery,
    error,
)
from chartgate.pgwire.scram import AuthenticationFailed, ScramServer
from chartgate.pgwire.violation import ProtocolViolation, StartupRefused
from chartgate.sql.allow import SETTINGS

LOGIN_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 600.0
MAX_SESSIONS: Final = 200
_LOGIN_FRAME: Final = 65_536
"""Largest message before the login has succeeded, as in the server."""
CHANNEL: Final = "postgresql"

_logger = logging.getLogger(__name__)


class TooManySessions(ChartgateError):
    """The gate serves as many sessions as it may."""

    code = "too_many_sessions"
    sqlstate = "53300"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What one gateway serves. ``idle_seconds`` without a message end a session.

    So do as many in which a client does not read what it asked for.
    """

    node: str
    database: str
    host: str = "127.0.0.1"
    port: int = 0
    idle_seconds: float = IDLE_SECONDS
    max_sessions: int = MAX_SESSIONS


class Gateway:
    """Accepts clients until closed. Everything a decision needs is handed in, already loaded.

    What ``in_force`` holds may be replaced at any time: sessions look there for each decision.
    """

    def __init__(
        self,
        config: GatewayConfig,
        in_force: InForce,
        upstream: UpstreamAddress,
        people: ControlPlaneFeed,
        tokens: PatientTokens,
        log: LogWriter,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config = config
        self._in_force = in_force
        self._upstream = upstream
        self._people = people
        self._tokens = tokens
        self._log = log
        self._now = now
        self._mock_salt_key = secrets.token_bytes(32)
        self._cancel: dict[int, tuple[bytes, BackendKeyData]] = {}
        self._sessions: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; answers the port."""
        if self._config.host not in {"127.0.0.1", "::1", "localhost"}:
            raise Refused("without TLS the gate listens on loopback only")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Wire(self._accept), self._config.host, self._config.port
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and end every session."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._sessions):
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    # What ``Directory`` asks.

    def person(self, name: str) -> Person | None:
        """The person with this login name."""
        return self._people.snapshot.persons.get(name)

    def is_fresh(self) -> bool:
        """Whether the control plane was heard of within the last 15 seconds."""
        return self._people.is_fresh(asyncio.get_running_loop().time())

    def _accept(self, wire: Wire) -> None:
        if len(self._sessions) >= self._config.max_sessions:
            reason = TooManySessions("the gate serves as many sessions as it may; try again later")
            wire.write(error(reason.sqlstate, str(reason), severity="FATAL"))
            wire.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(wire))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    async def _serve(self, wire: Wire) -> None:
        try:
            await self._session(wire)
        except ConnectionEnded:
            pass
        except asyncio.CancelledError:
            wire.write(error("57P01", "the gate is shutting down", severity="FATAL"))
            raise
        except TimeoutError:
            wire.write(error("08006", "the login took too long", severity="FATAL"))
        except ChartgateError as exc:
            wire.write(error(exc.sqlstate, str(exc), severity="FATAL"))
        except Exception:
            # A fault of ours: the client hears no detail, since it could hold data.
            _logger.exception("a session failed")
            wire.write(
                error("XX000", "the gate failed; nothing more is released", severity="FATAL")
            )
        finally:
            wire.close()

    async def _session(self, wire: Wire) -> None:
        async with asyncio.timeout(LOGIN_SECONDS) as limit:
            startup = await self._start_up(wire)
            if startup is None:
                return
            session = await self._log_in(wire, startup)
            upstream = await self._connect(session, startup)
            limit.reschedule(None)
        pid = self._register(upstream)
        is_recorded = False
        reason = "the gate failed"
        try:
            started = session.started(
                client=_peer(wire), application=startup.parameters.get("application_name", "")
            )
            await self._log.append((encode(started),))
            is_recorded = True
            self._welcome(wire, upstream, pid, session, startup)
            shell = Shell(wire, upstream, self._log, idle_seconds=self._config.idle_seconds)
            reason = await shell.run(Conversation(session).talk())
        except asyncio.CancelledError:
            reason = "the gate is shutting down"
            raise
        except ProtocolViolation:
            reason = "protocol violation"
            raise
        finally:
            self._cancel.pop(pid, None)
            if is_recorded:
                with contextlib.suppress(LogUnavailable):  # then nothing was released either
                    self._log.post((encode(session.ended(reason)),))
            await self._leave(upstream)

    async def _leave(self, upstream: Upstream) -> None:
        """Give the connection up; what still runs on it is stopped, for nobody will see it."""
        if upstream.is_busy and upstream.cancel_key is not None and not upstream.wire.is_ended:
            await cancel_upstream(self._upstream, upstream.cancel_key)
        upstream.wire.abort()

    # Start-up and login.

    async def _start_up(self, wire: Wire) -> StartupMessage | None:
        reader = StartupReader()
        while True:
            reader.feed(wire.take_raw())
            packet = reader.next()
            match packet:
                case None:
                    wire.check()
                    await wire.signal.wait()
                case SSLRequest() | GSSENCRequest():
                    wire.write(b"N")
                case CancelRequest(pid, key):
                    await self._relay_cancel(pid, key)
                    return None
                case StartupMessage():
                    wire.typed(reader.rest(), runs=False, max_frame=_LOGIN_FRAME)
                    if (negotiation := packet.negotiation()) is not None:
                        wire.write(negotiation.encode())
                    return packet

    async def _log_in(self, wire: Wire, startup: StartupMessage) -> GateSession:
        """Who it is, and that she may: whoever is turned away after all is recorded too."""
        final = await self._authenticate(wire, startup)
        try:
            session = self._open(startup)
        except (AccessEnded, Refused) as exc:
            await self._refuse_login(wire, startup.user, str(exc))
            raise
        wire.typed(runs=False)
        wire.write(AuthenticationSASLFinal(final).encode() + AuthenticationOk().encode())
        return session

    async def _authenticate(self, wire: Wire, startup: StartupMessage) -> bytes:
        name = startup.user
        snapshot = self._people.snapshot
        known = snapshot.credential(name, at=self._now()) if self.is_fresh() else None
        salt = hmac.digest(self._mock_salt_key, name.encode(), "sha256")[:16]
        server = ScramServer(
            known.scram_verifier if known is not None else None,
            secrets.token_urlsafe(18).encode(),
            mock_salt=salt,
        )
        try:
            final = await authenticate(wire, server)
        except AuthenticationFailed as exc:
            await self._refuse_login(wire, name, str(exc))
            raise
        except ProtocolViolation as exc:
            await self._refuse_login(wire, name, "the login was not completed")
            raise StartupRefused(str(exc)) from exc
        if startup.database != self._config.database:
            await self._refuse_login(wire, name, "another database was asked for")
            raise StartupRefused("there is no such database here")
        return final

    async def _refuse_login(self, wire: Wire, name: str, reason: str) -> None:
        person = self.person(name)
        event = LoginRefused(
            at=self._now()
            .astimezone(UTC)
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z"),
            node=self._config.node,
            login=person.uid if person is not None else "unknown",
            channel=CHANNEL,
            client=_peer(wire),
            reason=reason,
        )
        await self._log.append((encode(event),))

    def _open(self, startup: StartupMessage) -> GateSession:
        person = self.person(startup.user)
        at = self._now()
        if person is None or not person.active or not person.live(at=at):
            raise AccessEnded("no role is assigned to you now")
        settings = settings_of(startup)
        default = self._in_force.point.roles.default_purpose(person.live(at=at)) or ""
        session = GateSession(
            session_id=secrets.token_hex(8),
            name=person.name,
            node=self._config.node,
            channel=CHANNEL,
            secret=secrets.token_hex(16),
            purpose=default,
            in_force=self._in_force,
            directory=self,
            tokens=self._tokens,
            now=self._now,
        )
        session.begin(settings.get(PURPOSE, ""))
        session.entitlement()
        return session

    async def _connect(self, session: GateSession, startup: StartupMessage) -> Upstream:
        settings = {
            name: value
            for name, value in settings_of(startup).items()
            if name != PURPOSE and not SETTINGS[name].virtual
        }
        settings["application_name"] = f"chartgate {session.id}"
        return await connect_upstream(
            self._upstream, settings, nonce=secrets.token_urlsafe(18).encode()
        )

    def _register(self, upstream: Upstream) -> int:
        pid = secrets.randbits(31)
        while pid in self._cancel:
            pid = secrets.randbits(31)
        if upstream.cancel_key is not None:
            self._cancel[pid] = (secrets.token_bytes(4), upstream.cancel_key)
        return pid

    def _welcome(
        self,
        wire: Wire,
        upstream: Upstream,
        pid: int,
        session: GateSession,
        startup: StartupMessage,
    ) -> None:
        reported = {k: v for k, v in upstream.parameters.items() if k not in HIDDEN_STATUS}
        reported["application_name"] = startup.parameters.get("application_name", "")
        reported |= {"is_superuser": "off", "session_authorization": session.name}
        parts = [ParameterStatus(name, value).encode() for name, value in reported.items()]
        if pid in self._cancel:
            parts.append(BackendKeyData(pid, self._cancel[pid][0]).encode())
        parts.append(ReadyForQuery("I").encode())
        wire.write(b"".join(parts))

    async def _relay_cancel(self, pid: int, key: bytes) -> None:
        ours, theirs = self._cancel.get(pid, (b"\0\0\0\0", None))
        if hmac.compare_digest(ours, key) and theirs is not None:
            await cancel_upstream(self._upstream, theirs)


def _peer(wire: Wire) -> str:
    peer = wire.transport.get_extra_info("peername") if wire.transport is not None else None
    return f"{peer[0]}:{peer[1]}" if peer else ""
