"""From log entries to distinct requests: what a replay decides again.

Rules kept: an entry that this program does not understand stops the reading; a person is decided as
she was, by the assignments in the entry, and whatever of her the log does not hold (a login name, a
patient's key) is looked up and, where that fails, said to be inexact.

Of a decision only the fields that decide are read, and equal requests are counted, not kept: a
month of a hospital is millions of statements and a few thousand requests.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from chartgate.app.audit_tail import moment
from chartgate.app.replay import Recorded, Tally
from chartgate.errors import Corrupt
from chartgate.model.event import VERSION, TableUse
from chartgate.model.principal import Assignment, Person

Tokens = Callable[[str], Iterable[str]]
"""Patient key -> the tokens that the log may know her by."""
Until = Callable[[Recorded, datetime], datetime | None]

_RAW: Final = msgspec.Raw
_PREFIX: Final = b'{"kind":"'
_DECISION: Final = b'{"kind":"decision",'
_EVALUATION: Final = b'{"kind":"evaluation",'
_LONGEST: Final = 16_000
"""Characters of a statement's text that an event holds at most."""


class _Decision(msgspec.Struct, frozen=True, tag="decision", tag_field="kind"):
    """Of ``chartgate.model.event.Decision``, what is needed to decide again."""

    at: str
    person: str
    allowed: bool
    action: str
    version: int = 1
    purpose: str = ""
    statement: msgspec.Raw = _RAW(b'""')
    statement_class: str = ""
    tables: msgspec.Raw = _RAW(b"[]")
    assignments: msgspec.Raw = _RAW(b"[]")
    roles: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    policy_set: str = ""
    data_map: str = ""


class _Evaluation(msgspec.Struct, frozen=True, tag="evaluation", tag_field="kind"):
    """Of ``chartgate.model.event.Evaluation``, what is needed to count its questions."""

    at: str
    items: tuple[msgspec.Raw, ...]
    version: int = 1


_count: Final = msgspec.json.Decoder(_Evaluation).decode
_decode: Final = msgspec.json.Decoder(_Decision).decode
_texts: Final = msgspec.json.Decoder(tuple[str, ...]).decode
_uses: Final = msgspec.json.Decoder(tuple[TableUse, ...]).decode


@dataclass(slots=True)
class _Count:
    decision: _Decision
    statements: int
    last: str
    example: int


class RecordedPeople:
    """Who the log's uids and assignments were, from the control plane as it is now."""

    def __init__(self, persons: Mapping[str, Person], tokens: Tokens = lambda _: ()) -> None:
        self._persons: Final = {person.uid: person for person in persons.values()}
        self._tokens: Final = tokens
        self._patients: dict[tuple[str, str], str | None] = {}

    def who(
        self, uid: str, held: tuple[str, ...], decision: Any, at: datetime
    ) -> tuple[Person | None, bool]:
        """The person with exactly what counted, and whether that is all that policies know."""
        known = self._persons.get(uid)
        name = uid if known is None else known.name
        if held:
            found = [self._assignment(text, known) for text in held]
            assignments = tuple(assignment for assignment, _ in found)
            is_exact = known is not None and all(exact for _, exact in found)
        else:  # an event from before assignments were recorded
            guessed = self._of_old(decision, known, at)
            if guessed is None:
                return None, False
            assignments, is_exact = guessed, known is not None
        return Person(uid, name, name, active=True, assignments=assignments), is_exact

    def _assignment(self, text: str, known: Person | None) -> tuple[Assignment, bool]:
        assignment = Assignment.from_held(text)
        token = text.partition("!")[2]
        if not token:
            return assignment, True
        patient = self._patient(token, known)
        held = Assignment(
            assignment.role,
            assignment.department,
            assignment.valid_from,
            None,
            assignment.reference,
            patient or token,
        )
        return held, patient is not None

    def _patient(self, token: str, known: Person | None) -> str | None:
        if known is None:
            return None
        key = (known.uid, token)
        if key not in self._patients:
            patients = {a.patient for a in known.assignments if a.patient}
            matching = (p for p in patients if token in self._tokens(p))
            self._patients[key] = next(matching, None)
        return self._patients[key]

    @staticmethod
    def _of_old(
        decision: _Decision, known: Person | None, at: datetime
    ) -> tuple[Assignment, ...] | None:
        """Assignments for an event that holds roles and departments apart, if they are certain."""
        if known is not None:
            live = known.live(at=at)
            roles = {a.role for a in live}
            departments = {a.department for a in live if a.department}
            if live and (roles, departments) == (set(decision.roles), set(decision.departments)):
                return tuple(
                    Assignment(
                        a.role, a.department, a.valid_from, None, a.reference, patient=a.patient
                    )
                    for a in live
                )
        if len(decision.roles) == 1 and len(decision.departments) <= 1:
            department = decision.departments[0] if decision.departments else None
            return (Assignment(decision.roles[0], department, at, None),)
        return None


