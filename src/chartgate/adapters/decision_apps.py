"""Applications at the log's door: their tokens are checked against the control plane.

The rules kept (45 CFR 164.312(d)): the writer holds no people and no policies, only the accounts of
applications, read anew when they are older than ``FRESH_SECONDS``; when they cannot be read, nobody new
is let in.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import psycopg

from chartgate.adapters import control_plane_queries as queries
from chartgate.adapters.control_plane_services import Services, build_services
from chartgate.app.node_asked import UnknownCaller
from chartgate.errors import LogUnavailable

FRESH_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 5


class ApplicationAccounts:
    """Whose token it is: ``verify`` of an ``AppDoor``."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._services: Services | None = None
        self._read_at = -FRESH_SECONDS
        self._turn = asyncio.Lock()

    async def verify(self, token: str) -> str | None:
        """The uid of the service; None for nobody. Raises ``LogUnavailable``."""
        async with self._turn:
            if self._services is None or time.monotonic() - self._read_at >= FRESH_SECONDS:
                began = time.monotonic()
                self._services = await asyncio.to_thread(self._read)
                self._read_at = began
        try:
            return self._services.of_token(token, at=datetime.now(UTC)).uid
        except UnknownCaller:
            return None

    def _read(self) -> Services:
        try:
            with psycopg.connect(
                self._conninfo,
                connect_timeout=_CONNECT_SECONDS,
                application_name="chartgate log door",
            ) as link:
                return build_services(
                    link.execute(queries.SERVICES).fetchall(),
                    link.execute(queries.TOKENS).fetchall(),
                    link.execute(queries.CERTIFICATES).fetchall(),
                )
        except psycopg.Error as exc:
            self._services = None
            raise LogUnavailable("the accounts of applications cannot be read") from exc
