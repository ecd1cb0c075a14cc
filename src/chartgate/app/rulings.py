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
from typing import Any, Final

import msgspec

from chartgate.app.engine import Engine, Live
from chartgate.app.patient_record import PATIENT, PatientRecord
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.question import Question
from chartgate.app.ruling import Obligation, Reason, Ruling
from chartgate.app.ruling_claims import NOTHING_SAID, believed, row_labels
from chartgate.app.ruling_fields import Cell, Fields, Wanted
from chartgate.app.ruling_frame import Frame, Framing
from chartgate.app.ruling_levels import Allowed, Reached, in_order
from chartgate.app.ruling_obligations import (
    ACR,
    ACR_URN,
    ACR_VALUES,
    Hints,
    break_glass,
    mask,
    words,
)
from chartgate.app.ruling_reasons import (
    CATEGORY_NEEDED,
    LESS,
    NO_PERMIT,
    NOT_ALLOWED,
    OUT_OF_SCOPE,
    PATIENT_NEEDED,
    PATIENT_UNKNOWN,
    RECIPIENT_NEEDED,
    UNKNOWN_CATEGORY,
    UNLABELLED,
    Forbidden,
    wrong_type,
)
from chartgate.app.ruling_shape import LEVEL_ACTIONS, Askable, Shape, WrongType, shape_of
from chartgate.app.ruling_views import Clocked, Sight
from chartgate.app.standing import Claims, People
from chartgate.cedar.ast import Policy
from chartgate.cedar.entities import Entity
from chartgate.cedar.schema import Schema
from chartgate.cedar.values import CedarSet, Value
from chartgate.datamap.model import DataMap
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import EntityUid
from chartgate.model.service import ANY, PEP_PROPERTIES, Scope
from chartgate.targets.admissible import RECORD
from chartgate.targets.compiled import View, Weighed

RELEASING: Final = frozenset({"share", "export"})
"""Actions by which something leaves: they name who receives it."""
_ASKED: Final = EntityUid(RECORD, "asked")
_NO_PARENTS: Final[frozenset[EntityUid]] = frozenset()
_FULL: Final = int(Disclosure.FULL)
_MOST_KEPT: Final = 8_192


class _Own(msgspec.Struct):
    """The request's own entity: what ``Entity`` has, made in a tenth of the time."""

    uid: EntityUid
    attrs: Mapping[str, Value]
    parents: frozenset[EntityUid] = _NO_PARENTS
    tags: Mapping[str, Value] = NOTHING_SAID


