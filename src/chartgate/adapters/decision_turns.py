"""Who is next, and who is not let in: one queue for everything a worker decides.

The rules kept under overload: whoever would wait longer than ``queue_seconds`` is refused at once,
before a byte of the question is parsed, so that whoever is let in is answered in time; services have
equal shares of the work, so that one that asks too much is refused and not those beside it, and of
one service, first come, first served; what is under way has an end, for a log that does not answer
must not hold memory.

Sockets are read between turns: a turn lasts at most ``TURN_SECONDS``.
"""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, Final, Protocol

from chartgate.adapters.decision_limits import Limits
from chartgate.adapters.decision_metrics import Metrics
from chartgate.adapters.decision_shares import Shares

TURN_SECONDS: Final = 0.002
Answering = asyncio.Task[tuple[int, bytes]]
_WEIGHT: Final = 0.1
_FIRST_PER_BYTE: Final = 0.1e-6
"""Seconds that a byte of question costs, before it is known here."""
_FEW: Final = 128
"""As many may wait for the log, however slow its disk is …"""
_OWN_FEW: Final = 16
"""… and of each service so many, though others fill the room …"""
_MOST_OF_ONE: Final = 0.75
"""A service never holds more of what may be under way: others find room when they come."""
_LITTLE: Final = 64 << 10
"""… and so many bytes of questions for their turn, however slow the machine is."""
_HOPELESS: Final = 10
"""So many times the longest wait: the estimate was wrong, or the machine stood still."""


_QUESTION: Final = 200
"""What a question costs beside its bytes, in bytes."""
_ITEM: Final = 50
"""What an object of a batch costs at least: an item is one to five of them, and needs no request."""


def weight_of(operation: str, body: bytes) -> int:
    """What a request is expected to cost, in bytes of questions; before it is parsed.

    An item of a batch can be two bytes, and is a whole decision.
    """
    objects = body.count(b"{") if operation == "evaluations" else 0
    return _QUESTION + max(len(body), _ITEM * objects)


class Ticket(Protocol):
    """A request that was read whole."""

    arrived: float
    weight: int
    """What it is expected to cost, in bytes of its question."""

    @property
    def share(self) -> str:
        """Whose it is: the service's."""

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
        self._waiting: Shares[Ticket] = Shares()
        self._most_of_one = int(limits.in_flight * _MOST_OF_ONE)
        self._held: dict[str, int] = {}
        self._is_due = False
        self._per_byte = _FIRST_PER_BYTE
        self._began, self._done, self._was_full = 0.0, 0, False
        # not a plain dict: its first key is looked at often, and found at once
        self.under_way: OrderedDict[Ticket, float] = OrderedDict()
        """Decisions begun and not answered, with the time they began, oldest first."""

    def admits(self, now: float, share: str) -> bool:
        """Whether another request of a service may come in; cheap, asked before it is parsed."""
        limits, under_way = self._limits, self.under_way
        held = self._held.get(share, 0)
        if len(under_way) >= limits.in_flight or held >= self._most_of_one:
            return False
        if (
            len(under_way) >= _FEW
            and held >= _OWN_FEW
            and now - next(iter(under_way.values())) > limits.log_seconds
        ):
            return False  # the log is behind: more would only wait longer
        waiting = self._waiting
        if not waiting:
            return True
        oldest = waiting.oldest(share)
        if oldest is None:
            return True  # its first is next, whatever others have brought
        if now - oldest.arrived > _HOPELESS * limits.queue_seconds:
            return False
        if waiting.weight <= _LITTLE:
            return True
        wait = waiting.weight_of(share) * waiting.sharing * self._per_byte
        return wait <= limits.queue_seconds

    def enter(self, ticket: Ticket) -> None:
        """Wait for one's turn; whoever comes when nothing else is to be done has it at once."""
        if not self._waiting and not self.under_way:
            self._metrics.stages["wait"].add(0.0)
            ticket.begin()
            return
        self._waiting.put(ticket.share, ticket.weight, ticket)
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
        self.begun(ticket)
        task.add_done_callback(answered)
        return task

    def begun(self, ticket: Ticket) -> None:
        """It is under way."""
        self.under_way[ticket] = ticket.arrived
        share = ticket.share
        self._held[share] = self._held.get(share, 0) + 1

    def ended(self, ticket: Ticket) -> None:
        """It is answered."""
        if self.under_way.pop(ticket, None) is None:
            return
        share = ticket.share
        left = self._held[share] - 1
        if left:
            self._held[share] = left
        else:
            del self._held[share]

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and not self.under_way

    def _run(self) -> None:
        waiting, record = self._waiting, self._metrics.stages["wait"].add
        began = perf_counter()
        if self._done:
            # What a turn costs is known when the next one begins: reading, deciding, recording and
            # writing of what it began lie between them. One that left nobody waiting says little,
            # unless it took too long: then too many were begun at once.
            took = began - self._began
            if self._was_full or took > TURN_SECONDS:
                self._per_byte += _WEIGHT * (took / self._done - self._per_byte)
        room, done = TURN_SECONDS / self._per_byte, 0
        while waiting and done < room:
            weight, ticket = waiting.take()
            waited = began - ticket.arrived
            record(waited)
            # let in by an estimate that was wrong: late answers are of no use to anybody
            if waited > _HOPELESS * self._limits.queue_seconds:
                ticket.give_up()
            else:
                ticket.begin()
                done += weight
        self._began, self._done, self._was_full = began, done, bool(waiting)
        # once more behind a turn, though nobody waits: the loop does not rest before it
        self._is_due = bool(waiting or done)
        if self._is_due:
            self._loop.call_soon(self._run)
