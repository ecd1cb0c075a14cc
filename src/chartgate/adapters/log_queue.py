"""What waits for its commit: bounded, in the order of coming, taken in batches.

The rule kept: everything a caller can make grow has an end; whoever puts asks ``is_full`` before.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from chartgate.adapters.audit_log import Answered

MAX_QUEUED: Final = 65_536
MAX_QUEUED_BYTES: Final = 64 << 20
MAX_BATCH: Final = 1_024
MAX_BATCH_BYTES: Final = 8 << 20


@dataclass(slots=True, eq=False)
class Waiting:
    """Entries of one append, and the place they have."""

    entries: tuple[bytes, ...]
    first: int
    answered: Answered | None
    durable: bool = True
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(map(len, self.entries))


class LogQueue:
    """Of one writer."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self.count = 0
        """Entries that wait."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether more would have to wait for room."""
        return self.count >= self._most or self._bytes >= MAX_QUEUED_BYTES

    def put(self, waiting: Waiting) -> None:
        """One more; nobody is refused here."""
        self._waiting.append(waiting)
        self.count += len(waiting.entries)
        self._bytes += waiting.size

    def take_batch(self) -> list[Waiting]:
        """What is committed next."""
        batch: list[Waiting] = []
        count = size = 0
        while self._waiting:
            waiting = self._waiting[0]
            count, size = count + len(waiting.entries), size + waiting.size
            if batch and (count > MAX_BATCH or size > MAX_BATCH_BYTES):
                break
            batch.append(self._waiting.popleft())
            self.count -= len(waiting.entries)
            self._bytes -= waiting.size
        return batch

    def take_all(self) -> list[Waiting]:
        """All of it: nothing is committed any more."""
        found = list(self._waiting)
        self._waiting.clear()
        self.count = self._bytes = 0
        return found


def entries_of(batch: Iterable[Waiting]) -> tuple[bytes, ...]:
    """Their entries, one behind the other."""
    return tuple(entry for waiting in batch for entry in waiting.entries)


def answer(batch: Iterable[Waiting]) -> None:
    """They are recorded: whoever waits is told."""
    for waiting in batch:
        if waiting.answered is not None:
            waiting.answered(waiting.first)
