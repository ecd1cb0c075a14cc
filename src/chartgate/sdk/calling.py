"""How often, how long and with which token a question is put: the plan of one call, without I/O.

The rules kept: a call ends at its deadline, whatever the other side does. It is put again only when
no answer came or the service said "not now" (503): a decision is idempotent, each attempt that
arrives is recorded. A token that is no longer taken (401) is read anew, once: tokens are rotated
with two valid at a time. There is no other way to a second attempt.
"""

import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from chartgate.sdk.errors import Misused, QuestionRefused, Unavailable
from chartgate.sdk.token import Token

DEADLINE: Final = 2.0
"""Seconds for one call with all of its attempts."""
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_REFUSED: Final = frozenset((400, 401, 403, 404, 413, 415, 422))


CURES: Final = {
    401: "was its token revoked, or has it ended? `chartgate service token` makes another",
    404: "is the url that of the decision service?",
}
"""Status -> what a developer looks at."""


class NoReply(Exception):
    """A connection was refused, broke or timed out: nothing was answered. The words say why."""


class NotTrusted(NoReply):
    """Whoever answers there is not known as the service: asking again changes nothing."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as transports send it: ``op`` is the path below ``/access/v1/``."""

    op: str
    body: Any
    request_id: str
    trace: str = ""
    """W3C ``traceparent`` of whoever asks, passed on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a status as of HTTP, and the JSON value, ``None`` if it is none."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the call with this token and wait so long; answer a ``Reply``, or why there is none."""

    call: Call
    token: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long."""

    seconds: float


class Link(Protocol):
    """A way to the service, blocking. Raises ``NoReply``."""

    def exchange(self, call: Call, token: str, seconds: float) -> Reply: ...
    def close(self) -> None: ...


class AsyncLink(Protocol):
    """A way to the service, for asyncio. Raises ``NoReply``."""

    async def exchange(self, call: Call, token: str, seconds: float) -> Reply: ...
    async def close(self) -> None: ...


class Clock(Protocol):
    """Seconds that only go forward, and a number from 0 to 1 that nobody foresees."""

    def now(self) -> float: ...
    def jitter(self) -> float: ...


T = TypeVar("T")
Calling = Generator[Attempt | Pause, Reply | NoReply | None, T]


def calling(clock: Clock, call: Call, token: Token, seconds: float) -> Calling[Any]:
    """The attempts of one call; returns the JSON value of a 200.

    Raises ``Unavailable`` when there was none in time, ``QuestionRefused`` when the service takes
    the question from nobody, or not from us.
    """
    ends = clock.now() + seconds
    pause, reread, last = _FIRST_PAUSE, False, "no answer"
    while (left := ends - clock.now()) > 0:
        reply = yield Attempt(call, token.value(), left)
        if reply is None:
            last = "it could not be reached"
        elif isinstance(reply, NoReply):
            last = str(reply)
            if isinstance(reply, NotTrusted):
                break
        elif reply.status == 200:
            return reply.body
        elif reply.status == 401 and not reread and token.reread():
            reread = True
            continue
        elif refused(reply.status):
            raise QuestionRefused(told(reply))
        else:
            last = f"it answered {reply.status}"
            if reply.status != 503:
                break
        # Full jitter: many that were cut off at the same time do not come back at the same time.
        rest = pause * clock.jitter()
        pause = min(pause * 2, _LONGEST_PAUSE)
        if clock.now() + rest >= ends:
            break
        yield Pause(rest)
    raise Unavailable(f"the decision service gave no answer: {last}")


def refused(status: int) -> bool:
    """Whether an answer of that status says that the question was not taken."""
    return status in _REFUSED


def told(reply: Reply) -> str:
    """Why, as the service says; its words hold nothing of what was asked."""
    body = reply.body
    cure = f"; {CURES[reply.status]}" if reply.status in CURES else ""
    for key in ("message", "error"):
        if isinstance(body, dict) and isinstance(body.get(key), str):
            return f"the decision service refused the question ({reply.status}): {body[key]}{cure}"
    return f"the decision service refused the question ({reply.status}){cure}"


def encoded(value: Any) -> bytes:
    """As it travels; raises ``Misused`` for what JSON has no form for."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError) as exc:
        raise Misused("a question holds JSON values only") from exc


def why(failure: BaseException) -> str:
    """What kept us from an answer, in words that hold nothing of the question or the answer."""
    link: BaseException | None = failure
    while link is not None:
        if isinstance(link, TimeoutError):
            break
        if isinstance(link, OSError) and link.errno:
            # asyncio's own words hold the address; what a name lookup says has numbers of its own
            said = os.strerror(link.errno) if link.errno > 0 else link.strerror
            return f"it could not be reached ({said}): does it run, and at this address?"
        link = link.__cause__ or link.__context__
    name = type(link or failure).__name__
    if "Timeout" in name:
        return "it did not answer in time"
    return f"it could not be reached ({name}): does it run, and at this address?"
