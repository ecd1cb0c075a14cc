"""The engine in the application's own process, fed by the control plane: no network, same answers.

    gate = Embedded("/var/lib/chartgate", token_file="/run/secrets/clinic")
    gate.decide("nadams", "view", Record(patient="17", category="labs"))

The rules kept: the core, the words and the limits are those of the service, since it is the service's
own desk that answers; an application is believed what its account says, no more; and ``decide`` returns
only when the node's one log writer has acknowledged the entry (45 CFR 164.312(b)). An application that
has lost the control plane for 15 s, or the writer, is told no.

It is for the hospital's own applications: whoever runs the engine holds the people and the policies in
memory, and reads the patients' attributes from the source. One that runs as a user of its own, as it
should, comes to the log by the door for applications (``log_socket``): it is held to its own account
there and holds no key of the log's tokens. One that runs as the node's own user, as beside the demo,
could read those keys anyway, and is taken for a part of the node.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

import msgspec

from chartgate.errors import ChartgateError, Refused
from chartgate.sdk.calling import CURES, DEADLINE, Call, NoReply, Reply
from chartgate.sdk.calls import Calls
from chartgate.sdk.client import AsyncChartgate, Chartgate
from chartgate.sdk.decision import Decision
from chartgate.sdk.errors import Misused, QuestionRefused, Unavailable
from chartgate.sdk.questions import ActionLike, ResourceLike, SubjectLike
from chartgate.sdk.timed_log import Stopwatch, TimedLog
from chartgate.sdk.token import Token, token_of

if TYPE_CHECKING:
    from chartgate.adapters.decision_desk import Desk
    from chartgate.adapters.node import Node

CHANNEL: Final = "embedded"
_ADDRESS: Final = "embedded:"
_START_SECONDS: Final = 60.0
_T = TypeVar("_T")
_watch: ContextVar[Stopwatch | None] = ContextVar("chartgate_watch", default=None)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: what it took to decide, and to have it on record."""

    decide: float
    record: float


class AsyncEmbedded(AsyncChartgate):
    """For asyncio; use ``async with``, or ``await start()`` and ``close()``. One per event loop.

    ``state``: the instance's folder. ``token`` or ``token_file``: the account of the application.
    ``log_socket``: where the log's writer listens for applications that run as another user.
    ``folder``: where it keeps which version it last obeyed (one per application).
    """

    def __init__(
        self,
        state: str | Path | None = None,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        log_socket: str | Path | None = None,
        folder: str | Path | None = None,
        name: str = "app",
        timeout: float = DEADLINE,
        strict: bool = False,
    ) -> None:
        self._calls = Calls(_ADDRESS, token, token_file, timeout, strict, None)
        self._engine: Final = _Engine(state, token_of(token, token_file), log_socket, folder, name)
        self._link = self._engine

    async def start(self) -> Self:
        """Load people and policies; returns when it may decide."""
        await self._engine.start()
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    @property
    def node(self) -> "Node":
        """What is in memory."""
        return self._engine.node

    async def decide_timed(
        self,
        subject: SubjectLike,
        action: ActionLike,
        resource: ResourceLike,
        context: dict[str, Any] | None = None,
    ) -> tuple[Decision, Timing]:
        """As ``decide``, and what of the time it took was the log's."""
        watch = Stopwatch()
        token = _watch.set(watch)
        began = perf_counter()
        try:
            decision = await self.decide(subject, action, resource, context)
        finally:
            _watch.reset(token)
        whole = perf_counter() - began
        return decision, Timing(whole - watch.seconds, watch.seconds)


class Embedded(Chartgate):
    """For blocking code: the engine runs on an event loop in a thread of its own. Thread-safe.

    Make it after a fork (in a worker, not before the workers are started). The arguments are those
    of ``AsyncEmbedded``.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self,
        state: str | Path | None = None,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        log_socket: str | Path | None = None,
        folder: str | Path | None = None,
        name: str = "app",
        timeout: float = DEADLINE,
        strict: bool = False,
    ) -> None:
        self._calls = Calls(_ADDRESS, token, token_file, timeout, strict, None)
        self._engine: Final = _Engine(state, token_of(token, token_file), log_socket, folder, name)
        self._thread: Final = _LoopThread()
        self._link = _Threaded(self._engine, self._thread)
        try:
            self._thread.run(self._engine.start()).result(_START_SECONDS)
        except BaseException:
            self._thread.stop()
            raise

    @property
    def node(self) -> "Node":
        """What is in memory; it belongs to the engine's thread."""
        return self._engine.node


