"""Questions to the audit log: who saw this patient, what did this person do.

Rules kept: an answer says what it cannot say. A statement without a ``completed`` event may have
been delivered in full; a companion key query lists patients that the answer *may* be about; a
``count(*)`` lists nobody, so every answer about a patient ends with the scope-only statements that
may include her (45 CFR 164.312(b), 164.528). Refused and empty statements that sought her are
listed apart: they disclosed nothing, yet somebody looked. What applications asked and were told is
listed beside the statements of the gate (``audit_evaluations``).

Pure: entries come in as (index, event) in log order, days are days of the zone that is given.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from enum import StrEnum

from chartgate.app.audit_evaluations import NO_APPLICATIONS, ApplicationReport, Applications
from chartgate.app.audit_tail import Entries, describe, moment
from chartgate.model.event import (
    AuditRead,
    Completed,
    Decision,
    Event,
    LoginRefused,
    Release,
    SessionEnded,
    SessionStarted,
)

_LEVEL_ORDER = ("full", "summary", "masked", "mixed", "key", "withheld")


class Outcome(StrEnum):
    """How a statement ended, as far as the log knows."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """It ended with an error; rows released before it did were delivered."""
    MAYBE = "may have been delivered"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class TableLevels:
    """A table of a statement, its columns by the level they were shown at."""

    table: str
    levels: dict[str, tuple[str, ...]]
    row_filter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRow:
    """One statement, as a report shows it. ``index`` is the log index of its decision."""

    index: int
    at: datetime
    person: str
    session: str
    action: str
    roles: tuple[str, ...]
    departments: tuple[str, ...]
    purpose: str
    tables: tuple[TableLevels, ...]
    statement: str
    outcome: Outcome
    sqlstate: str | None
    rows: int
    reason: str
    seen: bool = False
    """The patient asked for is among those whose rows were released."""
    written: bool = False
    sought: bool = False
    companion: bool = False
    """Seen by a companion key query: the answer may or may not be about her."""
    scope_only: bool = False
    patients_seen: int = 0
    """Distinct patients released, in the log's year of the statement."""
    patients_written: int = 0
    releases: tuple[int, ...] = ()
    determining: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    policy_set: str = ""
    data_map: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRow:
    """Somebody asked the log."""

    index: int
    at: datetime
    person: str
    question: str
    allowed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoReport:
    """Everything the log knows about accesses to one patient."""

    on: date | None
    zone: str
    entries: int
    """How many log entries were looked at."""
    accesses: tuple[StatementRow, ...]
    sought: tuple[StatementRow, ...]
    """Allowed statements that named the patient; no row about her was released."""
    refused: tuple[StatementRow, ...]
    asked: tuple[AskedRow, ...]
    loose: tuple[int, ...]
    """Release events about the patient whose decision is not among the entries, or had ended:
    never expected, never left out."""
    scope_only: tuple[StatementRow, ...]
    applications: ApplicationReport = NO_APPLICATIONS

    @property
    def closing(self) -> str:
        """The sentence every answer about a patient ends with."""
        count = len(self.scope_only)
        noun = "statement" if count == 1 else "statements"
        return f"{count} scope-only {noun} may include this patient"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A login, a refused login or a logout."""

    index: int
    at: datetime
    what: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserReport:
    """Everything one person did."""

    uid: str
    on: date | None
    zone: str
    entries: int
    sessions: tuple[SessionRow, ...]
    statements: tuple[StatementRow, ...]
    asked: tuple[AskedRow, ...]
    applications: ApplicationReport = NO_APPLICATIONS


def who_accessed(
    entries: Entries, tokens: frozenset[str], on: date | None = None, *, zone: tzinfo = UTC
) -> WhoReport:
    """Who saw, wrote or sought the patient behind ``tokens``, on a day or ever."""
    groups: dict[str, list[StatementRow]] = {"accesses": [], "sought": [], "refused": []}
    scope_only: list[StatementRow] = []
    asked: list[AskedRow] = []
    reader = _Statements(tokens)
    applications = Applications(tokens, on=on, zone=zone)
    for index, event in entries:
        reader.take(index, event)
        applications.take(index, event)
        if isinstance(event, AuditRead) and not tokens.isdisjoint(
            event.parameters.get("patient", "").split(",")
        ):
            asked.append(_asked(index, event))
    for statement in reader.kept.values():
        if on is not None and not statement.is_on(on, zone):
            continue
        row = statement.row()
        if row.seen or row.written:
            groups["accesses"].append(row)
        elif row.sought:
            groups["sought" if statement.decision.allowed else "refused"].append(row)
        if row.scope_only and statement.decision.allowed:
            scope_only.append(row)
    return WhoReport(
        on=on,
        zone=_zone_name(zone),
        entries=reader.count,
        accesses=tuple(groups["accesses"]),
        sought=tuple(groups["sought"]),
        refused=tuple(groups["refused"]),
        asked=tuple(a for a in asked if on is None or _day(a.at, zone) == on),
        loose=tuple(reader.loose),
        scope_only=tuple(scope_only),
        applications=applications.report(),
    )


def of_user(
    entries: Entries, uid: str, on: date | None = None, *, zone: tzinfo = UTC
) -> UserReport:
    """What the person did: logins, statements, questions to the log."""
    sessions: list[SessionRow] = []
    asked: list[AskedRow] = []
    reader = _Statements(person=uid)
    applications = Applications(person=uid, on=on, zone=zone)
    for index, event in entries:
        reader.take(index, event)
        applications.take(index, event)
        at = moment(event.at)
        if on is not None and _day(at, zone) != on:
            continue
        match event:
            case SessionStarted() | SessionEnded() if event.person == uid:
                what = "login" if isinstance(event, SessionStarted) else "logout"
                sessions.append(SessionRow(index=index, at=at, what=what, detail=describe(event)))
            case LoginRefused() if event.login == uid:
                sessions.append(
                    SessionRow(index=index, at=at, what="login refused", detail=describe(event))
                )
            case AuditRead() if event.person == uid:
                asked.append(_asked(index, event))
    kept = (s for s in reader.kept.values() if on is None or s.is_on(on, zone))
    return UserReport(
        uid=uid,
        on=on,
        zone=_zone_name(zone),
        entries=reader.count,
        sessions=tuple(sessions),
        statements=tuple(s.row() for s in kept),
        asked=tuple(asked),
        applications=applications.report(),
    )


@dataclass(slots=True)
class _Statement:
    """A decision and what followed it."""

    index: int
    decision: Decision
    sought: bool
    seen: bool = False
    written: bool = False
    companion: bool = False
    seen_patients: set[str] = field(default_factory=set)
    written_patients: set[str] = field(default_factory=set)
    moments: list[str] = field(default_factory=list)
    releases: list[int] = field(default_factory=list)
    rows: int = 0
    completed: Completed | None = None

    @property
    def is_about_her(self) -> bool:
        return self.seen or self.written or self.sought or self.decision.scope_only

    def is_on(self, day: date, zone: tzinfo) -> bool:
        """A statement belongs to each day on which it was decided or released rows."""
        return any(_day(moment(at), zone) == day for at in (self.decision.at, *self.moments))

    def row(self) -> StatementRow:
        decision, completed = self.decision, self.completed
        if not decision.allowed:
            outcome = Outcome.REFUSED
        elif completed is None:
            outcome = Outcome.MAYBE
        else:
            outcome = Outcome.DELIVERED if completed.sqlstate == "00000" else Outcome.FAILED
        return StatementRow(
            index=self.index,
            at=moment(decision.at),
            person=decision.person,
            session=decision.session,
            action=decision.action,
            roles=decision.roles,
            departments=decision.departments,
            purpose=decision.purpose,
            tables=_tables(decision),
            statement=decision.statement,
            outcome=outcome,
            sqlstate=None if completed is None else completed.sqlstate,
            rows=self.rows if completed is None else completed.rows,
            reason=decision.reason,
            seen=self.seen,
            written=self.written,
            sought=self.sought,
            companion=self.companion,
            scope_only=decision.scope_only,
            patients_seen=len(self.seen_patients),
            patients_written=len(self.written_patients),
            releases=tuple(self.releases),
            determining=decision.determining,
            grants=decision.grants,
            policy_set=decision.policy_set,
            data_map=decision.data_map,
        )


class _Statements:
    """Joins decisions with their releases and completions in one pass.

    With ``tokens`` it keeps the statements that concern them and all scope-only ones, with
    ``person`` that person's. A finished statement that is of no interest is forgotten, so memory
    follows the answer and the statements still open, not the log.
    """

    def __init__(self, tokens: frozenset[str] = frozenset(), *, person: str | None = None) -> None:
        self._tokens = tokens
        self._person = person
        self.kept: dict[int, _Statement] = {}
        self.loose: list[int] = []
        self.count = 0

    def take(self, index: int, event: Event) -> None:
        self.count += 1
        match event:
            case Decision() if self._person in {None, event.person}:
                sought = not self._tokens.isdisjoint(event.sought)
                statement = _Statement(index, event, sought)
                # nothing follows a refusal
                if event.allowed or self._wants(statement):
                    self.kept[index] = statement
            case Release() if event.decision in self.kept:
                self._release(index, event, self.kept[event.decision])
            case Completed() if event.decision in self.kept:
                statement = self.kept[event.decision]
                statement.completed = event
                if not self._wants(statement):
                    del self.kept[event.decision]
            case Release() if self._is_hers(event):
                self.loose.append(index)
            case _:
                pass

    def _release(self, index: int, event: Release, statement: _Statement) -> None:
        seen = not self._tokens.isdisjoint(event.seen)
        written = not self._tokens.isdisjoint(event.written)
        statement.rows += event.rows
        if self._person is not None:
            statement.seen_patients.update(event.seen)
            statement.written_patients.update(event.written)
        if seen or written or self._person is not None:
            statement.companion |= event.companion and (seen or self._person is not None)
            statement.seen |= seen
            statement.written |= written
            statement.moments.append(event.at)
            statement.releases.append(index)

    def _is_hers(self, event: Release) -> bool:
        return not (self._tokens.isdisjoint(event.seen) and self._tokens.isdisjoint(event.written))

    def _wants(self, statement: _Statement) -> bool:
        return self._person is not None or statement.is_about_her


def _tables(decision: Decision) -> tuple[TableLevels, ...]:
    tables = []
    for use in decision.tables:
        levels: dict[str, tuple[str, ...]] = {}
        for level in _LEVEL_ORDER:
            columns = tuple(sorted(c for c, shown in use.columns.items() if shown == level))
            if columns:
                levels[level] = columns
        tables.append(TableLevels(use.table, levels, use.row_filter))
    return tuple(tables)


def _asked(index: int, event: AuditRead) -> AskedRow:
    return AskedRow(
        index=index,
        at=moment(event.at),
        person=event.person,
        question=event.question,
        allowed=event.allowed,
    )


def _day(at: datetime, zone: tzinfo) -> date:
    return at.astimezone(zone).date()


def _zone_name(zone: tzinfo) -> str:
    return str(getattr(zone, "key", None) or zone)
