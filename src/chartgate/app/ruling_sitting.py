"""The questions of one request, one after the other: one scope, one time, one version.

The rules kept are those of ``chartgate.app.rulings``. What items share is worked out once: the
person with her purpose and context, a patient's record, the level of a label of it.
"""

from collections.abc import Callable
from typing import Any, Final

from chartgate.app.patient_record import PATIENT, PatientRecord
from chartgate.app.question import Question
from chartgate.app.ruling import Obligation, Reason, Ruling
from chartgate.app.ruling_asking import Asking, Own, Record, Tag, Values
from chartgate.app.ruling_claims import NOTHING_SAID, believed, row_labels
from chartgate.app.ruling_core import Core
from chartgate.app.ruling_fields import Wanted
from chartgate.app.ruling_frame import Frame, share
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
    UNKNOWN,
    Verdict,
    change_verdict,
    may_change,
    view_verdict,
)
from chartgate.cedar.entities import Entity
from chartgate.model.principal import EntityUid
from chartgate.model.service import ANY, PEP_PROPERTIES, Scope
from chartgate.targets.admissible import RECORD

RELEASING: Final = frozenset({"share", "export"})
"""Actions by which something leaves: they name who receives it (45 CFR 164.528)."""


class Sitting:
    """Decides items of one request. What changes meanwhile counts for the next request."""

    __slots__ = ("_asking", "_at_ms", "_core", "_frame", "_last", "_live", "_scope")

    def __init__(self, core: Core, scope: Scope, at_ms: int) -> None:
        self._core: Final = core
        self._scope: Final = scope
        self._at_ms: Final = at_ms
        self._live: Final = core.engine.live
        self._frame: Frame | None = None
        self._last: Question | None = None
        self._asking: Final = Asking(core, self._live)

    def rule(self, question: Question, facts: PatientRecord | None = None) -> Ruling:
        """The ruling of one item; ``facts`` as for ``Rulings.rule``."""
        frame, last = self._frame, self._last
        if frame is None or last is None or not share(question, last):
            frame = self._frame = self._core.framing.frame(
                question, self._scope, self._core.sight, self._live, self._at_ms
            )
        self._last = question
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
        self._asking.let_go(patient)

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
                    own = Own(uid, said)
                else:
                    own = Entity(uid, {**stored.attrs, **said}, stored.parents, stored.tags)
        if frame.alone:
            verdict = self._core.plain(
                self._asking.decided(frame, asked.action, uid, frame.values, own)
            )
        else:
            verdict = self._core.single(
                self._live.compiled.weigh(
                    frame.who, asked.action, uid, frame.values, frame.whole, own
                )
            )
        if verdict.allowed:
            if ignored:
                return self._ruling(frame, verdict, ignored, "", is_phi=asked.is_phi)
            return frame.rulings.get(verdict) or self._kept(frame, asked, verdict)
        return self._denied(frame, asked, uid, own, verdict, ignored)

    def _kept(self, frame: Frame, asked: Askable, verdict: Verdict) -> Ruling:
        """An answer that is the same whatever the resource."""
        made = frame.rulings[verdict] = self._ruling(frame, verdict, (), "", is_phi=asked.is_phi)
        return made

    def _denied(
        self,
        frame: Frame,
        asked: Askable,
        uid: EntityUid,
        own: Any,
        verdict: Verdict,
        ignored: tuple[str, ...],
    ) -> Ruling:
        def again(values: Values, tag: Tag) -> bool:
            return self._asking.decided(frame, asked.action, uid, values, own, tag=tag).allowed

        offered = self._offered(frame, asked, verdict, again)
        return self._ruling(frame, verdict, ignored, "", is_phi=asked.is_phi, offered=offered)

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
        record = self._asking.record(key, facts, claims)
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

    def _view(
        self,
        frame: Frame,
        asked: Askable,
        level: int,
        record: Record,
        wanted: Wanted,
        ignored: tuple[str, ...],
    ) -> Ruling:
        if record.frame is not frame:
            record.frame, record.kept = frame, {}
        found = self._asking.reach(frame, record, wanted, frame.values, record.kept)
        labels, patient = record.labels, record.patient
        key = (wanted, level, labels, patient, *found.values())
        verdict = self._core.verdicts.get(key)
        if verdict is None:
            made = view_verdict(wanted, labels, level, found, patient, self._core.forbidden)
            verdict = self._core.keep_verdict(key, made)
        if verdict.allowed:
            return self._ruling(frame, verdict, ignored, record.key, is_phi=wanted.is_phi)
        return self._less(frame, asked, level, record, wanted, verdict, ignored)

    def _less(
        self,
        frame: Frame,
        asked: Askable,
        level: int,
        record: Record,
        wanted: Wanted,
        verdict: Verdict,
        ignored: tuple[str, ...],
    ) -> Ruling:
        def again(values: Values, tag: Tag) -> bool:
            return self._asking.sees(frame, record, wanted, values, level, tag)

        # Of a patient whom the source does not know the same is worked out, and nothing of it told:
        # the time that an answer takes is to tell nothing either.
        offered = self._offered(frame, asked, verdict, again)
        if record.patient == UNKNOWN:
            offered = ()
        # It does not depend on the patient, so that it tells nothing of her.
        opened = break_glass(frame.standing, verdict.short)
        if opened is not None:
            offered = (*offered, opened)
        return self._ruling(
            frame, verdict, ignored, record.key, is_phi=wanted.is_phi, offered=offered
        )

    def _change(
        self,
        frame: Frame,
        asked: Askable,
        record: Record,
        wanted: Wanted,
        ignored: tuple[str, ...],
    ) -> Ruling:
        found = self._asking.each(frame, asked, record, wanted, frame.values)
        hidden = any(not found[name].allowed for name in record.labels) and self._asking.is_hidden(
            frame, record, frame.values
        )
        key = (wanted, asked.action, record.labels, record.patient, hidden, *found.values())
        verdict = self._core.verdicts.get(key)
        if verdict is None:
            made = change_verdict(
                wanted, found, record.patient, self._core.forbidden, is_hidden=hidden
            )
            verdict = self._core.keep_verdict(key, made)

        def again(values: Values, tag: Tag) -> bool:
            return may_change(wanted, self._asking.each(frame, asked, record, wanted, values, tag))

        offered: tuple[Obligation, ...] = ()
        if not verdict.allowed:
            offered = self._offered(frame, asked, verdict, again)
        if record.patient == UNKNOWN:
            offered = ()
        return self._ruling(
            frame, verdict, ignored, record.key, is_phi=wanted.is_phi, offered=offered
        )

    # --- what else is said ------------------------------------------------------------------

    def _offered(
        self,
        frame: Frame,
        asked: Askable,
        verdict: Verdict,
        again: Callable[[Values, Tag], bool],
    ) -> tuple[Obligation, ...]:
        """What of the context, said otherwise, would have it allowed; each is really decided."""
        core, values = self._core, frame.values
        hints, found = core.hints, []
        granted = frame.who in self._live.compiled.grants.held
        if frame.is_limited and hints.can_help("purpose", verdict, has_grants=granted):
            would = [
                name
                for group in hints.others(
                    frame.standing,
                    frame.whole.ancestors(frame.who),
                    LEVEL_ACTIONS if asked.level is not None else (asked.action,),
                    frame.purpose,
                    lacks=verdict.lacks,
                    has_grants=granted,
                )
                if again({**values, "purpose": core.framing.purpose(group[0])}, group[0])
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
                if isinstance(now, int) and acr > now and again({**values, ACR: acr}, acr)
            ]
            if would:
                found.append(Obligation("step_up", values=tuple(would)))
        return tuple(found)

    def _refused(self, frame: Frame, reason: Reason | None, question: Question) -> Ruling:
        key = (
            patient_key(question.resource.properties) if question.resource.type == RECORD else None
        )
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
            shown=verdict.shown,
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