class Rulings:
    """Everything that one version needs to decide. Changes come from one writer at a time."""

    def __init__(
        self,
        version: PolicyVersion,
        people: People,
        *,
        data_map: DataMap | None = None,
        entities: Iterable[Entity] = (),
    ) -> None:
        policies = version.policies.policies
        claims = Claims(version.roles)
        self._engine: Final = Engine(version, entities)
        self.version: Final = version
        self.schema: Final[Schema] = version.schema
        self.people: Final = people
        self.data_map_hash: Final = "" if data_map is None else data_map.hash
        self.shape: Final[Shape] = shape_of(version.schema, has_map=data_map is not None)
        self.fields: Final = Fields(data_map, self.shape.categories)
        self.forbidden: Final = Forbidden(policies)
        self.hints: Final = Hints(policies, claims.wider)
        self.clocked: Final = Clocked(policies)
        self.sight: Final = Sight(people, claims)
        enums = frozenset(name for name, kind in version.schema.entities.items() if kind.enum)
        self.framing: Final = Framing(
            self.shape.askable,
            source="" if data_map is None else data_map.source,
            enums=enums,
            purposes=version.roles.purposes,
        )
        self.labels: Final = {name: EntityUid("Category", name) for name in self.shape.categories}
        self.no_patient: Final = {name: CedarSet.of(()) for name in self.shape.record_sets}
        self._reached: Final[dict[tuple[Weighed, ...], Reached]] = {}
        self._allowed: Final[dict[tuple[Weighed, ...], Allowed]] = {}

    # --- asking -----------------------------------------------------------------------------

    @property
    def hash(self) -> str:
        """The identity of the policies."""
        return self._engine.hash

    def patient_of(self, question: Question) -> str | None:
        """The key of the patient whose facts the question needs; None for none."""
        if not self.shape.has_records or question.resource.type != RECORD:
            return None
        return patient_key(question.resource.properties)

    def rule(
        self, question: Question, scope: Scope, facts: PatientRecord | None, at_ms: int
    ) -> Ruling:
        """The ruling; ``facts`` are of the patient that ``patient_of`` names, None where the
        source has none."""
        return Sitting(self, scope, at_ms).rule(question, facts)

    def rule_many(
        self,
        questions: Iterable[Question],
        scope: Scope,
        facts_of: Mapping[str, PatientRecord | None],
        at_ms: int,
    ) -> list[Ruling]:
        """The same for many: items that share a subject or a patient share the work."""
        sitting = Sitting(self, scope, at_ms)
        rule, patient_of = sitting.rule, self.patient_of
        return [
            rule(question, None if (key := patient_of(question)) is None else facts_of.get(key))
            for question in questions
        ]

    def sitting(self, scope: Scope, at_ms: int) -> "Sitting":
        """The same item by item."""
        return Sitting(self, scope, at_ms)

    # --- what is in force -------------------------------------------------------------------

    @property
    def live(self) -> Live:
        """What is decided by, as one value."""
        return self._engine.live

    def warming(self) -> Iterator[int]:
        """Build in small steps what will be needed; whoever replaces a version does so first."""
        return self._engine.warming()

    def grant(self, *policies: Policy) -> None:
        """Put grants in force; raises ``Misconfigured``, and then none is."""
        self._engine.grant(*policies)

    def revoke(self, policy_id: str) -> bool:
        """End a grant; whether there was one."""
        return self._engine.revoke(policy_id)

    def granted(self) -> tuple[Policy, ...]:
        """The grants in force: those that a new version is to be given."""
        return self._engine.granted()

    def update(self, *entities: Entity, removed: Iterable[EntityUid] = ()) -> None:
        """Change stored entities; the next question sees all of it."""
        self._engine.update(*entities, removed=removed)

    # --- kept answers -----------------------------------------------------------------------

    def reached(self, weighed: tuple[Weighed, ...]) -> Reached:
        """The level from what holds for each level, of the whole person and of each part."""
        found = self._reached.get(weighed)
        if found is None:
            step = len(weighed) // 3
            if len(self._reached) >= _MOST_KEPT:
                self._reached.clear()
            found = self._reached[weighed] = Reached(
                weighed[::step], tuple(weighed[n + 1 : n + step] for n in range(0, 3 * step, step))
            )
        return found

    def allowed(self, weighed: tuple[Weighed, ...]) -> Allowed:
        """Whether an action is allowed, from what holds."""
        found = self._allowed.get(weighed)
        if found is None:
            if len(self._allowed) >= _MOST_KEPT:
                self._allowed.clear()
            found = self._allowed[weighed] = Allowed(weighed[0], weighed[1:])
        return found


def patient_key(properties: Mapping[str, Any]) -> str | None:
    """The patient's key as a question says it: text, or a whole number."""
    key = properties.get(PATIENT)
    if key.__class__ is str:
        return key or None
    return str(key) if key.__class__ is int else None


class _Record:
    """One patient's record as policies see it, and what was already found of it."""

    __slots__ = ("base", "facts", "frame", "kept", "labels", "patient")

    def __init__(
        self, patient: str | None, facts: PatientRecord | None, base: dict[str, Value]
    ) -> None:
        self.patient: Final = patient
        self.facts: Final = facts
        self.labels: Final = () if facts is None else facts.labels
        self.base: Final = base
        self.frame: Frame | None = None
        self.kept: dict[str, Reached] = {}


