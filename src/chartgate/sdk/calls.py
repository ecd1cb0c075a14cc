"""What the blocking and the asynchronous client have in common: questions to calls to decisions.

Each method is a generator of attempts and pauses; the client performs them. Nothing here waits.
"""

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.sdk import asked as request
from chartgate.sdk.cache import AnswerCache
from chartgate.sdk.calling import Call, Calling, calling
from chartgate.sdk.clock import SYSTEM
from chartgate.sdk.decision import (
    REFUSED,
    UNAVAILABLE,
    Decision,
    decision_of,
    decisions_of,
    denied,
)
from chartgate.sdk.errors import Misused, QuestionRefused, Unavailable
from chartgate.sdk.questions import (
    ActionLike,
    ResourceLike,
    SubjectLike,
    action_of,
    patient_of,
    question,
    question_body,
    resource_of,
    subject_of,
)
from chartgate.sdk.searching import Page
from chartgate.sdk.token import token_of

ADDRESS_ENVIRONMENT: Final = "CHARTGATE_URL"
EXECUTE_ALL: Final = "execute_all"
ENDS: Final = {"deny_on_first_deny": False, "permit_on_first_permit": True}
"""Semantic -> the decision after which nothing more is evaluated."""
SEMANTICS: Final = (EXECUTE_ALL, *ENDS)
MOST_AT_ONCE: Final = 1000
"""Questions in one request; more are put in several."""
_PAGE: Final = 1000
_T = TypeVar("_T")

Asking = (
    tuple[SubjectLike, ActionLike, ResourceLike]
    | tuple[SubjectLike, ActionLike, ResourceLike, Mapping[str, Any] | None]
)
"""One question of several: subject, action, resource and, where there is any, context."""


class Calls:
    """The settings of a client, and the plan of each of its calls."""

    def __init__(
        self,
        url: str | None,
        token: str | None,
        token_file: str | Path | None,
        timeout: float,
        strict: bool,
        cache: float | None,
    ) -> None:
        self.address: Final = url or os.environ.get(ADDRESS_ENVIRONMENT, "")
        if not self.address:
            raise Misused(
                f"where is the decision service? Say its url, or set {ADDRESS_ENVIRONMENT}"
            )
        if timeout <= 0:
            raise Misused("a timeout is more than 0 seconds")
        self._token: Final = token_of(token, token_file)
        self._seconds: Final = timeout
        self._strict: Final = strict
        self._cache: Final = None if cache is None else AnswerCache(max_age=cache)

    def decide(
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None,
        seconds: float | None,
        strict: bool | None,
    ) -> Calling[Decision]:
        """One question to one decision."""
        put = question(subject, action, resource, context)
        if self._cache is not None:
            known = self._cache.find(put, SYSTEM.now())
            if known is not None:
                request.mark(known)
                return known
        decision: Decision
        try:
            body = yield from self._call("evaluation", question_body(put), seconds)
            decision = decision_of(body, patient=patient_of(put))
        except (Unavailable, QuestionRefused) as exc:
            decision = _no(exc, put)
        if self._is_strict(strict) and not decision.is_answer:
            decision.require()
        if self._cache is not None:
            self._cache.answered(put, decision, SYSTEM.now(), SYSTEM.at())
        request.mark(decision)
        return decision

    def decide_many(
        self,
        questions: Iterable[Asking],
        semantic: str,
        seconds: float | None,
        strict: bool | None,
    ) -> Calling[tuple[Decision, ...]]:
        """Several questions to as many decisions, or fewer where the semantic ends early."""
        if semantic not in SEMANTICS:
            raise Misused(f"the semantics are {', '.join(SEMANTICS)}")
        put = tuple(question(*one) for one in questions)
        answered: list[Decision] = []
        for start in range(0, len(put), MOST_AT_ONCE):
            part = put[start : start + MOST_AT_ONCE]
            found = yield from self._batch(part, semantic, seconds, self._is_strict(strict))
            answered.extend(found)
            if len(found) < len(part) or found[-1].allowed is ENDS.get(semantic):
                break
        return tuple(answered)

    def _batch(
        self, put: tuple[Question, ...], semantic: str, seconds: float | None, strict: bool
    ) -> Calling[tuple[Decision, ...]]:
        body = {
            "evaluations": [question_body(one) for one in put],
            "options": {"evaluations_semantic": semantic},
        }
        decisions: tuple[Decision, ...] | None
        try:
            told = yield from self._call("evaluations", body, seconds)
            decisions = decisions_of(told, map(patient_of, put))
            if decisions is None or (semantic == EXECUTE_ALL and len(decisions) < len(put)):
                raise Unavailable("the answers could not be understood")
        except (Unavailable, QuestionRefused) as exc:
            if strict:
                raise
            decisions = tuple(_no(exc, one) for one in put)
        request.mark(*decisions)
        return decisions

    def search(self, op: str, body: dict[str, Any], token: str) -> Calling[Any]:
        """One page of a search."""
        page: dict[str, Any] = {"limit": _PAGE, **({"token": token} if token else {})}
        found = yield from self._call(op, {**body, "page": page}, None)
        request.mark()
        return found

    @staticmethod
    def next_token(page: Page, before: str) -> str:
        """The token of the page after this one."""
        if page.next_token and page.next_token == before:
            raise Unavailable("the search answers the same page again")
        return page.next_token

    @staticmethod
    def subject(found: Mapping[str, Any]) -> Subject:
        """One result."""
        return _understood(subject_of, found)

    @staticmethod
    def resource(found: Mapping[str, Any]) -> Resource:
        """One result."""
        return _understood(resource_of, found)

    @staticmethod
    def action(found: Mapping[str, Any]) -> Action:
        """One result."""
        return _understood(action_of, found)

    def _call(self, op: str, body: dict[str, Any], seconds: float | None) -> Calling[Any]:
        served = request.current()
        call = Call(op, body, secrets.token_hex(8), served.trace if served is not None else "")
        return (
            yield from calling(
                SYSTEM, call, self._token, self._seconds if seconds is None else seconds
            )
        )

    def _is_strict(self, asked: bool | None) -> bool:
        return self._strict if asked is None else asked


def _no(exc: Unavailable | QuestionRefused, put: Question) -> Decision:
    code = UNAVAILABLE if isinstance(exc, Unavailable) else REFUSED
    return denied(code, str(exc), patient=patient_of(put))


def _understood(read: Callable[[Mapping[str, Any]], _T], found: Mapping[str, Any]) -> _T:
    try:
        return read(found)
    except Misused:
        raise Unavailable("the results of the search could not be understood") from None
