"""One request: its rulings, and the log entries that must be on disk before they are told.

The rules kept: a request is decided by one version at one instant; a batch ends where its semantic
says (AuthZEN 1.0, "Evaluations options"); whose facts are needed is known before anything is decided.
Servers' workers and the embedded SDK run this same code.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from chartgate.app.evaluation_events import Tokens, evaluation_events
from chartgate.app.node_asked import Asked, Caller
from chartgate.app.patient_record import PatientRecord
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.app.rulings import Rulings
from chartgate.model.service import Scope

Facts = Mapping[str, PatientRecord | None]


def patients_of(rulings: Rulings, questions: Sequence[Question]) -> list[str]:
    """Keys of the patients whose facts the questions need, each once."""
    patient_of = rulings.patient_of
    if len(questions) == 1:
        key = patient_of(questions[0])
        return [] if key is None else [key]
    return list(dict.fromkeys(key for q in questions if (key := patient_of(q)) is not None))


def decide(
    rulings: Rulings, asked: Asked, scope: Scope, facts: Facts, at_ms: int
) -> Sequence[Ruling]:
    """The rulings, up to the one that ends the request."""
    questions, last = asked.questions, asked.semantic.last
    if len(questions) == 1:
        [question] = questions
        key = rulings.patient_of(question)
        return (rulings.rule(question, scope, None if key is None else facts.get(key), at_ms),)
    if last is None:
        return rulings.rule_many(questions, scope, facts, at_ms)
    sitting = rulings.sitting(scope, at_ms)
    found: list[Ruling] = []
    for question in questions:
        key = rulings.patient_of(question)
        ruling = sitting.rule(question, None if key is None else facts.get(key))
        found.append(ruling)
        if ruling.allowed is last:
            break
    return found


def entries(
    asked: Asked,
    rulings: Sequence[Ruling],
    caller: Caller,
    *,
    at: str,
    node: str,
    tokens: Tokens,
    names: frozenset[str],
) -> tuple[bytes, ...]:
    """What is to be in the log before the rulings are told."""
    return evaluation_events(
        [*zip(asked.questions, rulings, strict=False)],
        at=at,
        node=node,
        service=caller.service.uid,
        channel=caller.channel,
        request=asked.request,
        tokens=tokens,
        trace=asked.trace,
        names=names,
    )


def releases(rulings: Iterable[Ruling]) -> bool:
    """Whether what is answered may release PHI: then it is on disk first, whatever is configured."""
    return any(r.is_phi or r.patient or r.levels for r in rulings)


class Stamps:
    """Instants as events have them: RFC 3339 in UTC with microseconds; the second is kept."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def of(self, nanoseconds: int) -> str:
        """The text of an instant, in nanoseconds since 1970."""
        second, rest = divmod(nanoseconds, 1_000_000_000)
        if second != self._second:
            whole = datetime.fromtimestamp(second, UTC)
            self._second, self._text = second, whole.strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{rest // 1000:06d}Z"