class Sitting:
    """One scope, one time, one version: the questions of one request."""

    __slots__ = ("_at_ms", "_frame", "_live", "_records", "_rulings", "_scope")

    def __init__(self, rulings: Rulings, scope: Scope, at_ms: int) -> None:
        self._rulings: Final = rulings
        self._scope: Final = scope
        self._at_ms: Final = at_ms
        self._live: Final[Live] = rulings.live
        self._frame: Frame | None = None
        self._records: Final[dict[str | None, _Record]] = {}

    def rule(self, question: Question, facts: PatientRecord | None = None) -> Ruling:
        """The ruling of one item."""
        frame = self._frame
        if frame is None or not frame.is_of(question):
            frame = self._frame = self._framed(question)
        asked = frame.asked
        if frame.refused is not None or asked is None:
            return self._refused(frame, frame.refused, question)
        try:
            if asked.is_record:
                return self._record(frame, asked, question, facts)
            return self._plain(frame, asked, question)
        except WrongType as exc:
            return self._refused(frame, wrong_type(str(exc)), question)

    @property
    def live(self) -> Live:
        """What all of it is decided by."""
        return self._live

    def let_go(self, patient: str) -> None:
        """No further question is about this patient."""
        self._records.pop(patient, None)

    def _framed(self, question: Question) -> Frame:
        rulings = self._rulings
        frame = rulings.framing.begin(question, self._scope)
        if frame.refused is None:
            uid = EntityUid(question.subject.type, question.subject.id)
            seen = rulings.sight.of(uid, self._at_ms, self._live)
            rulings.framing.finish(frame, seen, self._scope, self._at_ms)
        return frame

    # --- plain questions --------------------------------------------------------------------

    def _plain(self, frame: Frame, asked: Askable, question: Question) -> Ruling:
        resource = question.resource
        uid = EntityUid(resource.type, resource.id)
        own: Any = None
        ignored = frame.ignored
        if resource.properties:
            names = list(ignored)
            said = believed("resource", resource.properties, asked.resource, self._scope, (), names)
            if len(names) > len(ignored):
                ignored = tuple(names)
            if said:
                stored = self._live.view.get(uid)
                if stored is None:
                    own = _Own(uid, said)
                else:
                    own = Entity(uid, {**stored.attrs, **said}, stored.parents, stored.tags)
        found = self._decided(frame, asked.action, uid, frame.values, own)
        if found.allowed:
            return self._ruling(frame, True, found.determining, found.failed, ignored=ignored)

        def again(values: Mapping[str, Value]) -> bool:
            return self._decided(frame, asked.action, uid, values, own).allowed

        barring = found.barring
        reason = self._rulings.forbidden.reason(barring, found.failed) if barring else NO_PERMIT
        return self._ruling(
            frame, False, barring, found.failed, reason=reason, ignored=ignored,
            obligations=self._changes(frame, barring, again),
        )  # fmt: skip

    def _decided(
        self,
        frame: Frame,
        action: EntityUid,
        uid: EntityUid,
        values: Mapping[str, Value],
        own: Any,
    ) -> Allowed:
        seen, weigh = frame.seen, self._live.compiled.weigh
        assert seen is not None
        who = seen.standing.uid
        assert frame.whole is not None
        whole = weigh(who, action, uid, values, frame.whole, own)
        if not frame.alone:
            return self._rulings.allowed((whole,))
        return self._rulings.allowed(
            (whole, *[weigh(who, action, uid, values, view, own) for view in frame.alone])
        )

    # --- records ----------------------------------------------------------------------------

    def _record(
        self, frame: Frame, asked: Askable, question: Question, facts: PatientRecord | None
    ) -> Ruling:
        rulings, scope = self._rulings, self._scope
        said = question.resource.properties
        ignored = frame.ignored
        claims: Mapping[str, Value] = NOTHING_SAID
        labels: tuple[str, ...] | None = None
        if not said.keys() <= PEP_PROPERTIES:
            names = list(ignored)
            others = {n: v for n, v in said.items() if n not in PEP_PROPERTIES}
            labels = row_labels(said, scope, rulings.shape.categories, names)
            claims = believed(
                "resource", others, asked.resource, scope, rulings.shape.record_sets, names
            )
            ignored = tuple(names)
        wanted = rulings.fields.wanted(said, labels)
        patient = patient_key(said)
        if PATIENT in said and patient is None:
            raise WrongType("resource.patient is not a key")
        refused = self._unanswerable(frame, wanted, patient)
        if refused is not None or wanted is None:
            return self._ruling(
                frame, False, reason=refused, ignored=ignored, patient=patient or "",
                is_phi=wanted is None or wanted.is_phi,
            )  # fmt: skip
        record = self._known(patient, facts, claims)
        if asked.level is None:
            return self._change(frame, asked, record, wanted, ignored)
        return self._view(frame, int(asked.level), record, wanted, ignored)

    def _unanswerable(
        self, frame: Frame, wanted: Wanted | None, patient: str | None
    ) -> Reason | None:
        if wanted is None:
            return CATEGORY_NEEDED
        if wanted.unknown:
            return UNKNOWN_CATEGORY
        listed = self._scope.categories
        if not wanted.categories <= listed and ANY not in listed:
            return OUT_OF_SCOPE
        if wanted.needs_patient and patient is None:
            return PATIENT_NEEDED
        if frame.action.name in RELEASING and not frame.recipient:
            return RECIPIENT_NEEDED
        return None

    def _known(
        self, patient: str | None, facts: PatientRecord | None, claims: Mapping[str, Value]
    ) -> _Record:
        kept = self._records.get(patient)
        if kept is not None and kept.facts is facts and not claims:
            return kept
        if facts is not None:
            base = {name: value for name, value in facts.known.items() if value is not None}
        else:
            # A patient whom the source does not know is one with whom nobody has any business.
            base = dict(self._rulings.no_patient)
            if patient is not None:
                base[PATIENT] = EntityUid("Patient", patient)
        if claims:
            base.update(claims)
            return _Record(patient, facts, base)
        made = self._records[patient] = _Record(patient, facts, base)
        return made

    def _view(
        self, frame: Frame, level: int, record: _Record, wanted: Wanted, ignored: tuple[str, ...]
    ) -> Ruling:
        if record.frame is not frame:
            record.frame, record.kept = frame, {}
        reached = self._reach(frame, record, wanted, frame.values, record.kept)
        levels, fields, least = _levels(wanted, record.labels, reached)
        is_unknown = record.patient is not None and record.facts is None
        allowed = least >= level and not is_unknown
        if is_unknown:
            levels, fields = dict.fromkeys(levels, 0), dict.fromkeys(fields, 0)
        masked = mask(levels)
        obligations = () if masked is None else (masked,)
        reason = None
        determining = in_order(one.determining for one in _lowest(wanted, record.labels, reached))
        if not allowed:
            top = max((reached[n].top for c in wanted.cells for n in c.labels), default=0)
            reason = self._why(record, wanted, level, top, reached)
            if reason is NOT_ALLOWED:
                # What bars a label of the patient's would tell that there is such a patient.
                determining = ()

            def again(values: Mapping[str, Value]) -> bool:
                new = self._reach(frame, record, wanted, values, {})
                return _levels(wanted, record.labels, new)[2] >= level

            barring = in_order(one.barred_below(level) for one in reached.values())
            offered = () if is_unknown else self._changes(frame, barring, again)
            obligations = (*obligations, *offered, *self._emergency(frame, levels))
        return self._ruling(
            frame, allowed, determining, in_order(one.failed for one in reached.values()),
            reason=reason, ignored=ignored, patient=record.patient or "", is_phi=wanted.is_phi,
            levels=words(levels), fields=words(fields), obligations=obligations,
        )  # fmt: skip

    def _reach(
        self,
        frame: Frame,
        record: _Record,
        wanted: Wanted,
        values: Mapping[str, Value],
        kept: dict[str, Reached],
    ) -> dict[str, Reached]:
        """The level of every label that counts."""
        names = (*wanted.labels, *record.labels) if record.labels else wanted.labels
        found: dict[str, Reached] = {}
        for name in names:
            one = kept.get(name)
            if one is None:
                own: Any = _Own(_ASKED, {**record.base, "category": self._rulings.labels[name]})
                one = kept[name] = self._ladder(frame, values, own)
            found[name] = one
        return found

    def _ladder(self, frame: Frame, values: Mapping[str, Value], own: Any) -> Reached:
        seen, weigh = frame.seen, self._live.compiled.weigh
        assert seen is not None
        assert frame.whole is not None
        who, whole, alone = seen.standing.uid, frame.whole, frame.alone
        masked, summary, full = LEVEL_ACTIONS
        if not alone:
            return self._rulings.reached(
                (
                    weigh(who, masked, _ASKED, values, whole, own),
                    weigh(who, summary, _ASKED, values, whole, own),
                    weigh(who, full, _ASKED, values, whole, own),
                )
            )
        views: tuple[View, ...] = (whole, *alone)
        return self._rulings.reached(
            tuple(
                weigh(who, action, _ASKED, values, view, own)
                for action in LEVEL_ACTIONS
                for view in views
            )
        )

    def _why(
        self, record: _Record, wanted: Wanted, level: int, top: int, reached: Mapping[str, Reached]
    ) -> Reason:
        if not top:
            if wanted.unlabelled:
                return UNLABELLED
            return NO_PERMIT if record.patient is None else NOT_ALLOWED
        if record.patient is not None and record.facts is None:
            return PATIENT_UNKNOWN
        if wanted.unlabelled:
            return UNLABELLED
        barred = [one for one in reached.values() if one.level < min(one.top, level)]
        if barred:
            return self._rulings.forbidden.reason(
                in_order(one.barred_below(min(one.top, level)) for one in barred),
                in_order(one.failed for one in barred),
            )
        return LESS

    def _change(
        self,
        frame: Frame,
        asked: Askable,
        record: _Record,
        wanted: Wanted,
        ignored: tuple[str, ...],
    ) -> Ruling:
        """Every label must allow it: those asked about, the row's and the patient's."""
        found = self._each(frame, asked, record, wanted, frame.values)
        is_unknown = record.patient is not None and record.facts is None
        failed = in_order(one.failed for one in found.values())
        allowed = all(one.allowed for one in found.values())
        if allowed and found and not is_unknown and not wanted.unlabelled:
            return self._ruling(
                frame, True, in_order(one.determining for one in found.values()), failed,
                ignored=ignored, patient=record.patient or "", is_phi=wanted.is_phi,
            )  # fmt: skip
        top = max((found[name].top for name in wanted.labels), default=0)
        refusing = [one for one in found.values() if not one.allowed]
        barring = in_order(one.barring for one in refusing)
        determining = in_order(one.determining for one in refusing)
        if not top:
            reason = NO_PERMIT if record.patient is None else NOT_ALLOWED
            determining = ()
        elif is_unknown:
            reason = PATIENT_UNKNOWN
        elif wanted.unlabelled:
            reason = UNLABELLED
        else:
            reason = (
                self._rulings.forbidden.reason(determining, failed) if determining else NO_PERMIT
            )

        def again(values: Mapping[str, Value]) -> bool:
            new = self._each(frame, asked, record, wanted, values).values()
            return all(one.allowed for one in new) and not wanted.unlabelled

        return self._ruling(
            frame, False, determining, failed, reason=reason, ignored=ignored,
            patient=record.patient or "", is_phi=wanted.is_phi,
            obligations=() if is_unknown else self._changes(frame, barring, again),
        )  # fmt: skip

    def _each(
        self,
        frame: Frame,
        asked: Askable,
        record: _Record,
        wanted: Wanted,
        values: Mapping[str, Value],
    ) -> dict[str, Allowed]:
        found: dict[str, Allowed] = {}
        for name in (*wanted.labels, *record.labels):
            if name not in found:
                own: Any = _Own(_ASKED, {**record.base, "category": self._rulings.labels[name]})
                found[name] = self._decided(frame, asked.action, _ASKED, values, own)
        return found

    # --- what else is said ------------------------------------------------------------------

    def _changes(
        self, frame: Frame, barring: tuple[str, ...], again: Any
    ) -> tuple[Obligation, ...]:
        """What of the context, said otherwise, would have it allowed; each is really decided."""
        rulings, seen, asked = self._rulings, frame.seen, frame.asked
        assert seen is not None
        assert asked is not None
        found: list[Obligation] = []
        hints, values = rulings.hints, frame.values
        if asked.has_purpose and frame.purpose and hints.can_help("purpose", barring):
            would = [
                name
                for group in hints.others(seen.standing, frame.purpose)
                if again({**values, "purpose": rulings.framing.purpose(group[0])})
                for name in group
            ]
            if would:
                found.append(Obligation("purpose", values=tuple(would)))
        if hints.asks_acr and ACR in asked.context and hints.can_help(ACR, barring):
            now = values.get(ACR, 0)
            would = [
                f"{ACR_URN}{acr}"
                for acr in ACR_VALUES
                if isinstance(now, int) and acr > now and again({**values, ACR: acr})
            ]
            if would:
                found.append(Obligation("step_up", values=tuple(would)))
        return tuple(found)

    def _emergency(self, frame: Frame, levels: Mapping[str, int]) -> tuple[Obligation, ...]:
        assert frame.seen is not None
        short = [name for name, level in levels.items() if level < _FULL]
        opened = break_glass(frame.seen.standing, short)
        return () if opened is None else (opened,)

    def _refused(self, frame: Frame, reason: Reason | None, question: Question) -> Ruling:
        said = question.resource.properties
        patient = patient_key(said) if question.resource.type == RECORD else None
        return self._ruling(frame, False, reason=reason, patient=patient or "")

    def _ruling(
        self,
        frame: Frame,
        allowed: bool,
        determining: tuple[str, ...] = (),
        failed: tuple[str, ...] = (),
        *,
        reason: Reason | None = None,
        ignored: tuple[str, ...] | None = None,
        obligations: tuple[Obligation, ...] = (),
        patient: str = "",
        is_phi: bool = True,
        levels: dict[str, str] = {},  # noqa: B006 - never changed
        fields: dict[str, str] = {},  # noqa: B006 - never changed
    ) -> Ruling:
        rulings, seen = self._rulings, frame.seen
        if seen is None:
            return Ruling(
                allowed=False, reason=reason, policy_set=self._live.hash,
                data_map=rulings.data_map_hash, patient=patient,
                ignored=frame.ignored if ignored is None else ignored,
            )  # fmt: skip
        standing, grants = seen.standing, self._live.compiled.grants
        return Ruling(
            allowed=allowed,
            determining=determining,
            failed=failed,
            levels=levels,
            fields=fields,
            obligations=obligations,
            reason=reason,
            ignored=frame.ignored if ignored is None else ignored,
            policy_set=self._live.hash,
            data_map=rulings.data_map_hash,
            valid_until=seen.valid_until(rulings.clocked, self._live, self._at_ms),
            person="" if standing.person is None else standing.person.uid,
            roles=standing.roles,
            departments=standing.departments,
            held=standing.held,
            grants=tuple(n for n in determining if n in grants) if len(grants) else (),
            purpose=frame.purpose,
            purpose_claimed=frame.claimed,
            patient=patient,
            recipient=frame.recipient if frame.action.name in RELEASING else "",
            context=frame.told,
            is_phi=is_phi,
        )