class Requests:
    """Counts the decisions of a log by distinct request.

    ``until`` is asked when policies read the clock: the request of another hour is then another.
    """

    def __init__(
        self, people: RecordedPeople, *, since: datetime | None = None, until: Until | None = None
    ) -> None:
        self._people: Final = people
        self._since: Final = "" if since is None else _stamp(since)
        self._until: Final = until
        self._windows: Final[dict[tuple[Any, ...], tuple[str, str]]] = {}
        self._counts: Final[dict[tuple[Any, ...], _Count]] = {}
        self.entries = 0
        """How many log entries were looked at."""
        self.evaluations = 0
        """Questions of applications among them: they are not decided again. The log holds neither
        what a resource was nor what the application said of it."""

    def read(self, entries: Iterable[tuple[int, bytes]]) -> None:
        """Count what is in these entries, besides what was counted before."""
        counts, since, until = self._counts, self._since, self._until
        seen = 0
        for index, entry in entries:
            seen += 1
            if not entry.startswith(_DECISION):
                if not entry.startswith(_PREFIX):
                    raise _unknown(index)
                if entry.startswith(_EVALUATION):
                    self._evaluation(index, entry)
                continue
            try:
                decision = _decode(entry)
            except msgspec.MsgspecError:
                raise _unknown(index) from None
            _check_version(index, decision.version)
            if decision.at < since:
                continue
            key: tuple[Any, ...] = (
                decision.person,
                bytes(decision.assignments),
                decision.purpose,
                decision.allowed,
                decision.action,
                decision.statement_class,
                bytes(decision.tables),
                decision.policy_set,
                decision.data_map,
                decision.roles,
                decision.departments,
            )
            if until is not None:
                key = (*key, self._window(decision, key[:3], until))
            count = counts.get(key)
            if count is None:
                counts[key] = _Count(decision, 1, decision.at, index)
            else:
                count.statements += 1
                count.last = max(count.last, decision.at)
        self.entries += seen

    def _evaluation(self, index: int, entry: bytes) -> None:
        try:
            event = _count(entry)
        except msgspec.MsgspecError:
            raise _unknown(index) from None
        _check_version(index, event.version)
        if event.at >= self._since:
            self.evaluations += len(event.items)

    def tallies(self) -> Iterator[Tally]:
        """The distinct requests."""
        for count in self._counts.values():
            decision = count.decision
            yield Tally(
                self._recorded(decision),
                count.statements,
                moment(decision.at),
                moment(max(count.last, decision.at)),
                count.example,
            )

    @property
    def policy_sets(self) -> frozenset[str]:
        """The hashes of the policies that these decisions were made by."""
        return frozenset(count.decision.policy_set for count in self._counts.values())

    def _recorded(self, decision: _Decision) -> Recorded:
        held = _texts(decision.assignments)
        who, is_exact = self._people.who(decision.person, held, decision, moment(decision.at))
        statement = str(msgspec.json.decode(decision.statement))
        return Recorded(
            who=who,
            uid=decision.person,
            held=held,
            purpose=decision.purpose,
            allowed=decision.allowed,
            action=decision.action,
            statement=statement,
            is_whole=len(statement) < _LONGEST,
            tables=_uses(decision.tables),
            policy_set=decision.policy_set,
            data_map=decision.data_map,
            is_exact=is_exact,
        )

    def _window(self, decision: _Decision, who: tuple[Any, ...], until: Until) -> str:
        """When the answer that holds at this decision began to."""
        window = self._windows.get(who)
        if window is None or not window[0] <= decision.at < window[1]:
            end = until(self._recorded(decision), moment(decision.at))
            window = (decision.at, _FOREVER if end is None else _stamp(end))
            self._windows[who] = window
        return window[0]


def _unknown(index: int) -> Corrupt:
    return Corrupt(f"log entry {index} is not an event this program knows")


def _check_version(index: int, version: int) -> None:
    if version > VERSION:
        raise Corrupt(f"log entry {index} has version {version}; this program knows {VERSION}")


_FOREVER: Final = "9999-12-31T23:59:59.999999Z"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
