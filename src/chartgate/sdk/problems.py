"""What a person's browser or app is answered when the policy, or we, say no: RFC 9457 problems.

The rules kept: the words are those of the policy's reason, never a value; a sign-in that was not
strong enough is told what would do (RFC 9470); what could not be asked is "not now", never "yes".
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chartgate.errors import ChartgateError
from chartgate.sdk.errors import AccessDenied, NotIdentified, QuestionRefused, Unasked, Unavailable

MEDIA: Final = "application/problem+json"
TOLD: Final = (AccessDenied, NotIdentified, QuestionRefused, Unavailable, Unasked)
"""The errors that become an answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer, for any framework."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]


def problem_of(error: ChartgateError) -> Problem:
    """The answer to a request that ended with the error."""
    if isinstance(error, AccessDenied):
        return _denied(error)
    if isinstance(error, NotIdentified):
        return _problem(401, "Sign in", error, extra={}, headers=(("WWW-Authenticate", "Bearer"),))
    if isinstance(error, Unavailable):
        return _problem(
            503,
            "No decision can be had now",
            error,
            extra={},
            headers=(("Retry-After", str(error.retry_after)),),
        )
    return _problem(500, "The application asked wrongly", error, extra={}, headers=())


def _denied(error: AccessDenied) -> Problem:
    decision = error.decision
    extra: dict[str, Any] = {}
    if decision.reason is not None:
        extra["reason"] = decision.reason.code
        if decision.reason.clauses:
            extra["clauses"] = decision.reason.clauses
    if decision.obligations:
        extra["obligations"] = decision.obligations
    if decision.audit_index is not None:
        extra["audit"] = {"log": decision.audit_log, "index": decision.audit_index}
    step_up = decision.obligation("step_up")
    if step_up is None:
        return _problem(403, "Access denied", error, extra=extra, headers=())
    # RFC 9470, section 3.
    challenge = 'Bearer error="insufficient_user_authentication"'
    wanted = " ".join(value for value in step_up.values if _is_quotable(value))
    if wanted:
        challenge += f', acr_values="{wanted}"'
    return _problem(
        401,
        "A stronger sign-in is needed",
        error,
        extra=extra,
        headers=(("WWW-Authenticate", challenge),),
    )


def _is_quotable(value: str) -> bool:
    return bool(value) and all("!" <= c <= "~" and c not in '"\\' for c in value)


def _problem(
    status: int,
    title: str,
    error: ChartgateError,
    *,
    extra: dict[str, Any],
    headers: tuple[tuple[str, str], ...],
) -> Problem:
    told = {"title": title, "status": status, "detail": str(error), "code": error.code, **extra}
    return Problem(
        status,
        msgspec.json.encode(told),
        (("Content-Type", MEDIA), ("Cache-Control", "no-store"), *headers),
    )
