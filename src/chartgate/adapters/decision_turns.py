"""Who is next, and who is not let in: one queue for everything a worker decides.

The rules kept under overload: whoever would wait longer than ``queue_seconds`` is refused at once,
before a byte of the question is parsed, so that whoever is let in is answered in time; first come,
first served; what is under way has an end, for a log that does not answer must not hold memory.

Sockets are read between turns: a turn lasts at most ``TURN_SECONDS``.
"""

import asyncio
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, Final, Protocol

from chartgate.adapters.decision_limits import Limits
from chartgate.adapters.decision_metrics import Metrics

TURN_SECONDS: Final = 0.002
Answering = asyncio.Task[tuple[int, bytes]]
_WEIGHT: Final = 0.1
_FIRST_PER_BYTE: Final = 0.1e-6
"""Seconds that a byte of question costs, before it is known here."""
_FEW: Final = 128
"""As many may wait for the log, however slow its disk is …"""
_LITTLE: Final = 64 << 10
"""… and so many bytes of questions for their turn, however slow the machine is."""
_HOPELESS: Final = 10
"""So many times the longest wait: the estimate was wrong, or the machine stood still."""


class Ticket(Protocol):
    """A request that was read whole."""

    arrived: float
    weight: int
    """What it is expected to cost, in bytes of its question."""

    def begin(self) -> None:
        """Its turn has come."""

    def give_up(self) -> None:
        """It waited too long; answer so."""


class Turns:
    """The queue of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, metrics: Metrics) -> None:
        self._loop = loop
        self._limits = limits
        self._metrics = metrics
        self._waiting: deque[Ticket] = deque()
        self._weight = 0
        self._is_due = False
        self._per_byte = _FIRST_PER_BYTE
        self._began, self._done = 0.0, 0
        # not a plain dict: its first key is looked at often, and found at once
        self.under_way: OrderedDict[object, float] = OrderedDict()
        """Decisions begun and not answered, with the time they began, oldest first."""

    def admits(self, now: float) -> bool:
        """Whether another request may come in; cheap, asked before it is parsed."""
        under_way = self.under_way
        if len(under_way) >= self._limits.in_flight:
            return False
        if len(under_way) >= _FEW and (
            now - next(iter(under_way.values())) > self._limits.log_seconds
        ):
            return False  # the log is behind: more would only wait longer
        if not self._waiting:
            return True
        if now - self._waiting[0].arrived > _HOPELESS * self._limits.queue_seconds:
            return False
        weight = self._weight
        return weight <= _LITTLE or weight * self._per_byte <= self._limits.queue_seconds

    def enter(self, ticket: Ticket) -> None:
        """Wait for one's turn; whoever comes when nothing else is to be done has it at once."""
        if not self._waiting and not self.under_way:
            self._metrics.stages["wait"].add(0.0)
            ticket.begin()
            return
        self._waiting.append(ticket)
        self._weight += ticket.weight
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._run)

    def carry_out(
        self,
        ticket: Ticket,
        answering: Coroutine[Any, Any, tuple[int, bytes]],
        answered: "Callable[[Answering], None]",
    ) -> "Answering | None":
        """Begin a ticket's answer; the task, or None where it is answered already."""
        if sys.version_info >= (3, 12):
            # its first step here and now: the rest of the loop's round is saved
            task = asyncio.Task(answering, loop=self._loop, eager_start=True)
            if task.done():
                answered(task)
                return None
        else:
            task = self._loop.create_task(answering)
        self.under_way[ticket] = ticket.arrived
        task.add_done_callback(answered)
        return task

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and not self.under_way

    def _run(self) -> None:
        waiting, record = self._waiting, self._metrics.stages["wait"].add
        began = perf_counter()
        if self._done:
            # What a turn costs is known when the next one begins: reading, deciding, recording and
            # writing of what it began lie between them.
            seen = (began - self._began) / self._done
            self._per_byte += _WEIGHT * (seen - self._per_byte)
        room, done = TURN_SECONDS / self._per_byte, 0
        while waiting and done < room:
            ticket = waiting.popleft()
            self._weight -= ticket.weight
            waited = began - ticket.arrived
            record(waited)
            # let in by an estimate that was wrong: late answers are of no use to anybody
            if waited > _HOPELESS * self._limits.queue_seconds:
                ticket.give_up()
            else:
                ticket.begin()
                done += ticket.weight
        # an idle loop says nothing about the cost
        self._began, self._done = began, done if waiting else 0
        self._is_due = bool(waiting)
        if waiting:
            self._loop.call_soon(self._run)
