"""What of a question does not depend on the resource: who asks, what for, in which circumstances.

The rules kept: the purpose of use is a claim, limited by role and defaulted from the first live
assignment; the clock and the name of the source are Chartgate's own, whatever a caller says; what
policies see of the context is what was believed, and nothing else.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chartgate.app.engine import Live
from chartgate.app.question import Action, Question, Subject
from chartgate.app.rolebook import RoleBook
from chartgate.app.ruling import Reason, Ruling
from chartgate.app.ruling_claims import OF_PERSON, believed, told
from chartgate.app.ruling_reasons import (
    NO_ROLE,
    OUT_OF_SCOPE,
    PURPOSE_REFUSED,
    UNKNOWN_SUBJECT,
    not_askable,
    wrong_type,
)
from chartgate.app.ruling_shape import NOW, PURPOSE, SOURCE, Askable, WrongType
from chartgate.app.ruling_verdicts import Verdict
from chartgate.app.ruling_views import Clocked, Seen, Sight
from chartgate.app.standing import Claims, Standing
from chartgate.cedar.entities import Entity
from chartgate.cedar.values import DateTime, Value
from chartgate.model.principal import EntityUid
from chartgate.model.service import ANY, Scope
from chartgate.targets.compiled import View
from chartgate.targets.entity_store import EntityStore

RECIPIENT: Final = "recipient"
LONGEST_RECIPIENT: Final = 256
_CLAIM: Final = "purpose"
_READ_APART: Final = frozenset({_CLAIM, RECIPIENT})
_NOBODY: Final = EntityUid("", "")
NOBODY: Final = Standing(_NOBODY, Entity(_NOBODY), Claims(RoleBook({}, {})))
_NO_ENTITIES: Final = EntityStore().view


class Frame(msgspec.Struct, eq=False):
    """One subject, action and context, judged; ``refused`` says why nothing is decided."""

    subject: Subject
    action: Action
    context: dict[str, Any]
    asked: Askable | None = None
    refused: Reason | None = None
    standing: Standing = NOBODY
    who: EntityUid = _NOBODY
    whole: View = _NO_ENTITIES
    alone: tuple[View, ...] = ()
    valid_until: int | None = None
    purpose: str = ""
    claimed: bool = False
    is_limited: bool = False
    """Whether the purpose is limited by role."""
    values: dict[str, Value] = {}
    """The context as policies see it."""
    told: dict[str, str] = {}
    """What of it was believed, for the log."""
    recipient: str = ""
    ignored: tuple[str, ...] = ()

    rulings: dict[Verdict, Ruling] = {}
    """What was answered in this frame, of no patient and nothing ignored."""
    special: dict[tuple[object, ...], Any] = {}
    """How often something was asked of the policies, and then what is left of them for it."""


def share(question: Question, other: Question) -> bool:
    """Whether two questions have the same frame: items of a batch share what they do not say."""
    if question.resource.type != other.resource.type:
        return False
    subject, action, context = question.subject, question.action, question.context
    if subject is other.subject and action is other.action and context is other.context:
        return True
    # Texts are equal to texts alone; other values of Python's are not always told apart (True is
    # 1), and a claim of the wrong type must not pass for the one before it.
    return (
        not (subject.properties or action.properties)
        and subject == other.subject
        and action == other.action
        and context == other.context
        and all(value.__class__ is str for value in (*context.values(), *other.context.values()))
    )


class Framing:
    """Makes frames for one version."""

    def __init__(
        self,
        askable: Mapping[tuple[str, str, str], Askable],
        clocked: Clocked,
        claims: Claims,
        *,
        source: str,
        enums: frozenset[str],
    ) -> None:
        self._askable: Final = askable
        self._clocked: Final = clocked
        # Where no policy asks for the time, a frame of one time serves for another.
        self._is_timeless: Final = not clocked.is_asked
        self._source: Final = source
        self._enums: Final = enums
        self._purposes: Final = {name: EntityUid(PURPOSE, name) for name in claims.wider}
        self._actions: Final = frozenset(name for name, _, _ in askable)
        self._now = DateTime(0)
        self._kept: Final[dict[tuple[str, ...], tuple[Seen, Frame]]] = {}

    def frame(
        self, question: Question, scope: Scope, sight: Sight, live: Live, at_ms: int
    ) -> Frame:
        """The question's frame; it may be refused."""
        subject, action = question.subject, question.action
        name, what, who = action.name, question.resource.type, subject.type
        # This is the hot path: every call that can be spared is, and so is a frame that is there.
        if (name not in scope.actions and ANY not in scope.actions) or (
            what not in scope.resource_types and ANY not in scope.resource_types
        ):
            return Frame(subject, action, question.context, refused=OUT_OF_SCOPE)
        asked = self._askable.get((name, who, what))
        if asked is None:
            # Only what the schema itself names is repeated: anything else is the caller's text.
            refused = (
                not_askable(f"{name} is not asked of such a resource by such a subject")
                if name in self._actions
                else not_askable("the policies know no such action")
            )
            return Frame(subject, action, question.context, refused=refused)
        seen = sight.of(EntityUid(who, subject.id), at_ms, live)
        if seen is None:
            return Frame(subject, action, question.context, asked, UNKNOWN_SUBJECT)
        place = _place(question, name, what, who)
        if place is None or seen.standing.uid in live.compiled.grants.held:
            return self._made(question, asked, seen, scope, live, at_ms)
        kept = self._kept.get(place)
        if kept is not None and kept[0] is seen:
            return kept[1]
        made = self._made(question, asked, seen, scope, live, at_ms)
        if made.refused is None and self._is_timeless:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[place] = (seen, made)
        return made

    def _made(
        self, question: Question, asked: Askable, seen: Seen, scope: Scope, live: Live, at_ms: int
    ) -> Frame:
        frame = Frame(question.subject, question.action, question.context, asked)
        frame.standing, frame.who = seen.standing, seen.standing.uid
        frame.whole, frame.alone = seen.whole, seen.alone
        frame.valid_until = seen.valid_until(self._clocked, live, at_ms)
        try:
            self._read(frame, asked, seen, scope)
        except WrongType as exc:
            frame.refused = wrong_type(str(exc))
        if asked.ours:
            self._say(frame, asked, at_ms)
        return frame

    def purpose(self, name: str) -> EntityUid:
        """The purpose as an entity."""
        return self._purposes[name]

    def _say(self, frame: Frame, asked: Askable, at_ms: int) -> None:
        """What only Chartgate says."""
        if NOW in asked.ours:
            now = self._now
            if now.ms != at_ms:
                now = self._now = DateTime(at_ms)
            frame.values[NOW] = now
        if SOURCE in asked.ours:
            frame.values[SOURCE] = self._source

    def _read(self, frame: Frame, asked: Askable, seen: Seen, scope: Scope) -> None:
        context = frame.context
        is_claim = asked.has_purpose and bool(self._purposes)
        if (
            frame.subject.properties
            or frame.action.properties
            or (context and not (is_claim and len(context) == 1 and _CLAIM in context))
        ):
            ignored: list[str] = []
            try:
                self._believe(frame, asked, seen, scope, ignored)
            finally:
                frame.ignored = tuple(ignored)
        if not is_claim:
            return
        frame.is_limited = True
        claim = context.get(_CLAIM)
        standing = seen.standing
        if claim is None:
            if not standing.default_purpose:
                frame.refused = NO_ROLE
                return
            frame.purpose = standing.default_purpose
        else:
            name = _name_of(claim)
            frame.claimed = True
            # What nobody has heard of is not repeated to the log.
            frame.purpose = name if name in self._purposes else ""
            if name not in standing.purposes:
                frame.refused = PURPOSE_REFUSED if standing.roles else NO_ROLE
                return
        frame.values[_CLAIM] = self._purposes[frame.purpose]

    def _believe(
        self, frame: Frame, asked: Askable, seen: Seen, scope: Scope, ignored: list[str]
    ) -> None:
        """What a caller says of the person and of the circumstances."""
        if frame.subject.properties:
            said = believed(
                "subject", frame.subject.properties, asked.subject, scope, OF_PERSON, ignored
            )
            if said:
                frame.whole, frame.alone = seen.with_attributes(said)
        values, context = frame.values, frame.context
        is_claim = asked.has_purpose and bool(self._purposes)
        if frame.action.properties:
            # Cedar's actions have no attributes: what is said of one is said of the circumstances.
            # Not the purpose, which is claimed in one place.
            reserved = {*asked.ours, _CLAIM} if is_claim else asked.ours
            values.update(
                believed("action", frame.action.properties, asked.context, scope, reserved, ignored)
            )
        others = {name: form for name, form in context.items() if name not in _READ_APART}
        if _CLAIM in context and not is_claim:
            others[_CLAIM] = context[_CLAIM]
        if others:
            values.update(believed("context", others, asked.context, scope, asked.ours, ignored))
        if not is_claim and isinstance(found := values.get(_CLAIM), EntityUid):
            frame.purpose, frame.claimed = found.id, True
        recipient = context.get(RECIPIENT, "")
        if recipient.__class__ is not str:
            raise WrongType("context.recipient is not a string")
        if len(recipient) > LONGEST_RECIPIENT:
            # An accounting of disclosures holds the whole name, or there is no disclosure.
            raise WrongType(f"context.recipient has more than {LONGEST_RECIPIENT} characters")
        # Spaces and dots name nobody.
        frame.recipient = recipient if any(letter.isalnum() for letter in recipient) else ""
        if recipient and RECIPIENT in asked.context:
            values[RECIPIENT] = asked.context[RECIPIENT](recipient)
        frame.told = {
            name: text
            for name, value in values.items()
            if name != _CLAIM and (text := told(name, value, self._enums)) is not None
        }


_MOST_KEPT: Final = 16_384


def _place(question: Question, action: str, what: str, who: str) -> tuple[str, ...] | None:
    """What names a frame in which nothing is said but a purpose; None for any other."""
    context = question.context
    if question.subject.properties or question.action.properties:
        return None
    if not context:
        return (question.subject.id, action, what, who)
    purpose = context.get(_CLAIM)
    if purpose.__class__ is not str or len(context) != 1:
        return None
    return (question.subject.id, action, what, who, purpose)


def _name_of(claim: Any) -> str:
    """The purpose's name, or Cedar's own form of the entity."""
    if claim.__class__ is dict and claim.get("type") == PURPOSE:
        claim = claim.get("id")
    if claim.__class__ is not str:
        raise WrongType("context.purpose is not the name of a purpose")
    name: str = claim
    return name
