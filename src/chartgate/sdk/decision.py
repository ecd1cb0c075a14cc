"""The answer to a question, as an application uses it.

The rule kept: a ``Decision`` that says yes is made in one place only, from an answer that was
complete and well-formed. Everything else, an answer with a hole, a word for a level that we do not
know, no answer at all, is a ``Decision`` that says no.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from chartgate.app.ruling import Obligation, Reason
from chartgate.model.disclosure import Disclosure
from chartgate.sdk.errors import AccessDenied, QuestionRefused, Unavailable

UNAVAILABLE: Final = "unavailable"
REFUSED: Final = "question_refused"

_LEVELS: Final = {level.label: level for level in Disclosure}


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, how much of what, and why not.

    Truth-tested it is ``allowed``. ``levels`` (by category) and ``fields`` (by the names that were
    asked) say how much may be shown, also where ``allowed`` is false: full only is a yes to ``view``.
    """

    allowed: bool
    levels: Mapping[str, Disclosure] = field(default_factory=dict)
    fields: Mapping[str, Disclosure] = field(default_factory=dict)
    obligations: tuple[Obligation, ...] = ()
    reason: Reason | None = None
    """On a no: words a person can act on, and the regulation they rest on."""
    policies: tuple[str, ...] = ()
    """Ids of the policies and grants that made the answer."""
    policy_set: str = ""
    data_map: str = ""
    audit_log: str = ""
    audit_index: int | None = None
    """Which entry of the log holds the decision."""
    valid_until: datetime | None = None
    """From then on the clock alone could change the answer."""
    epoch: int = 0
    """Grows with every change of people, assignments and grants."""
    ignored: tuple[str, ...] = ()
    """What this application said and was not believed: its account may not assert it."""
    errors: tuple[str, ...] = ()
    """Ids of policies that could not be evaluated."""
    patient: str | None = field(default=None, repr=False)
    """Whose record was asked about: objects of somebody else's are not shown with this decision."""

    def __bool__(self) -> bool:
        return self.allowed

    def level(self, *categories: str) -> Disclosure:
        """How much may be shown of what carries all of these categories: the lowest counts.

        Withheld when one was not asked about, or none is named.
        """
        return lowest(self.levels.get(name, Disclosure.WITHHELD) for name in categories)

    @property
    def discloses(self) -> bool:
        """Whether anything that was asked about may be shown at all, be it masked."""
        return self.allowed or any((*self.levels.values(), *self.fields.values()))

    @property
    def is_answer(self) -> bool:
        """Whether the policy said so, rather than a failure on the way to it."""
        return self.reason is None or self.reason.code not in (UNAVAILABLE, REFUSED)

    def obligation(self, kind: str) -> Obligation | None:
        """The obligation of that type: ``mask``, ``step_up``, ``purpose``, ``break_glass``."""
        return next((one for one in self.obligations if one.type == kind), None)

    def require(self, *, partial: bool = False, essential: Iterable[str] = ()) -> "Decision":
        """The decision, if it says yes; else raises ``AccessDenied``, or what kept us from asking.

        ``partial``: a no that still discloses something is enough, for whoever shows by ``disclose``;
        something of the ``essential`` categories, if any are named.
        """
        if self.allowed or (partial and self._is_enough(tuple(essential))):
            return self
        if self.reason is not None and self.reason.code == UNAVAILABLE:
            raise Unavailable(self.reason.text)
        if self.reason is not None and self.reason.code == REFUSED:
            raise QuestionRefused(self.reason.text)
        raise AccessDenied(self)

    def _is_enough(self, essential: tuple[str, ...]) -> bool:
        shown = {**self.levels, **self.fields}
        return any(shown.get(name) for name in essential) if essential else self.discloses


def lowest(levels: Iterable[Disclosure]) -> Disclosure:
    """The level of a cell with several labels; without one it is withheld."""
    return min(levels, default=Disclosure.WITHHELD)


def denied(code: str, text: str, *, patient: str | None = None) -> Decision:
    """A no that no policy made."""
    return Decision(allowed=False, reason=Reason(code, text), patient=patient)


def unavailable(text: str, *, patient: str | None = None) -> Decision:
    """No answer: no."""
    return denied(UNAVAILABLE, text, patient=patient)


class _Audit(msgspec.Struct, frozen=True):
    log: str = ""
    index: int | None = None


class _Fault(msgspec.Struct, frozen=True):
    message: str = ""


class _Context(msgspec.Struct, frozen=True):
    policies: tuple[str, ...] = ()
    policy_set: str = ""
    data_map: str = ""
    audit: _Audit = _Audit()
    levels: dict[str, str] = {}
    fields: dict[str, str] = {}
    obligations: tuple[Obligation, ...] = ()
    reason: Reason | None = None
    ignored: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    valid_until: datetime | None = None
    epoch: int = 0
    error: _Fault | None = None
    """Of an item of a batch that was no question."""


class _Answer(msgspec.Struct, frozen=True):
    decision: bool
    context: _Context = _Context()


class _Answers(msgspec.Struct, frozen=True):
    evaluations: tuple[_Answer, ...]


def decision_of(body: Any, *, patient: str | None = None) -> Decision:
    """From the JSON value that the service answered; a malformed one is a no."""
    try:
        return _decision(msgspec.convert(body, _Answer), patient)
    except (msgspec.ValidationError, KeyError):
        return unavailable("the answer could not be understood", patient=patient)


def decisions_of(body: Any, patients: Iterable[str | None]) -> tuple[Decision, ...] | None:
    """From the answer to a batch, in order; ``None`` when it could not be understood.

    There may be fewer than were asked: the semantic ends a batch early.
    """
    asked = tuple(patients)
    try:
        answers = msgspec.convert(body, _Answers).evaluations
        if not answers or len(answers) > len(asked):
            return None
        return tuple(_decision(a, p) for a, p in zip(answers, asked, strict=False))
    except (msgspec.ValidationError, KeyError):
        return None


def _decision(answer: _Answer, patient: str | None) -> Decision:
    told = answer.context
    until = told.valid_until
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return Decision(
        allowed=answer.decision,
        levels=levels_of(told.levels),
        fields=levels_of(told.fields),
        obligations=told.obligations,
        reason=None if answer.decision else _why(told),
        policies=told.policies,
        policy_set=told.policy_set,
        data_map=told.data_map,
        audit_log=told.audit.log,
        audit_index=told.audit.index,
        valid_until=until,
        epoch=told.epoch,
        ignored=told.ignored,
        errors=told.errors,
        patient=patient,
    )


def _why(told: _Context) -> Reason:
    if told.error is not None:
        return Reason(REFUSED, f"the decision service refused the question: {told.error.message}")
    return told.reason or Reason("not_allowed", "access denied")


def levels_of(words: Mapping[str, str]) -> dict[str, Disclosure]:
    """Levels from their words; raises ``KeyError`` for a word we do not know."""
    return {name: _LEVELS[word] for name, word in words.items()}
