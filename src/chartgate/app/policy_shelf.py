"""The state of every version, from the steps that are in a trusted log and from nothing else.

The rule kept (zero trust): a row without a proof, one that says something else than its log entry,
the same entry filed twice, a step that the state table does not know from there: each is left out
and named. What is left is what people did.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chartgate.app.policy_orders import Logged, NotObeyed, Sealed, open_step
from chartgate.errors import ChartgateError
from chartgate.govern.policy_version import Shelf, Step, Taken
from chartgate.model.event import PolicyStep
from chartgate.tlog.note import VerifierKey


@dataclass(frozen=True, slots=True)
class Filed:
    """A step as the store has it: number of the row, what the row says, and the evidence."""

    row: int
    content: str
    step: str
    generation: int
    sealed: Sealed


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row that is not believed, and why."""

    row: int
    content: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the rows of a subject come to."""

    shelf: Shelf
    logged: dict[int, Logged]
    """Row -> the step in the log, for the rows that are believed."""
    doubts: tuple[Doubt, ...]


def inspect(filed: Iterable[Filed], subject: str, keys: Sequence[VerifierKey]) -> Inspected:
    """Fold the rows, in the order in which they were filed."""
    shelf = Shelf(subject)
    logged: dict[int, Logged] = {}
    doubts: list[Doubt] = []
    seen: set[tuple[str, int]] = set()
    for one in filed:
        try:
            found = open_step(one.sealed, keys)
            if (found.log, found.index) in seen:
                raise NotObeyed("the same log entry was filed before")
            _check_row(one, found.event, subject)
            shelf = shelf.on(taken_of(found.event))
        except ChartgateError as exc:
            doubts.append(Doubt(one.row, one.content, one.step, str(exc)))
            continue
        seen.add((found.log, found.index))
        logged[one.row] = found
    return Inspected(shelf, logged, tuple(doubts))


def taken_of(event: PolicyStep) -> Taken:
    """The step that an event is; raises ``NotObeyed`` for a word that is none."""
    try:
        step = Step(event.step)
    except ValueError:
        raise NotObeyed("the entry names a step that this program does not know") from None
    return Taken(
        step=step,
        content=event.content,
        person=event.person,
        at=event.at,
        proposer=event.proposer,
        generation=event.generation,
        previous=event.previous,
        detail=event.detail,
    )


def _check_row(filed: Filed, event: PolicyStep, subject: str) -> None:
    said = (event.subject, event.content, event.step, event.generation)
    if said != (subject, filed.content, filed.step, filed.generation):
        raise NotObeyed("the row says something else than its log entry")
