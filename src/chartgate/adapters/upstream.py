"""The gate's own connection to the source: one per client session, as the one service account.

The settings that change how text is read, or what a transaction sees, are pinned in the start-up
packet: RESET ALL and DISCARD ALL go back to exactly these.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chartgate.adapters.wire import ConnectionEnded, Wire
from chartgate.errors import ChartgateError
from chartgate.pgwire.frames import Run, StartupMessage
from chartgate.pgwire.messages import (
    AuthenticationOk,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    BackendKeyData,
    ErrorResponse,
    ParameterStatus,
    ReadyForQuery,
    SASLInitialResponse,
    SASLResponse,
    decode_backend,
)
from chartgate.pgwire.scram import MECHANISM, ScramClient
from chartgate.pgwire.startup import PROTOCOL_3_0, CancelRequest

PINNED: Final[Mapping[str, str]] = {
    "client_encoding": "UTF8",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "default_transaction_isolation": "repeatable read",
    "statement_timeout": "300000",
    "idle_in_transaction_session_timeout": "600000",
    "lock_timeout": "60000",
    "row_security": "on",
    # A parameter's value is folded when the plan is made, so that a cast of it that raises does so
    # before a row is met; a generic plan would meet the rows first.
    "plan_cache_mode": "force_custom_plan",
    # The key query and the statement read a table from the same end.
    "synchronize_seqscans": "off",
}
CONNECT_SECONDS: Final = 10.0


class SourceUnavailable(ChartgateError):
    """The source database cannot be reached, or does not let the service account in."""

    code = "source_unavailable"
    sqlstate = "08001"


@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """Where the source is: a Unix socket, the database, and the service account."""

    socket: Path
    database: str
    user: str
    password: str | None = None


@dataclass(slots=True, eq=False)
class Upstream:
    """An open connection: its wire, what it reported of itself, and how to cancel on it."""

    wire: Wire
    parameters: Mapping[str, str]
    cancel_key: BackendKeyData | None
    is_busy: bool = False
    """Whether it was asked something since the client was last waited for."""


async def connect_upstream(
    address: UpstreamAddress, settings: Mapping[str, str], *, nonce: bytes
) -> Upstream:
    """Open a session as the service account; raises ``SourceUnavailable``."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, wire = await loop.create_unix_connection(Wire, str(address.socket))
            wire.typed(runs=True)
            startup = StartupMessage(
                PROTOCOL_3_0,
                {
                    "user": address.user,
                    "database": address.database,
                    **settings,
                    **PINNED,
                },
            )
            wire.write(startup.encode())
            try:
                return await _log_in(wire, address, nonce)
            except BaseException:
                wire.abort()  # given up, cancelled or refused: nobody else would close it
                raise
    except (OSError, TimeoutError, ConnectionEnded) as exc:
        raise SourceUnavailable("the source database cannot be reached") from exc


async def _log_in(wire: Wire, address: UpstreamAddress, nonce: bytes) -> Upstream:
    parameters: dict[str, str] = {}
    key: BackendKeyData | None = None
    scram = ScramClient(address.user, address.password or "", nonce)
    while True:
        while not wire.has_frames:
            wire.check()
            await wire.signal.wait()
        run = wire.take_frame()
        assert isinstance(run, Run)
        match decode_backend(run.kind, run.data[5:]):
            case AuthenticationOk():
                pass
            case AuthenticationSASL() if address.password is not None:
                wire.write(SASLInitialResponse(MECHANISM, scram.initial()).encode())
            case AuthenticationSASLContinue(data):
                wire.write(SASLResponse(scram.respond(data)).encode())
            case AuthenticationSASLFinal(data):
                scram.verify(data)
            case ParameterStatus(name, value):
                parameters[name] = value
            case BackendKeyData() as found:
                key = found
            case ReadyForQuery():
                return Upstream(wire, parameters, key)
            case ErrorResponse() as report:
                wire.close()
                raise SourceUnavailable(
                    f"the source database refused the service account ({report.sqlstate})"
                )
            case _:
                wire.close()
                raise SourceUnavailable("the source database wants a login that is not supported")


async def cancel_upstream(address: UpstreamAddress, key: BackendKeyData) -> None:
    """Ask the source to stop what a session is doing; best effort, as in PostgreSQL."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_unix_connection(str(address.socket))
            writer.write(CancelRequest(key.pid, key.key).encode())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError):
        return
