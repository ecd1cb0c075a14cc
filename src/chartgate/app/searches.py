"""Who may, what may she, how: AuthZEN 1.0 searches, answered by asking every question there is.

The rules kept: a search is exact — each result was decided by the same ``rule`` that an evaluation
is, and nothing else was left out, shortened or guessed; results come in one order, so that a search
can go on from where it stopped. Nothing is found about a patient whom nobody named but what an
evaluation would have allowed.

A search is a generator of chunks. A chunk may be empty: it is where whoever drives the search may
let others have their turn, and ``after`` is where to go on from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from chartgate.app.patient_record import PATIENT, PatientRecord
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Ruling
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PERSON_TYPE
from chartgate.model.service import Scope
from chartgate.targets.admissible import RECORD

_STEP: Final = 64
"""So many questions are decided between two rests."""


@dataclass(frozen=True, slots=True)
class Result:
    """Something that was found: ``id`` of a subject or resource, name of an action."""

    type: str
    id: str
    properties: dict[str, Any] = field(default_factory=dict)
    ruling: Ruling | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Results, and the position after the last question that was decided for them."""

    results: tuple[Result, ...]
    after: str


def subjects(
    rulings: Rulings,
    question: Question,
    scope: Scope,
    facts: PatientRecord | None,
    at_ms: int,
    *,
    after: str = "",
) -> Iterator[Chunk]:
    """Everybody of the subject's type who may, in the order of their ids; its own id counts not."""
    sitting = rulings.sitting(scope, at_ms)
    kind = question.subject.type
    names = list(rulings.people.names(kind, after))
    if kind != PERSON_TYPE or not names:
        stored = {e.uid.id for e in rulings.entities if e.uid.type == kind and e.uid.id > after}
        names = sorted({*names, *stored})
    for start in range(0, len(names), _STEP):
        found = []
        step = names[start : start + _STEP]
        for name in step:
            subject = Subject(kind, name, question.subject.properties)
            ruling = sitting.rule(msgspec.structs.replace(question, subject=subject), facts)
            if ruling.allowed:
                found.append(Result(kind, name, ruling=ruling))
        yield Chunk(tuple(found), step[-1])


def actions(
    rulings: Rulings,
    subject: Subject,
    resource: Resource,
    context: dict[str, Any],
    scope: Scope,
    facts: PatientRecord | None,
    at_ms: int,
    *,
    after: str = "",
) -> Iterator[Chunk]:
    """The actions that are allowed, in the order of their names."""
    sitting = rulings.sitting(scope, at_ms)
    names = sorted(
        name
        for name, who, what in rulings.shape.askable
        if (who, what) == (subject.type, resource.type) and name > after
    )
    for start in range(0, len(names), _STEP):
        found = []
        step = names[start : start + _STEP]
        for name in step:
            ruling = sitting.rule(Question(subject, Action(name), resource, context), facts)
            if ruling.allowed:
                found.append(Result("", name, ruling=ruling))
        yield Chunk(tuple(found), step[-1])


def resources(
    rulings: Rulings, question: Question, scope: Scope, at_ms: int, *, after: str = ""
) -> Iterator[Chunk]:
    """The stored resources of the type, in the order of their ids. Records are no stored entities:
    ``records`` finds them."""
    sitting = rulings.sitting(scope, at_ms)
    kind = question.resource.type
    names = sorted(e.uid.id for e in rulings.entities if e.uid.type == kind and e.uid.id > after)
    for start in range(0, len(names), _STEP):
        found = []
        step = names[start : start + _STEP]
        for name in step:
            resource = Resource(kind, name, question.resource.properties)
            ruling = sitting.rule(msgspec.structs.replace(question, resource=resource), None)
            if ruling.allowed:
                found.append(Result(kind, name, ruling=ruling))
        yield Chunk(tuple(found), step[-1])


def records(
    rulings: Rulings,
    question: Question,
    scope: Scope,
    at_ms: int,
    patients: Iterable[Sequence[tuple[str, PatientRecord]]],
) -> Iterator[Chunk]:
    """The patients of whose record the action is allowed, for what the question asks about.

    ``patients`` come in chunks, in the order of their keys, from where the search is to go on; a
    patient whom the question names is the only one. Each result says its patient and
    what was asked about.
    """
    sitting = rulings.sitting(scope, at_ms)
    said = question.resource.properties
    only = rulings.patient_of(question)
    asked: dict[str, Any] = {n: said[n] for n in ("category", "categories", "fields") if n in said}
    for chunk in patients:
        for start in range(0, len(chunk), _STEP):
            found = []
            step = chunk[start : start + _STEP]
            for key, facts in step:
                if only is not None and key != only:
                    continue
                resource = Resource(RECORD, key, {**said, PATIENT: key})
                ruling = sitting.rule(msgspec.structs.replace(question, resource=resource), facts)
                if ruling.allowed:
                    found.append(Result(RECORD, key, {PATIENT: key, **asked}, ruling))
                sitting.let_go(key)
            yield Chunk(tuple(found), step[-1][0])


def is_of_records(rulings: Rulings, question: Question) -> bool:
    """Whether a resource search is one for ``records``."""
    return rulings.shape.has_records and question.resource.type == RECORD
