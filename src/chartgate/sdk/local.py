"""The real engine for an application's tests: policies of a folder, people and patients as said.

The rule kept: it decides as the service does, by the same core and with the same words; but nothing is
recorded, so an answer names no entry of a log, and nothing may be released on it outside of tests.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.patient_record import PATIENT, PatientRecord
from chartgate.app.question import Question
from chartgate.app.rulings import Rulings
from chartgate.app.standing import PersonStandings
from chartgate.cedar.schema import EntityRef, Schema, SetType
from chartgate.cedar.values import CedarSet, Value
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING, Scope
from chartgate.sdk import asked as request
from chartgate.sdk.answered import decisions_from
from chartgate.sdk.calls import EXECUTE_ALL, Asking
from chartgate.sdk.clock import SYSTEM
from chartgate.sdk.decision import Decision
from chartgate.sdk.errors import Misused
from chartgate.sdk.questions import ActionLike, ResourceLike, SubjectLike, question
from chartgate.targets.admissible import record_attributes

_SINCE: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LocalPatient:
    """What the source would say of a patient: the sets that policies ask about, and her labels.

    >>> LocalPatient("17", sets={"departments": ["cardiology"], "care_team": ["mwelby"]})
    """

    key: str
    sets: Mapping[str, Iterable[str]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    """``protected_person`` of a VIP or an employee."""


def person(
    name: str,
    role: str,
    department: str | None = None,
    *,
    reference: str | None = None,
    patient: str | None = None,
    until: datetime | None = None,
) -> Person:
    """Somebody who holds one role."""
    held = Assignment(role, department, _SINCE, until, reference, patient)
    return Person(f"uid-{name}", name, name, active=True, assignments=(held,))


class LocalPolicy:
    """Asked like ``Chartgate``: give it to the middleware as the ``gate`` of a test.

    ``policies``: the folder; ``data_map``: the file, without which nothing is known of records.
    ``scope``: what the application's account may ask and assert; everything, unless said.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self,
        policies: str | Path,
        people: Iterable[Person],
        *,
        data_map: str | Path | None = None,
        patients: Iterable[LocalPatient] = (),
        scope: Scope = EVERYTHING,
    ) -> None:
        version = load_policy_version(Path(policies))
        mapped = None if data_map is None else load_data_map(Path(data_map), version.schema)
        persons = {one.name: one for one in people}
        for one in persons.values():
            version.roles.known_of(one)
        self._rulings: Final = Rulings(
            version, PersonStandings(persons, version.roles), data_map=mapped
        )
        self._facts: Final = {one.key: _facts(one, version.schema) for one in patients}
        self._scope: Final = scope

    def decide(
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        strict: bool | None = None,
    ) -> Decision:
        """As ``Chartgate.decide``."""
        return self.decide_many([(subject, action, resource, context)])[0]

    def decide_many(
        self,
        questions: Iterable[Asking],
        *,
        semantic: str = EXECUTE_ALL,
        timeout: float | None = None,
        strict: bool | None = None,
    ) -> tuple[Decision, ...]:
        """As ``Chartgate.decide_many``, for ``execute_all``."""
        if semantic != EXECUTE_ALL:
            raise Misused("in tests every question of a batch is answered")
        put = tuple(question(*one) for one in questions)
        at_ms = (SYSTEM.at() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        rulings = [self._rulings.rule(one, self._scope, self._of(one), at_ms) for one in put]
        decisions = decisions_from(put, rulings, None, 0)
        request.mark(*decisions)
        return decisions

    def levels(
        self,
        subject: SubjectLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Mapping[str, Disclosure]:
        """As ``Chartgate.levels``."""
        decision = self.decide(subject, "view", resource, context)
        return {**decision.levels, **decision.fields}

    def close(self) -> None:
        """Nothing is open."""

    def _of(self, put: Question) -> PatientRecord | None:
        key = self._rulings.patient_of(put)
        return None if key is None else self._facts.get(key)


def _facts(patient: LocalPatient, schema: Schema) -> PatientRecord:
    attributes = record_attributes(schema)
    known: dict[str, Value | None] = {}
    if PATIENT in attributes:
        known[PATIENT] = EntityUid("Patient", patient.key)
    for name in patient.sets:
        if name not in attributes or not isinstance(attributes[name].type, SetType):
            raise Misused(f"the schema knows no set {name} of a record")
    for name, attribute in attributes.items():
        if isinstance(attribute.type, SetType):
            element = attribute.type.element
            members = patient.sets.get(name, ())
            known[name] = CedarSet.of(
                EntityUid(element.name, one) if isinstance(element, EntityRef) else one
                for one in members
            )
    return PatientRecord(known, patient.labels)
