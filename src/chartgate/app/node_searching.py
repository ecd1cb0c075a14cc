"""One page of a search: found by asking every question there is, and what the log says of it.

The rules kept: a page is decided by one version at one instant, in ascending order from where the
last ended; the log names everybody and every patient on the page before it is told (45 CFR
164.312(b)).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from chartgate.app.authzen_search import (
    AnySearch,
    Found,
    ResourceSearch,
    Sought,
    SubjectSearch,
)
from chartgate.app.evaluation_events import UNKNOWN, Tokens, search_events
from chartgate.app.node_asked import Caller
from chartgate.app.patient_record import PatientRecord
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.rulings import Rulings
from chartgate.app.searches import (
    Chunk,
    Result,
    actions,
    is_of_records,
    records,
    resources,
    subjects,
)
from chartgate.model.principal import EntityUid
from chartgate.model.service import Scope
from chartgate.targets.admissible import RECORD


def question_of(query: AnySearch) -> Question:
    """The question that is asked again and again; what is searched for has no name in it."""
    match query:
        case SubjectSearch(subject, action, resource, context):
            return Question(
                Subject(subject.type, "", subject.properties), action, resource, context
            )
        case ResourceSearch(subject, action, resource, context):
            wanted = Resource(resource.type, "", resource.properties)
            return Question(subject, action, wanted, context)
    return Question(query.subject, Action(""), query.resource, query.context)


def needs_patients(rulings: Rulings, query: AnySearch, question: Question) -> bool:
    """Whether the patients of the source are what is searched."""
    return isinstance(query, ResourceSearch) and is_of_records(rulings, question)


def chunks(
    rulings: Rulings,
    sought: Sought,
    question: Question,
    scope: Scope,
    facts: PatientRecord | None,
    at_ms: int,
) -> Iterator[Chunk]:
    """The results of a search that needs no patients but the one it names."""
    after = sought.page.after or ""
    query = sought.query
    if isinstance(query, SubjectSearch):
        return subjects(rulings, question, scope, facts, at_ms, after=after)
    if isinstance(query, ResourceSearch):
        return resources(rulings, question, scope, at_ms, after=after)
    return actions(
        rulings,
        query.subject,
        query.resource,
        query.context,
        scope,
        facts,
        at_ms,
        after=after,
    )


async def record_chunks(
    rulings: Rulings,
    question: Question,
    scope: Scope,
    at_ms: int,
    patients: AsyncIterator[Sequence[tuple[str, PatientRecord]]],
) -> AsyncGenerator[Chunk, None]:
    """The results of a search through the source's patients."""
    # ``records`` draws from an iterator: it is given one chunk after the other.
    given: list[Sequence[tuple[str, PatientRecord]]] = []

    def drawn() -> Iterator[Sequence[tuple[str, PatientRecord]]]:
        while given:
            yield given.pop()

    async for some in patients:
        given.append(some)
        for chunk in records(rulings, question, scope, at_ms, drawn()):
            yield chunk


@dataclass(slots=True)
class Page:
    """Gathers results until there is one more than the page holds, or nobody looks any further."""

    limit: int
    results: list[Result] = field(default_factory=list)
    after: str = ""
    """Where a page that ended early goes on."""

    def add(self, chunk: Chunk) -> bool:
        """Whether that was enough."""
        self.results += chunk.results
        return len(self.results) > self.limit

    def end_at(self, chunk: Chunk) -> None:
        """This page has taken long enough: the next goes on behind the chunk."""
        self.after = chunk.after

    @property
    def told(self) -> list[Result]:
        """The results of the page."""
        return self.results[: self.limit]

    @property
    def found(self) -> Found:
        """The page."""
        told = self.told
        properties = tuple(one.properties for one in told)
        return Found(
            names=tuple(one.id for one in told),
            more=len(self.results) > self.limit or bool(self.after),
            after="" if len(self.results) > self.limit else self.after,
            properties=properties if any(properties) else (),
        )


def entries(
    rulings: Rulings,
    sought: Sought,
    question: Question,
    page: Page,
    caller: Caller,
    *,
    at: str,
    at_ms: int,
    node: str,
    request: str,
    trace: str,
    tokens: Tokens,
    names: frozenset[str],
) -> tuple[bytes, ...]:
    """What is to be in the log before the page is told."""
    told = page.told
    first = told[0].ruling if told else None
    persons: list[str] = []
    patients: list[str] = []
    others: list[str] = []
    what, person, subject = "action", "", ""
    if isinstance(sought.query, SubjectSearch):
        what = "subject"
        uids = [(r, "" if r.ruling is None else r.ruling.person) for r in told]
        persons = [uid for _, uid in uids if uid]
        others = [f"{r.type}:{r.id}" for r, uid in uids if not uid]
    else:
        person = _uid(rulings, question, at_ms)
        subject = "" if person else f"{question.subject.type}:{question.subject.id}"
    if isinstance(sought.query, ResourceSearch):
        what = "resource"
        if question.resource.type == RECORD:
            patients = [r.id for r in told]
        else:
            others = [f"{r.type}:{r.id}" for r in told]
    return search_events(
        at=at,
        node=node,
        service=caller.service.uid,
        channel=caller.channel,
        request=request,
        sought=what,
        policy_set=rulings.hash,
        data_map=rulings.data_map_hash,
        tokens=tokens,
        person=person,
        action="" if what == "action" else _known(question.action.name, names),
        resource_type=_known(question.resource.type, names),
        patient=rulings.patient_of(question) or "",
        purpose="" if first is None else first.purpose,
        results=len(told),
        persons=persons,
        patients=patients,
        actions=[r.id for r in told] if what == "action" else (),
        others=others,
        subject=subject,
        categories=_categories(rulings, question, told),
        trace=trace,
    )


def _categories(rulings: Rulings, question: Question, told: Sequence[Result]) -> tuple[str, ...]:
    """What of a record was asked about, as far as the policies know it."""
    if question.resource.type != RECORD:
        return ()
    said = question.resource.properties
    fields, several = said.get("fields"), said.get("categories")
    named = [said.get("category")]
    named += several if isinstance(several, list) else ()
    named += fields.values() if isinstance(fields, dict) else ()
    asked = {name for name in named if isinstance(name, str) and name in rulings.shape.categories}
    return tuple(sorted(asked.union(*(r.ruling.levels for r in told if r.ruling is not None))))


def _uid(rulings: Rulings, question: Question, at_ms: int) -> str:
    who = EntityUid(question.subject.type, question.subject.id)
    standing = rulings.people.standing(who, at_ms)
    return "" if standing is None or standing.person is None else standing.person.uid


def _known(name: str, names: frozenset[str]) -> str:
    return name if name in names else UNKNOWN
