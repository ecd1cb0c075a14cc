"""What applications were told: for the questions who saw this patient, and what did this person do.

Rules kept: an answer that lets an application show anything of a patient is an access to her record,
whatever the application then did with it, and so is an allowed change, share or export; a recipient
is named (45 CFR 164.528). A denial is listed as an attempt. A search is listed when it asked about her
and when its results named her.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, tzinfo
from typing import Final

from chartgate.app.audit_tail import moment
from chartgate.model.disclosure import Disclosure
from chartgate.model.event import Evaluation, EvaluationItem, Event, Search

_LEVELS = {level.label: level for level in Disclosure}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """Questions of one request that differ in nothing but what exactly they were about."""

    index: int
    at: datetime
    person: str
    """Uid; empty for somebody the control plane does not know."""
    subject: str = ""
    """Token of whom the application named, where ``person`` is empty: strangers are told apart by it."""
    service: str
    channel: str
    request: str
    action: str
    resource_type: str
    allowed: bool
    disclosed: bool
    """The answer let the application show something, or change or pass on."""
    questions: int = 1
    levels: dict[str, str]
    """Category -> highest level that was answered."""
    patients: int = 0
    """Distinct patients, in the log's year."""
    recipient: str = ""
    purpose: str = ""
    purpose_claimed: bool = False
    reason: str = ""
    roles: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    determining: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    policy_set: str = ""
    data_map: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow:
    """A search, or a part of its page."""

    index: int
    at: datetime
    person: str
    service: str
    channel: str
    request: str
    sought: str
    action: str
    resource_type: str
    purpose: str
    results: int
    is_asked: bool
    """The patient was who the search was about."""
    is_named: bool
    """The patient was among the results."""
    categories: tuple[str, ...] = ()
    """What of a record it was about."""
    actions: tuple[str, ...] = ()
    """What was answered to a search for actions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationReport:
    """What went through applications."""

    accesses: tuple[EvaluationRow, ...] = ()
    attempts: tuple[EvaluationRow, ...] = ()
    """Denied, and nothing could be shown."""
    searches: tuple[SearchRow, ...] = ()


NO_APPLICATIONS: Final = ApplicationReport()


class Applications:
    """Collects, in one pass, what is about a patient (``tokens``) or of a ``person``."""

    def __init__(
        self,
        tokens: frozenset[str] = frozenset(),
        *,
        person: str | None = None,
        on: date | None = None,
        zone: tzinfo,
    ) -> None:
        self._tokens = tokens
        self._person = person
        self._on = on
        self._zone = zone
        self._rows: list[EvaluationRow] = []
        self._searches: list[SearchRow] = []

    def take(self, index: int, event: Event) -> None:
        """Look at an event."""
        if not isinstance(event, Evaluation | Search) or not self._is_on(event.at):
            return
        if isinstance(event, Evaluation):
            wanted = [item for item in event.items if self._wants(item)]
            if wanted:
                self._rows += _rows(index, event, wanted)
        else:
            self._search(index, event)

    def report(self) -> ApplicationReport:
        """What was found, in the order of the log."""
        return ApplicationReport(
            accesses=tuple(row for row in self._rows if row.disclosed),
            attempts=tuple(row for row in self._rows if not row.disclosed),
            searches=tuple(self._searches),
        )

    def _wants(self, item: EvaluationItem) -> bool:
        if self._person is not None:
            return item.person == self._person
        return item.patient in self._tokens

    def _search(self, index: int, event: Search) -> None:
        is_asked = event.patient in self._tokens
        is_named = not self._tokens.isdisjoint(event.patients)
        if not (is_asked or is_named or (event.person and event.person == self._person)):
            return
        self._searches.append(
            SearchRow(
                index=index,
                at=moment(event.at),
                person=event.person,
                service=event.service,
                channel=event.channel,
                request=event.request,
                sought=event.sought,
                action=event.action,
                resource_type=event.resource_type,
                purpose=event.purpose,
                results=event.results,
                is_asked=is_asked,
                is_named=is_named,
                categories=event.categories,
                # of the others it holds tokens, which nobody can read
                actions=event.found if event.sought == "action" else (),
            )
        )

    def _is_on(self, at: str) -> bool:
        return self._on is None or moment(at).astimezone(self._zone).date() == self._on


def is_disclosure(item: EvaluationItem) -> bool:
    """Whether the answer let the application show something, or change or pass on."""
    return item.allowed or any(level != "withheld" for level in item.levels.values())


def _rows(
    index: int, event: Evaluation, items: Iterable[EvaluationItem]
) -> Iterator[EvaluationRow]:
    """A batch asks field by field: what differs in nothing else is one row."""
    found: dict[tuple[object, ...], EvaluationRow] = {}
    patients: dict[tuple[object, ...], set[str]] = {}
    for item in items:
        key: tuple[object, ...] = (
            *(item.person, item.subject_type, item.subject),
            *(item.action, item.resource_type, item.allowed, is_disclosure(item)),
            *(item.recipient, item.purpose, item.purpose_claimed, item.reason),
            *(item.roles, item.departments),
        )
        patients.setdefault(key, set()).update({item.patient} - {""})
        row = found.get(key)
        if row is None:
            found[key] = _row(index, event, item)
        else:
            found[key] = replace(
                row,
                questions=row.questions + 1,
                levels=_higher(row.levels, item.levels),
                determining=_joined(row.determining, item.determining),
                grants=_joined(row.grants, item.grants),
            )
    for same, row in found.items():
        yield replace(row, patients=len(patients[same]))


def _row(index: int, event: Evaluation, item: EvaluationItem) -> EvaluationRow:
    return EvaluationRow(
        index=index,
        at=moment(event.at),
        person=item.person,
        subject=item.subject,
        service=event.service,
        channel=event.channel,
        request=event.request,
        action=item.action,
        resource_type=item.resource_type,
        allowed=item.allowed,
        disclosed=is_disclosure(item),
        levels=dict(item.levels),
        recipient=item.recipient,
        purpose=item.purpose,
        purpose_claimed=item.purpose_claimed,
        reason=item.reason,
        roles=item.roles,
        departments=item.departments,
        determining=item.determining,
        grants=item.grants,
        policy_set=event.policy_set,
        data_map=event.data_map,
    )


def _higher(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    merged = dict(one)
    for category, level in other.items():
        known = merged.get(category)
        if known is None or _rank(level) > _rank(known):
            merged[category] = level
    return merged


def _rank(level: str) -> int:
    # a level that this program does not know may show anything
    return _LEVELS.get(level, len(_LEVELS))


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))
