"""The questions of one request, one after the other: one scope, one time, one version.

The rules kept are those of ``chartgate.app.rulings``. What items share is worked out once: the
person with her purpose and context, a patient's record, the level of a label of it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from chartgate.app.patient_record import PATIENT, PatientRecord
from chartgate.app.question import Question
from chartgate.app.ruling import Obligation, Reason, Ruling
from chartgate.app.ruling_claims import NOTHING_SAID, believed, row_labels
from chartgate.app.ruling_core import Core
from chartgate.app.ruling_fields import Wanted
from chartgate.app.ruling_frame import Frame
from chartgate.app.ruling_levels import Allowed, Reached
from chartgate.app.ruling_obligations import ACR, ACR_URN, ACR_VALUES, break_glass
from chartgate.app.ruling_reasons import (
    CATEGORY_NEEDED,
    NO_PERMIT,
    OUT_OF_SCOPE,
    PATIENT_NEEDED,
    RECIPIENT_NEEDED,
    UNKNOWN_CATEGORY,
    wrong_type,
)
from chartgate.app.ruling_shape import LEVEL_ACTIONS, Askable, WrongType, patient_key
from chartgate.app.ruling_verdicts import (
    KNOWN,
    NO_PATIENT,
    UNKNOWN,
    Verdict,
    change_verdict,
    may_change,
    view_verdict,
)
from chartgate.cedar.entities import Entity
from chartgate.cedar.values import Value
from chartgate.model.principal import EntityUid
from chartgate.model.service import ANY, PEP_PROPERTIES, Scope
from chartgate.targets.admissible import RECORD

RELEASING: Final = frozenset({"share", "export"})
"""Actions by which something leaves: they name who receives it (45 CFR 164.528)."""
_ASKED: Final = EntityUid(RECORD, "asked")
_MASKED, _SUMMARY, _FULL = LEVEL_ACTIONS
_NO_PARENTS: Final[frozenset[EntityUid]] = frozenset()

Values = Mapping[str, Value]


class _Own(msgspec.Struct):
    """The request's own entity: what ``Entity`` has, made in a tenth of the time."""

    uid: EntityUid
    attrs: Values
    parents: frozenset[EntityUid] = _NO_PARENTS
    tags: Values = NOTHING_SAID


class _Record:
    """One patient's record as policies see it, and what was already found of it."""

    __slots__ = ("base", "facts", "frame", "kept", "key", "labels", "patient")

    def __init__(
        self, key: str | None, facts: PatientRecord | None, base: dict[str, Value]
    ) -> None:
        self.key: Final = key or ""
        self.facts: Final = facts
        self.labels: Final = () if facts is None else facts.labels
        self.patient: Final = NO_PATIENT if key is None else UNKNOWN if facts is None else KNOWN
        self.base: Final = base
        self.frame: Frame | None = None
        self.kept: dict[str, Reached] = {}


