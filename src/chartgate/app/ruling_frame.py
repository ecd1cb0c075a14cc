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
from chartgate.app.ruling import Reason
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
from chartgate.app.ruling_views import Clocked, Seen, Sight
from chartgate.app.standing import Claims, Standing
from chartgate.cedar.entities import Entity
from chartgate.cedar.values import DateTime, Value
from chartgate.model.principal import EntityUid
from chartgate.model.service import Scope
from chartgate.targets.compiled import View
from chartgate.targets.entity_store import EntityStore

RECIPIENT: Final = "recipient"
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
    what: str
    """The resource's type."""
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

    def is_of(self, question: Question) -> bool:
        """Whether the question has the very same subject, action and context: items of a batch
        share those they do not say themselves."""
        if question.resource.type != self.what:
            return False
        subject, action, context = question.subject, question.action, question.context
        if subject is self.subject and action is self.action and context is self.context:
            return True
        # Texts are equal to texts alone; other values of Python's are not always told apart
        # (True is 1), and a claim of the wrong type must not pass for the one before it.
        return (
            not (subject.properties or action.properties)
            and subject == self.subject
            and action == self.action
            and context == self.context
            and all(value.__class__ is str for value in (*context.values(), *self.context.values()))
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
        self._source: Final = source
        self._enums: Final = enums
        self._purposes: Final = {name: EntityUid(PURPOSE, name) for name in claims.wider}
        self._actions: Final = frozenset(name for name, _, _ in askable)
        self._now = DateTime(0)

    def frame(
        self, question: Question, scope: Scope, sight: Sight, live: Live, at_ms: int
    ) -> Frame:
        """The question's frame; it may be refused."""
        subject, action = question.subject, question.action
        name, what, who = action.name, question.resource.type, subject.type
        frame = Frame(subject, action, question.context, what)
        if not scope.admits_action(name) or not scope.admits_type(what):
            frame.refused = OUT_OF_SCOPE
            return frame
        asked = self._askable.get((name, who, what))
        if asked is None:
            # Only what the schema itself names is repeated: anything else is the caller's text.
            frame.refused = (
                not_askable(f"{name} is not asked of such a resource by such a subject")
                if name in self._actions
                else not_askable("the policies know no such action")
            )
            return frame
        frame.asked = asked
        seen = sight.of(EntityUid(who, subject.id), at_ms, live)
        if seen is None:
            frame.refused = UNKNOWN_SUBJECT
            return frame
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
        frame.recipient = recipient
        if recipient and RECIPIENT in asked.context:
            values[RECIPIENT] = asked.context[RECIPIENT](recipient)
        frame.told = {
            name: text
            for name, value in values.items()
            if name != _CLAIM and (text := told(name, value, self._enums)) is not None
        }


def _name_of(claim: Any) -> str:
    """The purpose's name, or Cedar's own form of the entity."""
    if claim.__class__ is dict and claim.get("type") == PURPOSE:
        claim = claim.get("id")
    if claim.__class__ is not str:
        raise WrongType("context.purpose is not the name of a purpose")
    name: str = claim
    return name
