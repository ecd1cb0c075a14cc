"""The control plane as a node sees it: one snapshot in memory, replaced as soon as it changes.

Rules kept (design: Stores): a change reaches every node by NOTIFY; each node also compares epochs
every 5 s, so a lost notification costs 5 s, not a revocation; a node that could not compare for
15 s does not know who was cut off, says so (``is_fresh``), and its caller fails closed. Time since
the last comparison counts from before the question was sent: a late answer is never taken for a
new one. Of a change only what it changed is read; everything only at the start, or when the recorded
changes do not lead from what is known to what is there.

A notification is only ever a reason to look. It names the epoch that its change made, and epochs
rise with each change: one that names none, an old one or one that never was came from somebody
who may speak to the database but changed nothing, and is told (``on_forged``).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Self

import psycopg
from psycopg import sql

from chartgate.adapters import control_plane_queries as queries
from chartgate.adapters.control_plane import ControlPlaneUnavailable
from chartgate.adapters.control_plane_read import read_apart, read_head, read_since
from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot

SWEEP_SECONDS = 5.0
STALE_SECONDS = 15.0
LOAD_SECONDS = 60.0
"""For everything at once: 5,000,000 assignments take a tenth of it."""
_FIRST_RETRY = 0.1
_LAST_RETRY = 5.0

_logger = logging.getLogger(__name__)


class ControlPlaneFeed:
    """Use as an async context manager; entering waits for the first snapshot.

    ``on_change`` is called in the loop with each new snapshot after the first, which says what
    changed: whoever holds live sessions re-checks them there. It must not raise.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        on_change: Callable[[ControlPlaneSnapshot], None] | None = None,
        on_forged: Callable[[str], None] | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._conninfo = conninfo
        self._on_change = on_change
        self._on_forged = on_forged
        self._noticed = 0
        self._sweep_seconds = sweep_seconds
        self._stale_seconds = stale_seconds
        self._snapshot: ControlPlaneSnapshot | None = None
        self._compared_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def snapshot(self) -> ControlPlaneSnapshot:
        """The newest snapshot; ask ``is_fresh`` before deciding on it."""
        if self._snapshot is None:
            raise ControlPlaneUnavailable("the control plane has not been read yet")
        return self._snapshot

    def is_fresh(self, now_monotonic: float) -> bool:
        """Whether the snapshot may still be decided on at ``now_monotonic`` (time.monotonic)."""
        return self._snapshot is not None and self.age(now_monotonic) < self._stale_seconds

    def age(self, now_monotonic: float) -> float:
        """Seconds since the snapshot was last compared with what is there."""
        return now_monotonic - self._compared_at

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Read everything once, then keep up in the background."""
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                connection = await self._connect()
        except psycopg.errors.UndefinedTable as exc:
            raise ControlPlaneUnavailable(
                "the control plane's tables are not those of this version"
            ) from exc
        except (psycopg.Error, TimeoutError) as exc:
            raise ControlPlaneUnavailable("the control plane's database cannot be reached") from exc
        self._task = asyncio.create_task(self._keep_up(connection), name="control-plane-feed")

    async def stop(self) -> None:
        """Stop following; the snapshot stays and grows stale."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _keep_up(self, connection: psycopg.AsyncConnection | None) -> None:
        retry = _FIRST_RETRY
        while True:
            try:
                if connection is None:
                    async with asyncio.timeout(LOAD_SECONDS):
                        connection = await self._connect()
                    _logger.info("control plane: link restored")
                    retry = _FIRST_RETRY
                await self._follow(connection)
            except (psycopg.Error, OSError, TimeoutError) as exc:
                _logger.warning("control plane: link lost (%s)", type(exc).__name__)
            finally:
                if connection is not None:
                    await connection.close()
            connection = None
            await asyncio.sleep(retry)
            retry = min(retry * 2, _LAST_RETRY)

    async def _connect(self) -> psycopg.AsyncConnection:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, application_name="chartgate feed"
        )
        try:
            before = await (await connection.execute(queries.EPOCH)).fetchone()
            self._noticed = before[0] if before else 0
            # listening first: a change after this line is either read below or notified
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(queries.CHANNEL)))
            await self._compare(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _follow(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            # ends at the first batch of notifications, or when a sweep is due
            named = [
                notice.payload
                async for notice in connection.notifies(timeout=self._sweep_seconds, stop_after=1)
            ]
            await self._compare(connection)
            self._check_notices(named)

    def _check_notices(self, named: list[str]) -> None:
        newest = self.snapshot.epoch
        if newest < self._noticed:  # a restored backup: what was noticed before is of no use
            self._noticed = newest
            return
        for payload in named:
            epoch = payload.rpartition(" ")[2]
            number = int(epoch) if epoch.isascii() and epoch.isdigit() and len(epoch) < 19 else 0
            if self._noticed < number <= newest:
                self._noticed = number
            elif self._on_forged is not None:
                self._on_forged("a notification came from the control plane without a change")

    async def _compare(self, connection: psycopg.AsyncConnection) -> None:
        asked_at = time.monotonic()
        async with asyncio.timeout(self._sweep_seconds):
            epoch, mark = await read_head(connection)
        before = self._snapshot
        # another change, not a later one: a restored backup is a change too
        if before is None or (epoch, mark) != (before.epoch, before.mark):
            fresh = None
            if before is not None:
                async with asyncio.timeout(self._sweep_seconds):
                    fresh = await read_since(connection, before)
            if fresh is None:
                asked_at = time.monotonic()
                async with asyncio.timeout(LOAD_SECONDS):
                    fresh = await asyncio.to_thread(read_apart, self._conninfo)
            self._snapshot = fresh
            if before is not None and self._on_change is not None:
                self._on_change(fresh)
        self._compared_at = asked_at
