"""From the core's rulings to decisions, on the same way that an answer over the wire takes.

The rule kept: an application that decides in its own process and one that asks the service read the same
answer: both are made by ``app.authzen`` and read by ``decision``.
"""

from collections.abc import Sequence

import msgspec

from chartgate.app import authzen
from chartgate.app.authzen_errors import RecordedAt
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.sdk.calling import Reply, refused, told
from chartgate.sdk.decision import (
    REFUSED,
    Decision,
    decision_of,
    denied,
    unavailable,
)
from chartgate.sdk.questions import patient_of


def decision_from(
    put: Question, ruling: Ruling, recorded: RecordedAt | None, epoch: int
) -> Decision:
    """One question, answered."""
    status, data = authzen.answer(ruling, recorded, epoch)
    patient = patient_of(put)
    body = msgspec.json.decode(data)
    if status == 200:
        return decision_of(body, patient=patient)
    reply = Reply(status, body)
    if refused(status):
        return denied(REFUSED, told(reply), patient=patient)
    return unavailable(told(reply), patient=patient)


def decisions_from(
    put: Sequence[Question],
    rulings: Sequence[Ruling],
    recorded: RecordedAt | None,
    epoch: int,
) -> tuple[Decision, ...]:
    """Several, answered one by one."""
    return tuple(
        decision_from(one, ruling, recorded, epoch)
        for one, ruling in zip(put, rulings, strict=False)
    )
