"""Events as lines: what happened last, without naming a patient.

The rule kept: a line shows no patient's token and no statement text, so the newest events may be
read by those who keep the system running (45 CFR 164.502(b): minimum necessary).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from chartgate.model.event import (
    Alarm,
    AuditRead,
    CallerRefused,
    Completed,
    Decision,
    Evaluation,
    Event,
    GrantStep,
    LoginRefused,
    NodeStarted,
    NodeStopped,
    PolicyInForce,
    PolicyStep,
    PolicyStepRefused,
    Recovered,
    Release,
    Search,
    ServiceStep,
    SessionEnded,
    SessionStarted,
)

Entries = Iterable[tuple[int, Event]]
"""(log index, event), in log order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TailRow:
    """One event in one line."""

    index: int
    at: datetime
    node: str
    kind: str
    person: str
    text: str
    service: str = ""
    """Uid of the application, where one asked or was changed; ``text`` has it as well."""


def tail(entries: Entries, n: int) -> tuple[TailRow, ...]:
    """The last ``n`` events, oldest first."""
    return tuple(tail_row(index, event) for index, event in deque(entries, maxlen=n))


def tail_row(index: int, event: Event) -> TailRow:
    """One event as a line; it names no patient, not even by token."""
    return TailRow(
        index=index,
        at=moment(event.at),
        node=event.node,
        kind=str(event.__struct_config__.tag).replace("_", " "),
        person=_person(event),
        text=describe(event),
        service=str(getattr(event, "service", "")),
    )


def _person(event: Event) -> str:
    match event:
        case LoginRefused():
            return event.login
        case Evaluation():
            persons = {item.person for item in event.items}
            return persons.pop() if len(persons) == 1 else ""
        case _:
            return str(getattr(event, "person", ""))


def describe(event: Event) -> str:
    """What an event says, in one line and without a patient's token."""
    match event:
        case SessionStarted():
            purpose = f", purpose {event.purpose}" if event.purpose else ""
            via = f" with {event.application}" if event.application else ""
            return f"{event.channel}{via}, {event.authentication}{purpose}"
        case LoginRefused() | SessionEnded():
            return event.reason
        case Decision(allowed=True):
            tables = ", ".join(t.table for t in event.tables)
            scope = ", scope only" if event.scope_only else ""
            return f"{event.action} {tables}".rstrip() + f" for {event.purpose or '–'}{scope}"
        case Decision():
            return f"refused: {event.reason}"
        case Evaluation():
            allowed = sum(item.allowed for item in event.items)
            asked = ", ".join(sorted({item.action for item in event.items}))
            of = f"{allowed} of {len(event.items)} allowed"
            return f"{event.service} ({event.channel}): {asked}, {of}"
        case Search():
            found = _count(event.results, "result")
            return f"{event.service} ({event.channel}): search {event.sought}, {found}"
        case CallerRefused():
            return f"{event.service or 'unknown'} ({event.channel}) refused: {event.reason}"
        case ServiceStep():
            return f"service {event.service} {event.step.replace('_', ' ')}"
        case GrantStep():
            return f"grant {event.grant} {event.step}"
        case Release():
            return (
                f"{_count(event.rows, 'row')}, {_count(len(event.seen), 'patient')} seen, "
                f"{len(event.written)} written (decision {event.decision})"
            )
        case Completed():
            end = "done" if event.sqlstate == "00000" else f"ended with SQLSTATE {event.sqlstate}"
            return f"{end}, {_count(event.rows, 'row')} (decision {event.decision})"
        case AuditRead():
            return event.question if event.allowed else f"refused: {event.question}"
        case PolicyStep():
            return f"{event.subject} {event.content[:12]} {event.step.replace('_', ' ')}"
        case PolicyStepRefused():
            what = f"{event.subject} {event.content[:12]}"
            return f"refused: {event.step} of {what}: {event.reason}"
        case PolicyInForce():
            return f"{event.subject} {event.content[:12]} in force (activation {event.activation})"
        case Alarm():
            return f"ALARM: {event.words}"
        case Recovered():
            return f"{event.dropped_bytes} torn bytes dropped at size {event.size}"
        case NodeStarted():
            return f"{event.software}, policy set {event.policy_set[:16]}"
        case NodeStopped():
            return event.reason
        case _:
            assert_never(event)


def moment(at: str) -> datetime:
    """The time of an event, in UTC."""
    return datetime.fromisoformat(at).astimezone(UTC)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
