"""A log that says how long its writer took; whatever it is asked, it asks the log behind it."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

from chartgate.adapters.log_remote import RemoteLog


class Stopwatch:
    """Seconds that one call has waited for the log."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0


class TimedLog:
    """Keeps the port ``AuditLog``."""

    def __init__(self, log: RemoteLog, watch: Callable[[], Stopwatch | None]) -> None:
        self._log: Final = log
        self._watch: Final = watch

    @property
    def is_linked(self) -> bool:
        """Whether the writer can be reached at this moment."""
        return self._log.is_linked

    @property
    def size(self) -> int:
        """Entries known to be on the medium."""
        return self._log.size

    @property
    def checkpoint(self) -> str:
        """The newest signed checkpoint known here."""
        return self._log.checkpoint

    @property
    def queued(self) -> int:
        """As of the log."""
        return self._log.queued

    async def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        """As of the log; whoever asked to be timed is told."""
        watch = self._watch()
        if watch is None:
            return await self._log.append(entries, durable=durable)
        began = perf_counter()
        try:
            return await self._log.append(entries, durable=durable)
        finally:
            watch.seconds += perf_counter() - began

    async def place(self, entries: Sequence[bytes]) -> int:
        """As of the log."""
        return await self._log.place(entries)

    async def settled(self, index: int) -> None:
        """As of the log."""
        await self._log.settled(index)

    def post(self, entries: Sequence[bytes]) -> None:
        """As of the log."""
        self._log.post(entries)

    async def head(self) -> tuple[int, str]:
        """As of the log."""
        return await self._log.head()