def _levels(
    wanted: Wanted, labels: tuple[str, ...], reached: Mapping[str, Reached]
) -> tuple[dict[str, int], dict[str, int], int]:
    """Levels by category, by field, and the lowest of all."""
    highest = min((reached[name].level for name in labels), default=_FULL)
    levels: dict[str, int] = {}
    fields: dict[str, int] = {}
    least = _FULL
    for cell in wanted.cells:
        level = _cell_level(cell, highest, reached)
        least = min(least, level)
        if cell.is_field:
            fields[cell.name] = level
        if cell.category:
            # Of several fields of a category the lowest is told: safe for whoever reads no further.
            levels[cell.category] = min(level, levels.get(cell.category, _FULL))
    return levels, fields, least


def _cell_level(cell: Cell, highest: int, reached: Mapping[str, Reached]) -> int:
    if not cell.labels:
        return 0
    level = min(highest, *[reached[name].level for name in cell.labels])
    if cell.row:
        if min(highest, *[reached[name].level for name in cell.row]) == 0:
            return 0
        if cell.is_key:
            return _FULL if level == _FULL else int(Disclosure.MASKED)
    return level


def _lowest(
    wanted: Wanted, labels: tuple[str, ...], reached: Mapping[str, Reached]
) -> Iterator[Reached]:
    """What made the levels: of each cell, the labels that kept it where it is."""
    if len(wanted.labels) == 1 and not labels:
        yield reached[wanted.labels[0]]
        return
    for cell in wanted.cells:
        names = (*cell.labels, *labels)
        level = min((reached[name].level for name in names), default=0)
        for name in names:
            if reached[name].level == level:
                yield reached[name]
