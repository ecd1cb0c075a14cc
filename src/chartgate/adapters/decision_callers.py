"""Callers that are not let in: answered alike, slowed down, and on record without flooding it.

The rules kept (45 CFR 164.308(a)(5)(ii)(C), 164.312(d)): every kind of failed authentication of an
address is in the log, with how many there were; an attacker cannot fill the log, nor memory, by
failing often; nobody who is known waits because somebody at her address is not.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from chartgate.adapters.decision_desk import Answerer
from chartgate.adapters.decision_metrics import Metrics
from chartgate.errors import ChartgateError

WINDOW_SECONDS: Final = 10.0
PER_WINDOW: Final = 20
"""Failures of one address that are looked into; beyond it the answer is 429."""
_MOST: Final = 4_096
_ELSEWHERE: Final = "many addresses"

_logger = logging.getLogger(__name__)


class Refusals:
    """Failed authentications of one worker, by address and reason, in windows of ten seconds."""

    def __init__(
        self, node: Answerer, metrics: Metrics, now: Callable[[], float], channel: str
    ) -> None:
        self._node = node
        self._metrics = metrics
        self._now = now
        self._channel = channel
        self._ends = 0.0
        self._failed: dict[str, int] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, client: str, reason: str) -> bool:
        """One more; answers whether its address fails too often."""
        self._metrics.count("refused_caller")
        if self._now() >= self._ends:
            self.flush()
        if client not in self._failed and len(self._failed) >= _MOST:
            client = _ELSEWHERE
        failed = self._failed[client] = self._failed.get(client, 0) + 1
        key = (client, reason)
        if key not in self._counts:
            # at once: the first of them is what somebody who watches wants to see
            self._counts[key] = 0
            self._record(client, reason)
        else:
            self._counts[key] += 1
        return failed > PER_WINDOW

    def flush(self) -> None:
        """End the window: what came after the first of each kind is recorded as a number."""
        counts, self._counts, self._failed = self._counts, {}, {}
        self._ends = self._now() + WINDOW_SECONDS
        for (client, reason), count in counts.items():
            if count:
                self._record(client, f"{reason}, {count} more times")

    def sweep(self) -> None:
        """Now and then: a window ends though nobody fails any more."""
        if self._counts and self._now() >= self._ends:
            self.flush()

    async def settled(self) -> None:
        """Returns once all of them are recorded, or could not be."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _record(self, client: str, reason: str) -> None:
        task = asyncio.get_running_loop().create_task(self._recorded(client, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _recorded(self, client: str, reason: str) -> None:
        try:
            await self._node.refuse_caller(reason, channel=self._channel, client=client)
        except ChartgateError as exc:
            # nothing was released: that it is not on record harms nobody but the watcher
            _logger.warning("a refused caller could not be recorded: %s", exc.code)
