"""What of a question does not depend on the resource: who asks, what for, in which circumstances.

The rules kept: the purpose of use is a claim, limited by role and defaulted from the first live
assignment; the clock and the name of the source are Chartgate's own, whatever a caller says; what
policies see of the context is what was believed, and nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from chartgate.app.question import Action, Question, Subject
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
from chartgate.app.ruling_shape import PURPOSE, Askable, WrongType
from chartgate.app.ruling_views import Seen
from chartgate.cedar.values import DateTime, Value
from chartgate.model.principal import EntityUid
from chartgate.model.service import Scope
from chartgate.targets.compiled import View

RECIPIENT: Final = "recipient"


class Frame:
    """One subject, action and context, judged; ``refused`` says why nothing is decided."""

    __slots__ = (
        "action", "alone", "asked", "claimed", "context", "ignored", "purpose", "recipient",
        "refused", "seen", "subject", "told", "values", "what", "whole",
    )  # fmt: skip

    def __init__(self, question: Question) -> None:
        self.subject: Subject = question.subject
        self.action: Action = question.action
        self.context: Mapping[str, Any] = question.context
        self.what: str = question.resource.type
        self.asked: Askable | None = None
        self.seen: Seen | None = None
        self.purpose = ""
        self.claimed = False
        self.values: dict[str, Value] = {}
        """The context as policies see it."""
        self.told: dict[str, str] = {}
        """What of it was believed, for the log."""
        self.recipient = ""
        self.ignored: tuple[str, ...] = ()
        self.refused: Reason | None = None
        self.whole: View | None = None
        self.alone: tuple[View, ...] = ()

    def is_of(self, question: Question) -> bool:
        """Whether the question has the very same subject, action and context: items of a batch
        share those they do not say themselves."""
        return (
            question.subject is self.subject
            and question.action is self.action
            and question.context is self.context
            and question.resource.type == self.what
        )


class Framing:
    """Makes frames for one version."""

    def __init__(
        self,
        askable: Mapping[tuple[str, str, str], Askable],
        *,
        source: str,
        enums: frozenset[str],
        purposes: Iterable[str],
    ) -> None:
        self._askable: Final = askable
        self._source: Final = source
        self._enums: Final = enums
        self._purposes: Final = {name: EntityUid(PURPOSE, name) for name in purposes}
        self._actions: Final = frozenset(name for name, _, _ in askable)

    def refusal(self, question: Question, scope: Scope) -> Reason | None:
        """Why the question may not be asked at all, by this service or by anybody."""
        name, what = question.action.name, question.resource.type
        if not scope.admits_action(name) or not scope.admits_type(what):
            return OUT_OF_SCOPE
        if (name, question.subject.type, what) in self._askable:
            return None
        # Only what the schema itself names is repeated: anything else is the caller's text.
        if name not in self._actions:
            return not_askable("the policies know no such action")
        return not_askable(f"{name} is not asked of such a resource by such a subject")

    def begin(self, question: Question, scope: Scope) -> Frame:
        """The frame, still without the person."""
        frame = Frame(question)
        frame.refused = self.refusal(question, scope)
        if frame.refused is None:
            frame.asked = self._askable[
                question.action.name, question.subject.type, question.resource.type
            ]
        return frame

    def finish(self, frame: Frame, seen: Seen | None, scope: Scope, at_ms: int) -> Frame:
        """The frame with the person, her purpose and the context; or refused."""
        if seen is None:
            frame.refused = UNKNOWN_SUBJECT
            return frame
        frame.seen = seen
        frame.whole, frame.alone = seen.whole, seen.alone
        ignored: list[str] = []
        try:
            self._read(frame, seen, scope, ignored)
        except WrongType as exc:
            frame.refused = wrong_type(str(exc))
        frame.ignored = tuple(ignored)
        asked = frame.asked
        assert asked is not None
        if asked.has_now:
            frame.values["now"] = DateTime(at_ms)
        if asked.has_source:
            frame.values["source"] = self._source
        return frame

    def _read(self, frame: Frame, seen: Seen, scope: Scope, ignored: list[str]) -> None:
        asked = frame.asked
        assert asked is not None
        if frame.subject.properties:
            said = believed(
                "subject", frame.subject.properties, asked.subject, scope, OF_PERSON, ignored
            )
            if said:
                frame.whole, frame.alone = seen.with_attributes(said)
        ours = _ours(asked)
        values = frame.values
        if frame.action.properties:
            values.update(
                believed(
                    "action", frame.action.properties, asked.context, scope,
                    {*ours, "purpose"} if asked.has_purpose else ours, ignored,
                )
            )  # fmt: skip
        context = frame.context
        if RECIPIENT in context:
            recipient = context[RECIPIENT]
            if recipient.__class__ is not str:
                raise WrongType("context.recipient is not a string")
            frame.recipient = recipient
        if context.keys() - _ALWAYS:
            others = {name: form for name, form in context.items() if name not in _ALWAYS}
            values.update(believed("context", others, asked.context, scope, ours, ignored))
        if frame.recipient and RECIPIENT in asked.context:
            values[RECIPIENT] = asked.context[RECIPIENT](frame.recipient)
        frame.told = {
            name: text
            for name, value in values.items()
            if (text := told(name, value, self._enums)) is not None
        }
        self._claim(frame, asked, seen, scope, ignored)

    def _claim(
        self, frame: Frame, asked: Askable, seen: Seen, scope: Scope, ignored: list[str]
    ) -> None:
        """The purpose: claimed, or the default of the first live assignment."""
        claim = frame.context.get("purpose")
        if not asked.has_purpose or not self._purposes:
            if claim is not None:
                said = believed("context", {"purpose": claim}, asked.context, scope, (), ignored)
                frame.values.update(said)
                purpose = said.get("purpose")
                if isinstance(purpose, EntityUid):
                    frame.purpose, frame.claimed = purpose.id, True
            return
        if claim.__class__ is dict:
            # Cedar's own form of an entity.
            claim = claim.get("id") if claim.get("type") == PURPOSE else None
            if claim is None:
                raise WrongType("context.purpose is not a purpose")
        standing = seen.standing
        if claim is None:
            frame.purpose = standing.default_purpose
            if not frame.purpose:
                frame.refused = NO_ROLE
                return
        elif claim.__class__ is not str:
            raise WrongType("context.purpose is not a name")
        else:
            frame.claimed = True
            if claim not in standing.purposes:
                # A purpose that nobody has heard of is not repeated to the log.
                frame.purpose = claim if claim in self._purposes else ""
                frame.refused = PURPOSE_REFUSED if standing.roles else NO_ROLE
                return
            frame.purpose = claim
        frame.values["purpose"] = self.purpose(frame.purpose)

    def purpose(self, name: str) -> EntityUid:
        """The purpose as an entity."""
        return self._purposes[name]


_ALWAYS: Final = frozenset({"purpose", RECIPIENT})


def _ours(asked: Askable) -> frozenset[str]:
    """What only Chartgate says of the circumstances."""
    return frozenset(
        name for name, is_ours in (("now", asked.has_now), ("source", asked.has_source)) if is_ours
    )