class Sitting:
    """Decides items of one request. What changes meanwhile counts for the next request."""

    __slots__ = ("_at_ms", "_core", "_frame", "_live", "_records", "_scope")

    def __init__(self, core: Core, scope: Scope, at_ms: int) -> None:
        self._core: Final = core
        self._scope: Final = scope
        self._at_ms: Final = at_ms
        self._live: Final = core.engine.live
        self._frame: Frame | None = None
        self._records: Final[dict[str | None, _Record]] = {}

    def rule(self, question: Question, facts: PatientRecord | None = None) -> Ruling:
        """The ruling of one item; ``facts`` as for ``Rulings.rule``."""
        frame = self._frame
        if frame is None or not frame.is_of(question):
            frame = self._frame = self._core.framing.frame(
                question, self._scope, self._core.sight, self._live, self._at_ms
            )
        asked = frame.asked
        if frame.refused is not None or asked is None:
            return self._refused(frame, frame.refused, question)
        try:
            if asked.is_record:
                return self._record(frame, asked, question, facts)
            return self._plain(frame, asked, question)
        except WrongType as exc:
            return self._refused(frame, wrong_type(str(exc)), question)

    def let_go(self, patient: str) -> None:
        """No further question is about this patient."""
        self._records.pop(patient, None)

    # --- plain questions --------------------------------------------------------------------

    def _plain(self, frame: Frame, asked: Askable, question: Question) -> Ruling:
        resource = question.resource
        uid = EntityUid(resource.type, resource.id)
        own: Any = None
        ignored = frame.ignored
        if resource.properties:
            names: list[str] = []
            said = believed("resource", resource.properties, asked.resource, self._scope, (), names)
            if names:
                ignored = (*ignored, *names)
            if said:
                stored = self._live.view.get(uid)
                if stored is None:
                    own = _Own(uid, said)
                else:
                    own = Entity(uid, {**stored.attrs, **said}, stored.parents, stored.tags)
        verdict = self._core.plain(self._decided(frame, asked.action, uid, frame.values, own))
        if verdict.allowed:
            return self._ruling(frame, verdict, ignored, "", is_phi=True)

        def again(values: Values) -> bool:
            return self._decided(frame, asked.action, uid, values, own).allowed

        offered = self._offered(frame, asked, verdict, again)
        return self._ruling(frame, verdict, ignored, "", is_phi=True, offered=offered)

    def _decided(
        self, frame: Frame, action: EntityUid, uid: EntityUid, values: Values, own: Any
    ) -> Allowed:
        weigh, who = self._live.compiled.weigh, frame.who
        whole = weigh(who, action, uid, values, frame.whole, own)
        if not frame.alone:
            return self._core.allowed((whole,))
        return self._core.allowed(
            (whole, *[weigh(who, action, uid, values, view, own) for view in frame.alone])
        )

    # --- records ----------------------------------------------------------------------------

    def _record(
        self, frame: Frame, asked: Askable, question: Question, facts: PatientRecord | None
    ) -> Ruling:
        core, scope = self._core, self._scope
        said = question.resource.properties
        ignored = frame.ignored
        claims: Values = NOTHING_SAID
        labels: tuple[str, ...] | None = None
        if not said.keys() <= PEP_PROPERTIES:
            names: list[str] = []
            others = {n: v for n, v in said.items() if n not in PEP_PROPERTIES}
            labels = row_labels(said, scope, core.shape.categories, names)
            claims = believed(
                "resource", others, asked.resource, scope, core.shape.record_sets, names
            )
            ignored = (*ignored, *names)
        wanted = core.fields.wanted(said, labels)
        key = patient_key(said)
        if key is None and PATIENT in said:
            raise WrongType("resource.patient is not a key")
        refused = self._unanswerable(frame, wanted, key)
        if refused is not None or wanted is None:
            verdict = Verdict(allowed=False, determining=(), failed=(), reason=refused)
            is_phi = wanted is None or wanted.is_phi
            return self._ruling(frame, verdict, ignored, key or "", is_phi=is_phi)
        record = self._known(key, facts, claims)
        if asked.level is None:
            return self._change(frame, asked, record, wanted, ignored)
        return self._view(frame, asked, int(asked.level), record, wanted, ignored)

    def _unanswerable(self, frame: Frame, wanted: Wanted | None, key: str | None) -> Reason | None:
        if wanted is None:
            return CATEGORY_NEEDED
        if wanted.unknown:
            return UNKNOWN_CATEGORY
        listed = self._scope.categories
        if ANY not in listed and not wanted.categories <= listed:
            return OUT_OF_SCOPE
        if key is None and wanted.needs_patient:
            return PATIENT_NEEDED
        if not frame.recipient and frame.action.name in RELEASING:
            return RECIPIENT_NEEDED
        return None

    def _known(self, key: str | None, facts: PatientRecord | None, claims: Values) -> _Record:
        kept = self._records.get(key)
        if kept is not None and kept.facts is facts and not claims:
            return kept
        if facts is not None and key is not None:
            base = {name: value for name, value in facts.known.items() if value is not None}
        else:
            # A patient whom the source does not know is one with whom nobody has any business.
            facts, base = None, dict(self._core.no_patient)
            if key is not None:
                base[PATIENT] = EntityUid("Patient", key)
        if claims:
            return _Record(key, facts, {**base, **claims})
        made = self._records[key] = _Record(key, facts, base)
        return made

    def _view(
        self,
        frame: Frame,
        asked: Askable,
        level: int,
        record: _Record,
        wanted: Wanted,
        ignored: tuple[str, ...],
    ) -> Ruling:
        if record.frame is not frame:
            record.frame, record.kept = frame, {}
        found = self._reach(frame, record, wanted, frame.values, record.kept)
        labels, patient = record.labels, record.patient
        key = (wanted, level, labels, patient, *found.values())
        verdict = self._core.verdicts.get(key)
        if verdict is None:
            made = view_verdict(wanted, labels, level, found, patient, self._core.forbidden)
            verdict = self._core.keep_verdict(key, made)
        if verdict.allowed:
            return self._ruling(frame, verdict, ignored, record.key, is_phi=wanted.is_phi)

        def again(values: Values) -> bool:
            return self._sees(frame, record, wanted, values, level)

        # Of a patient whom the source does not know the same is worked out, and nothing of it told:
        # the time that an answer takes is to tell nothing either.
        offered = self._offered(frame, asked, verdict, again)
        if patient == UNKNOWN:
            offered = ()
        # It does not depend on the patient, so that it tells nothing of her.
        opened = break_glass(frame.standing, verdict.short)
        if opened is not None:
            offered = (*offered, opened)
        return self._ruling(
            frame, verdict, ignored, record.key, is_phi=wanted.is_phi, offered=offered
        )

    def _reach(
        self,
        frame: Frame,
        record: _Record,
        wanted: Wanted,
        values: Values,
        kept: dict[str, Reached],
    ) -> dict[str, Reached]:
        """The level of every label that counts."""
        names = (*wanted.labels, *record.labels) if record.labels else wanted.labels
        found: dict[str, Reached] = {}
        for name in names:
            one = kept.get(name)
            if one is None:
                own = _Own(_ASKED, {**record.base, "category": self._core.labels[name]})
                one = kept[name] = self._ladder(frame, values, own)
            found[name] = one
        return found

    def _ladder(self, frame: Frame, values: Values, own: Any) -> Reached:
        weigh, who, whole = self._live.compiled.weigh, frame.who, frame.whole
        if not frame.alone:
            return self._core.reached(
                (
                    weigh(who, _MASKED, _ASKED, values, whole, own),
                    weigh(who, _SUMMARY, _ASKED, values, whole, own),
                    weigh(who, _FULL, _ASKED, values, whole, own),
                )
            )
        views = (whole, *frame.alone)
        return self._core.reached(
            tuple(
                weigh(who, action, _ASKED, values, view, own)
                for action in LEVEL_ACTIONS
                for view in views
            )
        )

    def _sees(
        self, frame: Frame, record: _Record, wanted: Wanted, values: Values, level: int
    ) -> bool:
        """Whether every label is seen as well as it must be, without asking how well beyond."""
        if wanted.unlabelled:
            return False
        needed = (*wanted.needed(level), *((name, level) for name in record.labels))
        return all(self._reaches(frame, record, values, name, need) for name, need in needed)

    def _reaches(self, frame: Frame, record: _Record, values: Values, name: str, need: int) -> bool:
        own: Any = _Own(_ASKED, {**record.base, "category": self._core.labels[name]})
        weigh, who = self._live.compiled.weigh, frame.who
        is_given = False
        for at in range(len(LEVEL_ACTIONS), 0, -1):
            if at < need and not is_given:
                return False
            action = LEVEL_ACTIONS[at - 1]
            whole = weigh(who, action, _ASKED, values, frame.whole, own)
            if at <= need and whole.forbids:
                return False
            if at >= need and not is_given:
                is_given = (
                    bool(whole.permits)
                    if not frame.alone
                    else any(
                        weigh(who, action, _ASKED, values, view, own).permits
                        for view in frame.alone
                    )
                )
        return is_given

    def _change(
        self,
        frame: Frame,
        asked: Askable,
        record: _Record,
        wanted: Wanted,
        ignored: tuple[str, ...],
    ) -> Ruling:
        found = self._each(frame, asked, record, wanted, frame.values)
        key = (wanted, asked.action, record.labels, record.patient, *found.values())
        verdict = self._core.verdicts.get(key)
        if verdict is None:
            made = change_verdict(wanted, found, record.patient, self._core.forbidden)
            verdict = self._core.keep_verdict(key, made)

        def again(values: Values) -> bool:
            return may_change(wanted, self._each(frame, asked, record, wanted, values))

        offered: tuple[Obligation, ...] = ()
        if not verdict.allowed:
            offered = self._offered(frame, asked, verdict, again)
        if record.patient == UNKNOWN:
            offered = ()
        return self._ruling(
            frame, verdict, ignored, record.key, is_phi=wanted.is_phi, offered=offered
        )

    def _each(
        self, frame: Frame, asked: Askable, record: _Record, wanted: Wanted, values: Values
    ) -> dict[str, Allowed]:
        found: dict[str, Allowed] = {}
        for name in (*wanted.labels, *record.labels):
            if name not in found:
                own = _Own(_ASKED, {**record.base, "category": self._core.labels[name]})
                found[name] = self._decided(frame, asked.action, _ASKED, values, own)
        return found

    # --- what else is said ------------------------------------------------------------------

    def _offered(
        self,
        frame: Frame,
        asked: Askable,
        verdict: Verdict,
        again: Callable[[Values], bool],
    ) -> tuple[Obligation, ...]:
        """What of the context, said otherwise, would have it allowed; each is really decided."""
        core, values = self._core, frame.values
        hints, found = core.hints, []
        granted = frame.who in self._live.compiled.grants.held
        if frame.is_limited and hints.can_help("purpose", verdict, has_grants=granted):
            would = [
                name
                for group in hints.others(frame.standing, frame.purpose)
                if again({**values, "purpose": core.framing.purpose(group[0])})
                for name in group
            ]
            if would:
                found.append(Obligation("purpose", values=tuple(would)))
        if (
            (hints.asks_acr or granted)
            and ACR in asked.context
            and hints.can_help(ACR, verdict, has_grants=granted)
        ):
            now = values.get(ACR, 0)
            would = [
                f"{ACR_URN}{acr}"
                for acr in ACR_VALUES
                if isinstance(now, int) and acr > now and again({**values, ACR: acr})
            ]
            if would:
                found.append(Obligation("step_up", values=tuple(would)))
        return tuple(found)

    def _refused(self, frame: Frame, reason: Reason | None, question: Question) -> Ruling:
        key = patient_key(question.resource.properties) if frame.what == RECORD else None
        verdict = Verdict(allowed=False, determining=(), failed=(), reason=reason or NO_PERMIT)
        return self._ruling(frame, verdict, frame.ignored, key or "", is_phi=True)

    def _ruling(
        self,
        frame: Frame,
        verdict: Verdict,
        ignored: tuple[str, ...],
        patient: str,
        *,
        is_phi: bool,
        offered: tuple[Obligation, ...] = (),
    ) -> Ruling:
        standing, grants = frame.standing, self._live.compiled.grants
        determining = verdict.determining
        return Ruling(
            allowed=verdict.allowed,
            determining=determining,
            failed=verdict.failed,
            levels=verdict.levels,
            fields=verdict.fields,
            obligations=(*verdict.obligations, *offered) if offered else verdict.obligations,
            reason=verdict.reason,
            ignored=ignored,
            policy_set=self._live.hash,
            data_map=self._core.data_map_hash,
            valid_until=frame.valid_until,
            person=standing.person_uid,
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
