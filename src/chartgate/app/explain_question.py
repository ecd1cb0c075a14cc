"""A question that can be explained: who asks for what, why and when; and its answer, decided.

The rule kept: every answer shown to people is decided here, by the reference meaning of levels
(``chartgate.app.levels``) together with what the gate checks before it, the claim of the purpose.
Nothing else in the explanations decides anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from chartgate.app.entitlement import STORE_STEPS, milliseconds
from chartgate.app.levels import (
    RECORD,
    Asking,
    level_of_labels,
    may_change,
    may_govern,
    may_read_log,
)
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.rolebook import PurposeRefused, person_entity
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.schema import Schema
from chartgate.cedar.values import EMPTY, DateTime, RecordValue, Value
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import Assignment, EntityUid, Person

LOG: Final = EntityUid("AuditLog", "log")
STORE: Final = EntityUid("PolicyStore", "store")
VIEWS: Final[Mapping[str, Disclosure]] = {action: level for level, action in VIEW_ACTIONS.items()}


class UnknownQuestion(Misconfigured):
    """Something was asked about an action, category or attribute that the schema does not have."""

    code = "unknown_question"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``view_summary`` and ``view_masked`` ask for at least that level."""

    action: str
    labels: tuple[str, ...]
    purpose: str
    at: datetime
    record: Mapping[str, Value] = EMPTY
    """The record's attributes but its category."""
    context: Mapping[str, Value] = EMPTY
    """Circumstances beside purpose, time and source."""
    source: str = "explain"
    hidden: frozenset[str] = frozenset()
    """Record attributes that were looked up, not typed: their values are not shown."""

    @property
    def wanted(self) -> int:
        """How much must be reached to be what was asked for: a level's number, or 1."""
        return int(VIEWS.get(self.action, 1))

    @property
    def is_view(self) -> bool:
        """Whether the answer is a level."""
        return self.action in VIEWS

    def actions(self) -> tuple[str, ...]:
        """The Cedar actions that are decided to answer it."""
        return tuple(VIEWS) if self.is_view else (self.action,)


@dataclass(frozen=True, slots=True)
class Reached:
    """An answer: the level's number for a view, else 0 or 1; and the policies that made it."""

    rank: int
    determining: tuple[str, ...]
    refused: str | None = None
    """Why the question never came to the policies: the purpose may not be claimed."""


@dataclass(frozen=True, slots=True)
class Judging:
    """A question ready to be put to policies: the person as a whole, and with each assignment."""

    person: Person
    question: Question
    live: tuple[Assignment, ...]
    whole: Entities
    parts: tuple[Entities, ...]
    refused: str | None = field(default=None)

    def asking(self, policies: PolicySet) -> Asking:
        """The request, for ``chartgate.app.levels``."""
        return Asking(policies, self.whole, self.principal, self.context, self.parts)

    @property
    def principal(self) -> EntityUid:
        return EntityUid("User", self.person.name)

    @property
    def context(self) -> Mapping[str, Value]:
        return context_of(self.question, self.question.purpose)

    def env(self, action: str, label: str | None, assignment: int | None = None) -> Env:
        """The request with one assignment alone, as a permit is asked; or as a whole."""
        entities = self.whole if assignment is None else self.parts[assignment]
        resource, entity = resource_of(self.question, label)
        return Env(
            self.principal,
            EntityUid("Action", action),
            resource,
            self.context,
            entities.with_(entity),
        )


def context_of(question: Question, purpose: str) -> Mapping[str, Value]:
    """The circumstances of a request."""
    return RecordValue(
        {
            **question.context,
            "purpose": EntityUid("Purpose", purpose),
            "now": DateTime(milliseconds(question.at)),
            "source": question.source,
        }
    )


def resource_of(question: Question, label: str | None) -> tuple[EntityUid, Entity]:
    """What is asked about: the record as one of its labels, the audit log, the policy store."""
    if label is None:
        resource = STORE if question.action in STORE_STEPS else LOG
        return resource, Entity(resource)
    attributes = {**question.record, "category": EntityUid("Category", label)}
    return RECORD, Entity(RECORD, RecordValue(attributes))


def judging(version: PolicyVersion, person: Person, question: Question) -> Judging:
    """The question made ready, with the person's assignments that are live at its time."""
    hierarchy = version.roles.entities()
    live = version.roles.known_of(person).live(at=question.at) if person.active else ()
    refused = None
    try:
        version.roles.check_claim(question.purpose, live)
    except PurposeRefused as exc:
        refused = str(exc)
    return Judging(
        person=person,
        question=question,
        live=live,
        whole=hierarchy.with_(person_entity(person, live)),
        parts=tuple(hierarchy.with_(person_entity(person, (part,))) for part in live),
        refused=refused,
    )


def decide(judging: Judging, policies: PolicySet) -> Reached:
    """The answer, by the reference meaning."""
    if judging.refused is not None:
        return Reached(0, (), judging.refused)
    question, asking = judging.question, judging.asking(policies)
    if question.action in STORE_STEPS:
        answer = may_govern(asking, question.action)
    elif not question.labels:
        answer = may_read_log(asking, question.action)
    elif question.is_view:
        level = level_of_labels(asking, question.record, question.labels)
        return Reached(int(level.level), level.determining)
    else:
        answer = may_change(asking, question.action, question.record, question.labels)
    return Reached(int(answer.allowed), answer.determining)


def check_question(question: Question, schema: Schema) -> Question:
    """The question, if the schema has words for it; raises ``UnknownQuestion``."""
    action = schema.actions.get(EntityUid("Action", question.action))
    if action is None:
        known = ", ".join(sorted(uid.id for uid in schema.actions))
        raise UnknownQuestion(f"there is no action {question.action!r}; there are {known}")
    if "Record" in action.resources:
        if not question.labels:
            raise UnknownQuestion(f"{question.action} is asked of a category of records: name one")
    elif question.labels or question.record:
        raise UnknownQuestion(f"{question.action} is not asked of records: name no category")
    category = schema.entities.get("Category")
    names = () if category is None or category.enum is None else category.enum
    for label in question.labels:
        if label not in names:
            raise UnknownQuestion(f"there is no category {label!r}; there are {', '.join(names)}")
    return replace(question, record=RecordValue(question.record))
