"""One request for decisions, from the bytes of its body to the bytes of its answer.

The rules kept: decide, record, act: an answer is made only out of what the node has recorded; a node
that may not decide, or cannot record, answers 503 and never a decision (fail closed); a fault of ours
is answered 500 without a word of what was asked; searches are few at once, and beyond them 503.
Shared by the HTTP door and the Unix door.
"""

import itertools
import logging
import secrets
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final, Protocol

from chartgate.adapters.decision_metrics import Metrics
from chartgate.app.authzen import answer, answers, parse_evaluation
from chartgate.app.authzen_batch import parse_evaluations
from chartgate.app.authzen_errors import BadRequest, RecordedAt, error_body, refused_body
from chartgate.app.authzen_paging import Pager
from chartgate.app.authzen_search import (
    parse_action_search,
    parse_resource_search,
    parse_subject_search,
    search_answer,
)
from chartgate.app.node_asked import Answered, Asked, Caller, NodeNotReady, Readiness, Semantic
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.errors import LogUnavailable, Refused
from chartgate.model.service import Service

EVALUATION: Final = "evaluation"
EVALUATIONS: Final = "evaluations"

SEARCHES: Final = 4
"""Searches at once: a page is thousands of questions, and whoever decides shares the time with it …"""
SEARCHES_OF_ONE: Final = 2
"""… and of one service."""

UNREADY: Final = error_body("not_ready", "this node may not decide now; ask another one")
UNRECORDED: Final = error_body("log_unavailable", "the decision could not be recorded")
OVERLOADED: Final = error_body("overloaded", "too many requests are waiting; try again later")
FAILED: Final = error_body("failed", "the service failed; nothing was decided")

_logger = logging.getLogger(__name__)


class Answerer(Protocol):
    """What is asked of a ``Node``; its exceptions are the node's."""

    @property
    def epoch(self) -> int: ...

    def is_ready(self) -> Readiness: ...

    def measures(self) -> Mapping[str, float]: ...

    def service_of_token(self, token: str) -> Service: ...

    def service_of_certificate(self, fingerprint: str, subject: str = "") -> Service: ...

    def service_named(self, name: str) -> Service: ...

    async def refuse_caller(
        self, reason: str, *, channel: str, client: str = "", service: str = ""
    ) -> None: ...

    async def answer(self, asked: Asked, caller: Caller) -> Answered: ...

    async def search(
        self, sought: Any, caller: Caller, *, request: str, trace: str = ""
    ) -> Any: ...


class Desk:
    """Answers for one node."""

    def __init__(self, node: Answerer, metrics: Metrics, pager: Pager) -> None:
        self.node: Final = node
        self.metrics: Final = metrics
        self._pager: Final = pager
        self._stages = metrics.stages
        # Names a request in the log; the caller's own name for it could be anything.
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._searching: dict[str, int] = {}

    async def ask(
        self, operation: str, body: bytes, caller: Caller, trace: str = ""
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Raises nothing but ``CancelledError``."""
        try:
            if operation == EVALUATION:
                return await self._evaluation(body, caller, trace)
            if operation == EVALUATIONS:
                return await self._evaluations(body, caller, trace)
            return await self._search(operation, body, caller, trace)
        except BadRequest as exc:
            return exc.status, refused_body(exc)
        except NodeNotReady:
            self.metrics.count("refused_unready")
            return 503, UNREADY
        except LogUnavailable:
            self.metrics.count("refused_unready")
            return 503, UNRECORDED
        except Refused as exc:
            return 403, refused_body(exc)
        except Exception as exc:  # noqa: BLE001  whatever it is, nobody is let in by it
            # only the kind and the place: its words could hold what was asked
            _logger.error("a request failed: %s", _kind(exc))  # noqa: TRY400
            return 500, FAILED

    def _name(self) -> str:
        return f"{self._prefix}{next(self._numbers):08x}"

    async def _evaluation(self, body: bytes, caller: Caller, trace: str) -> tuple[int, bytes]:
        began = perf_counter()
        question = parse_evaluation(body)
        self._stages["parse"].add(perf_counter() - began)
        return await self._one(question, caller, trace)

    async def _one(self, question: Question, caller: Caller, trace: str) -> tuple[int, bytes]:
        answered = await self._answered((question,), caller, trace, Semantic.EXECUTE_ALL)
        (ruling,) = answered.rulings
        self._count(question, ruling, caller)
        return answer(ruling, RecordedAt(answered.log, answered.index), answered.epoch)

    async def _evaluations(self, body: bytes, caller: Caller, trace: str) -> tuple[int, bytes]:
        began = perf_counter()
        asked = parse_evaluations(body)
        self._stages["parse"].add(perf_counter() - began)
        if isinstance(asked, Question):
            return await self._one(asked, caller, trace)
        questions = asked.questions
        if not questions:
            return 200, answers(asked.placed(()))  # all of them are bad: nothing is decided
        answered = await self._answered(questions, caller, trace, Semantic(asked.semantic))
        for question, ruling in zip(questions, answered.rulings, strict=False):
            self._count(question, ruling, caller)
        at = RecordedAt(answered.log, answered.index)
        return 200, answers(asked.placed(answered.rulings), at, answered.epoch)

    async def _answered(
        self, questions: tuple[Question, ...], caller: Caller, trace: str, semantic: Semantic
    ) -> Answered:
        began = perf_counter()
        # of a traceparent the log keeps the trace id
        asked = Asked(questions, self._name(), semantic, trace[3:35])
        answered = await self.node.answer(asked, caller)
        record = answered.record_seconds
        self._stages["decide"].add(perf_counter() - began - record)
        self._stages["record"].add(record)
        self.metrics.gauges["log_entries"] = answered.index
        return answered

    def _count(self, question: Question, ruling: Ruling, caller: Caller) -> None:
        outcome = "allow" if ruling.allowed else "deny"
        # A name that the policies do not know is the caller's own text. What was found of a patient
        # must make no difference here.
        code = "" if ruling.reason is None else ruling.reason.code
        action = "other" if code in _UNCHECKED else question.action.name
        self.metrics.decided(outcome, action, caller.service.name)

    async def _search(
        self, operation: str, body: bytes, caller: Caller, trace: str
    ) -> tuple[int, bytes]:
        sought = _SEARCHES[operation](body, self._pager, caller.service.uid)
        uid, under_way = caller.service.uid, self._searching
        own = under_way.get(uid, 0)
        if own >= SEARCHES_OF_ONE or sum(under_way.values()) >= SEARCHES:
            self.metrics.count("refused_overload")
            return 503, OVERLOADED
        under_way[uid] = own + 1
        try:
            found = await self.node.search(sought, caller, request=self._name(), trace=trace[3:35])
        finally:
            left = under_way[uid] - 1
            if left:
                under_way[uid] = left
            else:
                del under_way[uid]
        self.metrics.gauges["log_entries"] = found.index
        return 200, search_answer(
            sought,
            found.found,
            self._pager,
            policy_set=found.policy_set,
            audit=RecordedAt(found.log, found.index),
            epoch=found.epoch,
        )


_UNCHECKED: Final = frozenset({"not_askable", "out_of_scope"})
"""Reasons of denials that may come before anybody looked whether the policies know the action."""

_SEARCHES: Final = {
    "search/subject": parse_subject_search,
    "search/resource": parse_resource_search,
    "search/action": parse_action_search,
}


def _kind(exc: BaseException) -> str:
    at = exc.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{at.tb_frame.f_globals.get('__name__', '')}:{at.tb_lineno}" if at is not None else ""
    return f"{type(exc).__name__} in {where}"
