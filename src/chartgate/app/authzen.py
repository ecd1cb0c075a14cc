"""OpenID AuthZEN Authorization API 1.0 on the wire: one question, and what is answered.

The rules kept (AuthZEN 1.0, "Access Evaluation API"): a field that is missing or ill-typed makes the
request 400, a field that is not known is ignored, a denial is 200. What Chartgate has to say beyond
the boolean rides in the answer's ``context``; nothing empty is in it.

Bytes in, values out, and back. Nothing here decides anything.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from chartgate.app.authzen_batch import BadItem
from chartgate.app.authzen_errors import RecordedAt, error_body
from chartgate.app.authzen_read import (
    check_no_nul,
    check_question,
    check_text,
    decoded,
    may_hold_nul,
)
from chartgate.app.question import Question
from chartgate.app.ruling import Obligation, Reason, Ruling

NO_ANSWER: Final = {"out_of_scope": 403, "stale": 503}
"""Code of a reason -> status: the service may not ask this, or this node may not answer."""


class Context(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is said of a decision beside the boolean."""

    policies: tuple[str, ...] = ()
    """Ids of the policies and grants that made it."""
    policy_set: str = ""
    """Hash of the policies that decided."""
    data_map: str = ""
    """Hash of the data map that says which column is of which category."""
    audit: RecordedAt | None = None
    """Where the audit log holds the decision."""
    levels: dict[str, str] = {}
    """Category -> full, summary, masked or withheld."""
    fields: dict[str, str] = {}
    """Field asked about -> level."""
    obligations: tuple[Obligation, ...] = ()
    """What whoever enforces has to do, or what would change the answer."""
    reason: Reason | None = None
    """On a denial: why, in words a person can act on."""
    ignored: tuple[str, ...] = ()
    """Names of properties that the service is not believed."""
    errors: tuple[str, ...] = ()
    """Ids of policies that could not be evaluated."""
    valid_until: str = ""
    """From then on the answer could be another one (RFC 3339)."""
    epoch: int | None = None
    """How many changes of grants and people the node had seen."""
    error: BadItem | None = None
    """Of an item of a batch that is no question."""


class Decision(msgspec.Struct, frozen=True):
    """An answer."""

    decision: bool
    context: Context


class Decisions(msgspec.Struct, frozen=True):
    """The answers to a batch, in its order."""

    evaluations: tuple[Decision, ...]


_question: Final = msgspec.json.Decoder(Question)
_encode: Final = msgspec.json.Encoder().encode


def parse_evaluation(body: bytes) -> Question:
    """The one question of ``/access/v1/evaluation``; raises ``BadRequest``."""
    question = decoded(_question, body)
    check_question(question)
    check_text(body, question)
    if may_hold_nul(body):
        check_no_nul(question)
    return question


def answer(
    ruling: Ruling, audit: RecordedAt | None = None, epoch: int | None = None
) -> tuple[int, bytes]:
    """Status and body of the answer to one question."""
    reason = ruling.reason
    if reason is not None and reason.code in NO_ANSWER:
        return NO_ANSWER[reason.code], error_body(reason.code, reason.text, audit)
    return 200, _encode(_decision(ruling, audit, epoch))


def answers(
    rulings: Sequence[Ruling | BadItem],
    audit: RecordedAt | Sequence[RecordedAt | None] | None = None,
    epoch: int | None = None,
) -> bytes:
    """Body of the answer to a batch, as far as it was decided.

    ``audit``: the entry that holds all of them, or one for each where they needed several.
    """
    if audit is None or isinstance(audit, RecordedAt):
        decided = [_decision(ruling, audit, epoch) for ruling in rulings]
    else:
        decided = [_decision(r, at, epoch) for r, at in zip(rulings, audit, strict=True)]
    return _encode(Decisions(tuple(decided)))


def _decision(ruling: Ruling | BadItem, audit: RecordedAt | None, epoch: int | None) -> Decision:
    if isinstance(ruling, BadItem):
        return Decision(False, Context(error=ruling))
    until = ruling.valid_until
    hides = _may_not_know(ruling.reason)
    return Decision(
        ruling.allowed,
        Context(
            () if hides else ruling.determining,
            ruling.policy_set,
            ruling.data_map,
            audit,
            ruling.levels,
            ruling.fields,
            ruling.obligations,
            ruling.reason,
            ruling.ignored,
            () if hides else ruling.failed,
            "" if until is None else instant(until),
            epoch,
        ),
    )


def _may_not_know(reason: Reason | None) -> bool:
    """Whether even the policy that held, or failed, would tell that there is such a patient."""
    return reason is not None and reason.code == "not_allowed"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = 253_402_300_799_999


@lru_cache(maxsize=4096)
def instant(at_ms: int) -> str:
    """RFC 3339, in UTC, to the millisecond; what lies beyond the year 9999 is its end."""
    at = _EPOCH + timedelta(milliseconds=min(at_ms, _LAST))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
