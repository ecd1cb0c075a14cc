"""A queue in which several share one worker: equal shares of its work, whatever each brings.

The rules kept: whoever brings much waits behind its own, never before others who bring little
(start-time fair queuing: Goyal, Vin and Cheng, 1996); of one share, first come, first served; a share
that has rested begins where the others are: rest is not saved up.
"""

from collections import deque
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")
_REMEMBERED = 1_024


class Shares(Generic[T]):
    """Items wait under the name of their share; ``take`` says whose turn it is."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[tuple[int, T]]] = {}
        self._weights: dict[str, int] = {}
        # (work begun so far, order of coming, share): once for each share that waits
        self._order: list[tuple[int, int, str]] = []
        self._ends: dict[str, int] = {}
        self._number = 0
        self._clock = 0
        self._count = 0
        self.weight = 0
        """Of everything that waits."""

    def __len__(self) -> int:
        return self._count

    @property
    def sharing(self) -> int:
        """How many shares wait."""
        return len(self._queues)

    def weight_of(self, share: str) -> int:
        """Of what waits in one share."""
        return self._weights.get(share, 0)

    def oldest(self, share: str) -> T | None:
        """Who has waited longest in one share."""
        queue = self._queues.get(share)
        return queue[0][1] if queue else None

    def put(self, share: str, weight: int, item: T) -> None:
        """Wait."""
        queue = self._queues.get(share)
        if queue is None:
            queue = self._queues[share] = deque()
            self._push(max(self._clock, self._ends.get(share, 0)), share)
        queue.append((weight, item))
        self._weights[share] = self._weights.get(share, 0) + weight
        self.weight += weight
        self._count += 1

    def take(self) -> tuple[int, T]:
        """Weight and item of whoever is next; raises ``IndexError`` when nobody waits."""
        self._clock, _, share = heappop(self._order)
        queue = self._queues[share]
        weight, item = queue.popleft()
        self.weight -= weight
        self._count -= 1
        end = self._clock + weight
        if queue:
            self._weights[share] -= weight
            self._push(end, share)
        else:
            del self._queues[share], self._weights[share]
            self._ends[share] = end
            if len(self._ends) > _REMEMBERED:
                self._forget()
        return weight, item

    def _push(self, begin: int, share: str) -> None:
        self._number += 1
        heappush(self._order, (begin, self._number, share))

    def _forget(self) -> None:
        """What is behind the clock says no more than the clock."""
        self._ends = {share: end for share, end in self._ends.items() if end > self._clock}
