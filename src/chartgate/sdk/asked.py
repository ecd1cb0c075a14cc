"""Who is asking in the request that is being served, and whether Chartgate was asked for it.

The rule kept: within a request the subject, the purpose, the session and the device come from one
place, set by the middleware, not from each handler; and every question leaves a mark, so that an
answer without a question is noticed (``testing``, and at run time the middleware itself).

No framework is imported here.
"""

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from chartgate.sdk.decision import Decision
from chartgate.sdk.errors import Misused, NotIdentified
from chartgate.sdk.questions import ActionLike, ResourceLike, SubjectLike

PURPOSE_HEADER: Final = "x-purpose-of-use"
"""Where a client claims a purpose (an HL7 v3 PurposeOfUse code); it is a claim, limited by role."""
_LONGEST: Final = 128
_current: ContextVar["Asked | None"] = ContextVar("chartgate_asked", default=None)


@dataclass(slots=True)
class Asked:
    """One request: who, why, from where; and the decisions that were made for it."""

    subject: SubjectLike | Callable[[], SubjectLike | None] | None = None
    """A function is called when somebody asks, so that whoever signs people in may come later."""
    purpose: str = ""
    session: str = ""
    device: str = ""
    address: str = ""
    trace: str = ""
    gate: Any = None
    bridge: Callable[..., Any] | None = None
    """Runs a coroutine function of the event loop from a thread of its pool."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further context, ``acr`` for example."""
    decisions: list[Decision] = field(default_factory=list)
    marks: int = 0

    def who(self) -> SubjectLike:
        """The subject; raises ``NotIdentified`` when nobody is signed in."""
        found = self.subject() if callable(self.subject) else self.subject
        if not found:
            raise NotIdentified("nobody is signed in")
        return found

    def context(self, further: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What is said about the circumstances; what the policies do not know is not used."""
        told = {
            "purpose": self.purpose,
            "session": self.session,
            "device": self.device,
            "ip": _ip(self.address),
        }
        return {**{k: v for k, v in told.items() if v}, **self.extra, **(further or {})}

    @property
    def has_asked(self) -> bool:
        """Whether Chartgate was asked anything for this request."""
        return self.marks > 0


@contextmanager
def asking(request: Asked) -> Iterator[Asked]:
    """The request that is being served in this context."""
    token = _current.set(request)
    try:
        yield request
    finally:
        _current.reset(token)


def current() -> Asked | None:
    """The request that is being served, if a middleware of ours is there."""
    return _current.get()


def here() -> Asked:
    """The same; raises ``Misused`` where there is none."""
    found = _current.get()
    if found is None:
        raise Misused("no request is being served: add Chartgate's middleware to the application")
    return found


def mark(*decisions: Decision) -> None:
    """Chartgate was asked for the current request; the clients and the row filters call it."""
    found = _current.get()
    if found is not None:
        found.marks += 1
        found.decisions.extend(decisions)


def identify(subject: SubjectLike, **circumstances: Any) -> None:
    """Say who is asking, where the application finds out itself.

    ``circumstances``: ``purpose``, ``session``, ``device``, or anything else of the context:
    ``acr=2`` (how she signed in), ``authenticated_at``. They count as far as the application's
    account may assert them.
    """
    request = here()
    request.subject = subject
    for name in ("purpose", "session", "device"):
        if name in circumstances:
            setattr(request, name, circumstances.pop(name))
    request.extra.update(circumstances)


def ask(
    action: ActionLike, resource: ResourceLike, context: Mapping[str, Any] | None = None
) -> Decision:
    """The decision for whoever is asking now."""
    request = here()
    who, told = request.who(), request.context(context)
    gate = _gate_of(request)
    if not gate.is_async:
        answer: Decision = gate.decide(who, action, resource, told)
        return answer
    if request.bridge is None:
        raise Misused("the gate is asynchronous here: use `await ask_async(…)`")
    answered: Decision = request.bridge(gate.decide, who, action, resource, told)
    return answered


async def ask_async(
    action: ActionLike, resource: ResourceLike, context: Mapping[str, Any] | None = None
) -> Decision:
    """The decision for whoever is asking now, on an event loop."""
    request = here()
    who, told = request.who(), request.context(context)
    gate = _gate_of(request)
    if gate.is_async:
        answer: Decision = await gate.decide(who, action, resource, told)
        return answer
    threaded: Decision = await asyncio.to_thread(gate.decide, who, action, resource, told)
    return threaded


def ask_many(
    questions: Iterable[tuple[ActionLike, ResourceLike]],
    context: Mapping[str, Any] | None = None,
) -> tuple[Decision, ...]:
    """The decisions on several questions, in order, by one call: for a list of patients."""
    request = here()
    who, told = request.who(), request.context(context)
    put = [(who, action, resource, told) for action, resource in questions]
    gate = _gate_of(request)
    mark()  # of nothing found, nothing need be asked
    if not gate.is_async:
        answers: tuple[Decision, ...] = gate.decide_many(put)
        return answers
    if request.bridge is None:
        raise Misused("the gate is asynchronous here: use `await ask_many_async(…)`")
    bridged: tuple[Decision, ...] = request.bridge(gate.decide_many, put)
    return bridged


async def ask_many_async(
    questions: Iterable[tuple[ActionLike, ResourceLike]],
    context: Mapping[str, Any] | None = None,
) -> tuple[Decision, ...]:
    """The same, on an event loop."""
    request = here()
    who, told = request.who(), request.context(context)
    put = [(who, action, resource, told) for action, resource in questions]
    gate = _gate_of(request)
    mark()  # of nothing found, nothing need be asked
    if gate.is_async:
        answers: tuple[Decision, ...] = await gate.decide_many(put)
        return answers
    threaded: tuple[Decision, ...] = await asyncio.to_thread(gate.decide_many, put)
    return threaded


def _gate_of(request: Asked) -> Any:
    if request.gate is None:
        raise Misused("the middleware was given no gate to ask")
    return request.gate


def claimed(text: str | None) -> str:
    """A claim of a header, if it could be one: short, visible, one word."""
    if text is None or not 0 < len(text) <= _LONGEST or not all("!" <= c <= "~" for c in text):
        return ""
    return text


def _ip(address: str) -> str:
    """The address, if it is one: a socket's path or a test's word would make a question unreadable."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return ""


def session_name(secret: str | None) -> str:
    """A name for a session that does not open it: what a log may hold of a cookie."""
    if not secret:
        return ""
    return hashlib.sha256(b"chartgate session\0" + secret.encode()).hexdigest()[:32]