class _Engine:
    """A node and a desk, asked as the service is."""

    def __init__(
        self,
        state: str | Path | None,
        token: Token,
        log_socket: str | Path | None,
        folder: str | Path | None,
        name: str,
    ) -> None:
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise Misused("the name of an application is letters, digits, - and _")
        self._root: Final = state
        self._token: Final = token
        self._log_socket: Final = log_socket
        self._folder: Final = folder
        self._name: Final = name
        self._stack: Final = AsyncExitStack()
        self._desk: Desk | None = None

    @property
    def node(self) -> "Node":
        if self._desk is None:
            raise Misused("the engine is not started: use `async with`, or `await start()`")
        node: Node = self._desk.node  # type: ignore[assignment]
        return node

    async def start(self) -> None:
        # Loading the engine costs a fifth of a second: not for whoever asks the service.
        from chartgate.adapters.decision_desk import Desk
        from chartgate.adapters.decision_metrics import Metrics
        from chartgate.adapters.log_remote import RemoteLog
        from chartgate.adapters.node import Node
        from chartgate.adapters.state import State, default_root
        from chartgate.app.authzen_paging import Pager
        from chartgate.app.evaluation_events import Keys

        if self._desk is not None:
            raise Misused("the engine is started already")
        state = State(default_root() if self._root is None else Path(self._root))
        instance = state.instance()
        is_own = self._log_socket is None and state.root.stat().st_uid == os.geteuid()
        path = state.log_socket if self._log_socket is None else Path(self._log_socket)
        name = f"{instance.node}/app-{self._name}-{os.getpid()}"
        try:
            log = await self._stack.enter_async_context(
                RemoteLog(path) if is_own else RemoteLog(path, kind="app", token=self._token.value)
            )
            node = await self._stack.enter_async_context(
                Node(
                    state,
                    instance,
                    name,
                    TimedLog(log, _watch.get),
                    None if is_own else Keys(),
                    own_events=is_own,
                    folder=None if self._folder is None else Path(self._folder),
                )
            )
            node.service_of_token(self._token.value())
        except BaseException as exc:
            await self._stack.aclose()
            if isinstance(exc, Refused) and not isinstance(exc, Unavailable):
                raise QuestionRefused(f"the application is not taken: {exc}; {CURES[401]}") from exc
            raise
        self._desk = Desk(node, Metrics(name), Pager(secrets.token_bytes(32)))

    async def exchange(self, call: Call, token: str, seconds: float) -> Reply:
        from chartgate.app.node_asked import Caller

        desk = self._desk
        if desk is None:
            raise Misused("the engine is not started: use `async with`, or `await start()`")
        try:
            # At every call: a token that was revoked opens nothing from then on.
            caller = Caller(desk.node.service_of_token(token), CHANNEL)
        except ChartgateError:
            return Reply(401, {"error": "unknown_caller", "message": "the token is nobody's"})
        try:
            body = msgspec.json.encode(call.body)
        except (TypeError, ValueError) as exc:
            raise Misused("a question holds JSON values only") from exc
        try:
            async with asyncio.timeout(seconds):
                status, data = await desk.ask(call.op, body, caller, call.trace)
        except TimeoutError as exc:
            raise NoReply("the log did not acknowledge in time") from exc
        return Reply(status, msgspec.json.decode(data))

    async def close(self) -> None:
        self._desk = None
        await self._stack.aclose()


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        import uvloop

        self._pid: Final = os.getpid()
        self._loop: Final = uvloop.new_event_loop()
        self._thread: Final = threading.Thread(
            target=self._loop.run_forever, name="chartgate", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        """Have it done there."""
        if self._pid != os.getpid() or not self._thread.is_alive():
            work.close()
            raise Misused(
                "the embedded engine does not live on after a fork: make it in each worker"
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """End it."""
        if self._pid == os.getpid() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class _Threaded:
    """The engine, for other threads."""

    def __init__(self, engine: _Engine, thread: _LoopThread) -> None:
        self._engine: Final = engine
        self._thread: Final = thread

    def exchange(self, call: Call, token: str, seconds: float) -> Reply:
        asked = self._thread.run(self._engine.exchange(call, token, seconds))
        try:
            # A little longer than the engine itself waits.
            return asked.result(seconds + 0.1)
        except TimeoutError as exc:
            asked.cancel()
            raise NoReply("the engine did not answer in time") from exc

    def close(self) -> None:
        self._thread.run(self._engine.close()).result(_START_SECONDS)
        self._thread.stop()
