"""The decision core: a question that an application asks, and its ruling.

The rules kept:

- a record is asked about by its labels, and answered in levels (``chartgate.app.levels`` is the
  meaning): a permit is asked of each assignment alone, a forbid of the whole person, and a forbid
  that cannot be evaluated holds;
- a decision on what belongs to patients names its patient, ``share`` and ``export`` name who
  receives (45 CFR 164.312(b), 164.528), or it is denied;
- whoever has no business with a patient is told the same whether or not there is such a patient;
- one question, and one ``Sitting``, is decided by one version, one state of the entities, one time.

The servers' workers and the embedded SDK run this same code. It does no I/O: ``patient_of`` says
whose facts a question needs, and whoever asks brings them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from chartgate.app.patient_record import PatientRecord
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.app.ruling_core import Core
from chartgate.app.ruling_shape import Shape, patient_key
from chartgate.app.ruling_sitting import Sitting
from chartgate.app.standing import People
from chartgate.cedar.ast import Policy
from chartgate.cedar.entities import Entity
from chartgate.datamap.model import DataMap
from chartgate.model.principal import EntityUid
from chartgate.model.service import Scope
from chartgate.targets.admissible import RECORD
from chartgate.targets.entity_store import EntityView


class Rulings:
    """Decides by one version of policies and map. Changes come from one writer at a time."""

    def __init__(
        self,
        version: PolicyVersion,
        people: People,
        *,
        data_map: DataMap | None = None,
        entities: Iterable[Entity] = (),
    ) -> None:
        self._core: Final = Core(version, people, data_map, entities)
        self.version: Final = version
        self.people: Final = people
        self.shape: Final[Shape] = self._core.shape
        self.data_map_hash: Final = self._core.data_map_hash

    @property
    def hash(self) -> str:
        """The identity of the policies."""
        return self._core.engine.hash

    @property
    def entities(self) -> EntityView:
        """The stored entities as they are now."""
        return self._core.engine.entities

    # --- asking -----------------------------------------------------------------------------

    def patient_of(self, question: Question) -> str | None:
        """The key of the patient whose facts the question needs; None for none."""
        if question.resource.type != RECORD or not self.shape.has_records:
            return None
        return patient_key(question.resource.properties)

    def rule(
        self, question: Question, scope: Scope, facts: PatientRecord | None, at_ms: int
    ) -> Ruling:
        """The ruling; ``facts`` are of the patient that ``patient_of`` names, None where the
        source has none."""
        return Sitting(self._core, scope, at_ms).rule(question, facts)

    def rule_many(
        self,
        questions: Iterable[Question],
        scope: Scope,
        facts_of: Mapping[str, PatientRecord | None],
        at_ms: int,
    ) -> list[Ruling]:
        """The same for many: items that share a subject or a patient share the work."""
        rule = Sitting(self._core, scope, at_ms).rule
        if not facts_of:
            return [rule(question, None) for question in questions]
        patient_of = self.patient_of
        return [
            rule(question, None if (key := patient_of(question)) is None else facts_of.get(key))
            for question in questions
        ]

    def sitting(self, scope: Scope, at_ms: int) -> Sitting:
        """The same item by item."""
        return Sitting(self._core, scope, at_ms)

    # --- what is in force -------------------------------------------------------------------

    def warming(self) -> Iterator[int]:
        """Build in small steps what will be needed; whoever replaces a version does so first."""
        return self._core.engine.warming()

    def grant(self, *policies: Policy) -> None:
        """Put grants in force; raises ``Misconfigured``, and then none is."""
        self._core.engine.grant(*policies)

    def revoke(self, policy_id: str) -> bool:
        """End a grant; whether there was one."""
        return self._core.engine.revoke(policy_id)

    def granted(self) -> tuple[Policy, ...]:
        """The grants in force: those that a new version is to be given."""
        return self._core.engine.granted()

    def update(self, *entities: Entity, removed: Iterable[EntityUid] = ()) -> None:
        """Change stored entities; the next question sees all of it."""
        self._core.engine.update(*entities, removed=removed)
