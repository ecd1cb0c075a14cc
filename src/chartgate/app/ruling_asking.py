"""Putting a question to the compiled policies: of the whole person, and of each assignment alone.

The rules kept: a record is one entity for each of its labels, known by its attributes and by no
name; what is known of a patient comes from the source, and where the source knows none, she is a
patient with whom nobody has any business.

Whoever is asked about again and again, in one frame, is answered by what is left of the policies for
her (``targets.compiled_special``): the same answer, found without asking each assignment apart.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chartgate.app.engine import Live
from chartgate.app.patient_record import PATIENT, PatientRecord
from chartgate.app.ruling_claims import NOTHING_SAID
from chartgate.app.ruling_core import Core
from chartgate.app.ruling_fields import Wanted
from chartgate.app.ruling_frame import Frame
from chartgate.app.ruling_levels import Allowed, Reached
from chartgate.app.ruling_shape import LEVEL_ACTIONS, Askable
from chartgate.app.ruling_verdicts import KNOWN, NO_PATIENT, UNKNOWN
from chartgate.cedar.values import Value
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import RECORD
from chartgate.targets.compiled_special import Fixed, Slot, Special

_ASKED: Final = EntityUid(RECORD, "asked")
_MASKED, _SUMMARY, _FULL = LEVEL_ACTIONS
_NO_PARENTS: Final[frozenset[EntityUid]] = frozenset()
_CATEGORY: Final = "category"
_PERMITS: Final = frozenset({"permit"})
_FORBIDS: Final = frozenset({"forbid"})
_BOTH: Final = frozenset({"permit", "forbid"})

Tag = str | int
"""What tells the values of a context from those of its frame: nothing, or the one that is another."""

Values = Mapping[str, Value]


class Own(msgspec.Struct):
    """The request's own entity: what ``Entity`` has, made in a tenth of the time."""

    uid: EntityUid
    attrs: Values
    parents: frozenset[EntityUid] = _NO_PARENTS
    tags: Values = NOTHING_SAID


class Record:
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


class Asking:
    """One version in one state, and the records that a request asks about."""

    __slots__ = ("_core", "_live", "_records")

    def __init__(self, core: Core, live: Live) -> None:
        self._core: Final = core
        self._live: Final = live
        self._records: Final[dict[str | None, Record]] = {}

    def let_go(self, patient: str) -> None:
        """No further question is about this patient."""
        self._records.pop(patient, None)

    def decided(
        self,
        frame: Frame,
        action: EntityUid,
        uid: EntityUid,
        values: Values,
        own: Any,
        *,
        label: str = "",
        tag: Tag = "",
    ) -> Allowed:
        """Whether an action is allowed: a permit of one assignment, no forbid of the person."""
        special = self._special(frame, (label, tag, action), (action,), uid, values)
        if special is not None and (found := special.found(uid, values, own)) is not None:
            kept: Allowed | None = special.rest.answers.get(found)
            if kept is None:
                kept = self._core.allowed(special.rest.weighed(found))
                special.rest.keep(found, kept)
            return kept
        weigh, who = self._live.compiled.weigh, frame.who
        whole = weigh(who, action, uid, values, frame.whole, own)
        if not frame.alone:
            return self._core.allowed((whole,))
        return self._core.allowed(
            (whole, *[weigh(who, action, uid, values, view, own) for view in frame.alone])
        )

    def record(self, key: str | None, facts: PatientRecord | None, claims: Values) -> Record:
        """The record of the patient with that key; the same one for as long as it is asked about."""
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
            return Record(key, facts, {**base, **claims})
        made = self._records[key] = Record(key, facts, base)
        return made

    def reach(
        self,
        frame: Frame,
        record: Record,
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
                one = kept[name] = self._ladder(frame, record, values, name, "")
            found[name] = one
        return found

    def _special(
        self,
        frame: Frame,
        key: tuple[object, ...],
        actions: tuple[EntityUid, ...],
        uid: EntityUid,
        values: Values,
    ) -> Special | None:
        """What is left of the policies, where it was asked for often; None: ask all of them.

        ``key`` names, within the frame, the label, the context and the actions.
        """
        kept = frame.special.get(key, 0)
        if kept.__class__ is int:
            if kept < self._core.often:
                frame.special[key] = kept + 1
                return None
            kept = frame.special[key] = self._made(frame, key[0], actions, uid, values)
        if kept is None or frame.who in self._live.compiled.grants.held:
            return None
        special: Special = kept
        return special

    def _made(
        self,
        frame: Frame,
        label: object,
        actions: tuple[EntityUid, ...],
        uid: EntityUid,
        values: Values,
    ) -> Special | None:
        own = (
            Own(uid, {_CATEGORY: self._core.labels[label]})
            if isinstance(label, str) and label
            else None
        )
        fixed = Fixed(
            frame.who, uid.type, uid, values, self._live.view, (frame.whole, *frame.alone), own,
            _CATEGORY if label else "",
        )  # fmt: skip
        # Of the whole person forbids count, of each assignment permits (``ruling_levels``).
        parts = range(1, len(frame.alone) + 1)
        slots = [
            Slot(action, view, _PERMITS if view else _FORBIDS if parts else _BOTH)
            for action in actions
            for view in (0, *parts)
        ]
        return self._core.specialiser.special(fixed, slots)

    def _ladder(self, frame: Frame, record: Record, values: Values, name: str, tag: Tag) -> Reached:
        own: Any = Own(_ASKED, {**record.base, _CATEGORY: self._core.labels[name]})
        special = self._special(frame, (name, tag), LEVEL_ACTIONS, _ASKED, values)
        if special is not None and (found := special.found(_ASKED, values, own)) is not None:
            kept: Reached | None = special.rest.answers.get(found)
            if kept is None:
                kept = self._core.reached(special.rest.weighed(found))
                special.rest.keep(found, kept)
            return kept
        return self._asked_all(frame, values, own)

    def _asked_all(self, frame: Frame, values: Values, own: Any) -> Reached:
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

    def sees(
        self,
        frame: Frame,
        record: Record,
        wanted: Wanted,
        values: Values,
        level: int,
        tag: Tag,
    ) -> bool:
        """Whether every label is seen as well as it must be, without asking how well beyond."""
        if wanted.unlabelled:
            return False
        needed = (*wanted.needed(level), *((name, level) for name in record.labels))
        return all(self._reaches(frame, record, values, name, need, tag) for name, need in needed)

    def _reaches(
        self, frame: Frame, record: Record, values: Values, name: str, need: int, tag: Tag
    ) -> bool:
        if self._special(frame, (name, tag), LEVEL_ACTIONS, _ASKED, values) is not None:
            return self._ladder(frame, record, values, name, tag).level >= need
        own: Any = Own(_ASKED, {**record.base, _CATEGORY: self._core.labels[name]})
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

    def each(
        self,
        frame: Frame,
        asked: Askable,
        record: Record,
        wanted: Wanted,
        values: Values,
        tag: Tag = "",
    ) -> dict[str, Allowed]:
        """Whether an action is allowed, of every label that counts."""
        found: dict[str, Allowed] = {}
        for name in (*wanted.labels, *record.labels):
            if name not in found:
                own = Own(_ASKED, {**record.base, _CATEGORY: self._core.labels[name]})
                found[name] = self.decided(
                    frame, asked.action, _ASKED, values, own, label=name, tag=tag
                )
        return found

    def is_hidden(self, frame: Frame, record: Record, values: Values) -> bool:
        """Whether labels of the patient's hide that there is such a patient."""
        return any(
            not self._ladder(frame, record, values, name, "").level for name in record.labels
        )
