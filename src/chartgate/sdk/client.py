"""Asking the decision service: ``Chartgate`` for blocking code, ``AsyncChartgate`` for asyncio.

The rule kept: the answer is no unless a well-formed yes came in time. ``decide`` does not raise for
what goes wrong on the way: it answers a ``Decision`` that says no, with the reason ``unavailable``;
``strict=True`` raises ``Unavailable`` instead, for whoever wants to tell the two apart.

    gate = Chartgate("https://pdp.example.org:8443", token_file="/run/secrets/chartgate")
    decision = gate.decide("nadams", "view", Record(patient="17", category="labs"))
    if decision: ...
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from chartgate.app.question import Action, Resource, Subject
from chartgate.model.disclosure import Disclosure
from chartgate.sdk.calling import (
    DEADLINE,
    AsyncLink,
    Attempt,
    Calling,
    Link,
    NoReply,
    Reply,
    T,
)
from chartgate.sdk.calls import EXECUTE_ALL, Asking, Calls
from chartgate.sdk.decision import Decision
from chartgate.sdk.https import AsyncHttps, Https
from chartgate.sdk.questions import ActionLike, ResourceLike, SubjectLike
from chartgate.sdk.searching import (
    action_search,
    page_of,
    resource_search,
    subject_search,
)
from chartgate.sdk.unix import AsyncUnix, Unix

_UNIX: Final = "unix:"


class Chartgate:
    """The decision service, for blocking code. Thread-safe; one per process is enough.

    ``url``: ``https://host:port`` or ``unix:/path/of/the.sock``; without it ``CHARTGATE_URL`` of the
    environment. ``token`` or ``token_file`` (read anew when it is rotated); without either
    ``CHARTGATE_TOKEN_FILE`` or ``CHARTGATE_TOKEN``. ``ca``: file of the authority that signed the
    service's certificate. ``certificate``: (certificate file, key file) where the service knows us by
    it. ``timeout``: seconds for a call with all its attempts. ``cache``: seconds for which answers
    that release nothing of a patient are used again; see ``sdk.cache`` before you set it.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        ca: str | Path | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
        timeout: float = DEADLINE,
        strict: bool = False,
        cache: float | None = None,
    ) -> None:
        self._calls = Calls(url, token, token_file, timeout, strict, cache)
        address = self._calls.address
        self._link: Link = (
            Unix(address.removeprefix(_UNIX))
            if address.startswith(_UNIX)
            else Https(address, ca=ca, certificate=certificate)
        )

    def decide(
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        strict: bool | None = None,
    ) -> Decision:
        """May this subject do that? ``subject``: a login name, or type, id and properties."""
        return self._driven(self._calls.decide(subject, action, resource, context, timeout, strict))

    def decide_many(
        self,
        questions: Iterable[Asking],
        *,
        semantic: str = EXECUTE_ALL,
        timeout: float | None = None,
        strict: bool | None = None,
    ) -> tuple[Decision, ...]:
        """Several questions in one call, answered in order and recorded as one event.

        ``deny_on_first_deny`` and ``permit_on_first_permit`` end with the deciding one.
        """
        return self._driven(self._calls.decide_many(questions, semantic, timeout, strict))

    def levels(
        self,
        subject: SubjectLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Mapping[str, Disclosure]:
        """How much of each category (or field) asked about may be shown; empty without an answer."""
        decision = self.decide(subject, "view", resource, context, timeout=timeout)
        return {**decision.levels, **decision.fields}

    def search_subjects(
        self,
        action: ActionLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        type: str = "User",  # noqa: A002  (AuthZEN's word)
    ) -> Iterator[Subject]:
        """Everybody who may; raises ``Unavailable`` rather than leaving somebody out."""
        for found in self._pages("search/subject", subject_search(type, action, resource, context)):
            yield self._calls.subject(found)

    def search_resources(
        self,
        subject: SubjectLike,
        action: ActionLike,
        type: str | Mapping[str, Any],  # noqa: A002
        context: Mapping[str, Any] | None = None,
    ) -> Iterator[Resource]:
        """Everything of that type on which she may.

        Records: of one category, as ``{"type": "Record", "properties": {"category": "labs"}}``.
        """
        body = resource_search(subject, action, type, context)
        for found in self._pages("search/resource", body):
            yield self._calls.resource(found)

    def search_actions(
        self,
        subject: SubjectLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
    ) -> Iterator[Action]:
        """Everything that she may do there."""
        for found in self._pages("search/action", action_search(subject, resource, context)):
            yield self._calls.action(found)

    def close(self) -> None:
        """End the connections."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pages(self, op: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = page_of(self._driven(self._calls.search(op, body, token)))
            yield from page.results
            token = self._calls.next_token(page, token)
            if not token:
                return

    def _driven(self, plan: Calling[T]) -> T:
        told: Reply | NoReply | None = None
        while True:
            try:
                step = plan.send(told)
            except StopIteration as end:
                value: T = end.value
                return value
            if not isinstance(step, Attempt):
                time.sleep(step.seconds)
                told = None
                continue
            try:
                told = self._link.exchange(step.call, step.token, step.seconds)
            except NoReply as exc:
                told = exc


class AsyncChartgate:
    """The decision service, for asyncio: the same calls, awaited. One per event loop.

    The arguments are those of ``Chartgate``.
    """

    is_async: ClassVar[bool] = True

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        ca: str | Path | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
        timeout: float = DEADLINE,
        strict: bool = False,
        cache: float | None = None,
    ) -> None:
        self._calls = Calls(url, token, token_file, timeout, strict, cache)
        address = self._calls.address
        self._link: AsyncLink = (
            AsyncUnix(address.removeprefix(_UNIX))
            if address.startswith(_UNIX)
            else AsyncHttps(address, ca=ca, certificate=certificate)
        )

    async def decide(
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (of the call with its attempts)
        strict: bool | None = None,
    ) -> Decision:
        """See ``Chartgate.decide``."""
        return await self._driven(
            self._calls.decide(subject, action, resource, context, timeout, strict)
        )

    async def decide_many(
        self,
        questions: Iterable[Asking],
        *,
        semantic: str = EXECUTE_ALL,
        timeout: float | None = None,  # noqa: ASYNC109
        strict: bool | None = None,
    ) -> tuple[Decision, ...]:
        """See ``Chartgate.decide_many``."""
        return await self._driven(self._calls.decide_many(questions, semantic, timeout, strict))

    async def levels(
        self,
        subject: SubjectLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Mapping[str, Disclosure]:
        """See ``Chartgate.levels``."""
        decision = await self.decide(subject, "view", resource, context, timeout=timeout)
        return {**decision.levels, **decision.fields}

    async def search_subjects(
        self,
        action: ActionLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
        *,
        type: str = "User",  # noqa: A002
    ) -> AsyncIterator[Subject]:
        """See ``Chartgate.search_subjects``."""
        body = subject_search(type, action, resource, context)
        async for found in self._pages("search/subject", body):
            yield self._calls.subject(found)

    async def search_resources(
        self,
        subject: SubjectLike,
        action: ActionLike,
        type: str | Mapping[str, Any],  # noqa: A002
        context: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Resource]:
        """See ``Chartgate.search_resources``."""
        body = resource_search(subject, action, type, context)
        async for found in self._pages("search/resource", body):
            yield self._calls.resource(found)

    async def search_actions(
        self,
        subject: SubjectLike,
        resource: ResourceLike,
        context: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Action]:
        """See ``Chartgate.search_actions``."""
        body = action_search(subject, resource, context)
        async for found in self._pages("search/action", body):
            yield self._calls.action(found)

    async def close(self) -> None:
        """End the connections."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _pages(self, op: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        token = ""
        while True:
            page = page_of(await self._driven(self._calls.search(op, body, token)))
            for found in page.results:
                yield found
            token = self._calls.next_token(page, token)
            if not token:
                return

    async def _driven(self, plan: Calling[T]) -> T:
        told: Reply | NoReply | None = None
        while True:
            try:
                step = plan.send(told)
            except StopIteration as end:
                value: T = end.value
                return value
            if not isinstance(step, Attempt):
                await asyncio.sleep(step.seconds)
                told = None
                continue
            try:
                told = await self._link.exchange(step.call, step.token, step.seconds)
            except NoReply as exc:
                told = exc
