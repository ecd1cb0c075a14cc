"""Starlette, and every ASGI application: the middleware, and the check of a route.

    app = Starlette(routes=[...], middleware=[
        Middleware(ChartgateMiddleware, gate=AsyncChartgate(...), subject=signed_in),
    ])

    async def labs(request):
        decision = await require("view", of("patient", "labs"))(request)
        ...

The rule kept: an answer of status 2xx leaves only if its request has asked, or its route is public.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial, wraps
from typing import Any, Final

import anyio.from_thread
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chartgate.errors import ChartgateError
from chartgate.sdk import asked, guard
from chartgate.sdk.asked import Asked, asking, claimed, session_name
from chartgate.sdk.decision import Decision
from chartgate.sdk.guard import Chosen, PublicPaths, answering, chosen
from chartgate.sdk.problems import TOLD, problem_of
from chartgate.sdk.questions import ActionLike, SubjectLike

WhoAsks = Callable[[HTTPConnection], SubjectLike | None]


class ChartgateMiddleware:
    """Who asks, for which purpose and from where, for every request; see ``sdk.asked``.

    ``subject``: from the connection to a login name (or a subject), ``None`` while nobody is signed
    in; without it Starlette's ``request.user`` counts. It is called when something is asked, so
    that an authentication middleware or dependency may come first; ``asked.identify`` says it
    otherwise. ``purpose``: claimed where the client's header claims none; empty leaves it to the
    role. ``session``: answers the session's secret, of which only a hash is passed on.
    ``device``: answers on what she works, from something that the client cannot make up (its
    certificate, the session): a header of the client's is no evidence.
    ``public_paths``: documentation and static files. ``enforce=False`` only logs what has not asked.
    """

    def __init__(
        self,
        app: ASGIApp,
        gate: Any,
        *,
        subject: WhoAsks | None = None,
        purpose: str = "",
        purpose_header: str = asked.PURPOSE_HEADER,
        device: Callable[[HTTPConnection], str | None] | None = None,
        session: Callable[[HTTPConnection], str | None] | None = None,
        public_paths: Iterable[str] = (),
        enforce: bool = True,
    ) -> None:
        self.app: Final = app
        self._gate: Final = gate
        self._subject: Final = subject or signed_in
        self._purpose: Final = purpose
        self._purpose_header: Final = purpose_header
        self._device: Final = device
        self._session: Final = session
        self._public: Final = PublicPaths(public_paths)
        self._enforce: Final = enforce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = self._asked(HTTPConnection(scope))
        watch = _Answer(request, scope, send, self._public, enforce=self._enforce)
        with asking(request):
            try:
                await self.app(scope, receive, watch.send)
            except TOLD as error:
                if watch.has_begun:
                    raise
                await watch.refuse(error)

    def _asked(self, connection: HTTPConnection) -> Asked:
        purpose = claimed(connection.headers.get(self._purpose_header))
        device = self._device(connection) if self._device is not None else None
        secret = self._session(connection) if self._session is not None else None
        return Asked(
            subject=partial(self._subject, connection),
            purpose=purpose or self._purpose,
            session=session_name(secret),
            device=device or "",
            address=connection.client.host if connection.client is not None else "",
            trace=connection.headers.get("traceparent", ""),
            gate=self._gate,
            bridge=anyio.from_thread.run,
        )


def signed_in(connection: HTTPConnection) -> str | None:
    """The user of Starlette's ``AuthenticationMiddleware``, by the name she signs in with."""
    user = connection.scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    for name in ("identity", "username", "display_name"):
        try:
            found = getattr(user, name, None)
        except NotImplementedError:  # a base class that leaves it open
            continue
        if isinstance(found, str) and found:
            return found
    return None


class Required:
    """A check; ``await check(request)`` answers the decision or raises ``AccessDenied``.

    FastAPI takes it as a dependency: ``Depends(require("view", of("patient", "labs")))``.
    """

    def __init__(
        self,
        action: ActionLike,
        resource: Chosen,
        context: Mapping[str, Any] | None,
        *,
        partial: bool,
    ) -> None:
        self._action: Final = action
        self._resource: Final = resource
        self._context: Final = context
        self._partial: Final = partial

    async def __call__(self, request: HTTPConnection) -> Decision:
        about = chosen(self._resource, request.path_params)
        decision = await asked.ask_async(self._action, about, self._context)
        return guard.required(decision, about, partial=self._partial)


def require(
    action: ActionLike,
    resource: Chosen,
    context: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> Required:
    """Whoever asks must be allowed to do that; see ``guard.of`` for the record of a route.

    ``partial``: a no that discloses something still passes, for routes that answer by ``disclose``.
    """
    return Required(action, resource, context, partial=partial)


Endpoint = Callable[[Any], Awaitable[Any]]


def required(
    action: ActionLike,
    resource: Chosen,
    context: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> Callable[[Endpoint], Endpoint]:
    """The same as a decorator of an asynchronous endpoint; the decision is ``request.state.decision``."""
    check = require(action, resource, context, partial=partial)

    def guarded(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def checked(request: HTTPConnection) -> Any:
            request.state.decision = await check(request)
            return await endpoint(request)

        return checked

    return guarded


class _Answer:
    """What leaves for one request."""

    def __init__(
        self, request: Asked, scope: Scope, send: Send, paths: PublicPaths, *, enforce: bool
    ) -> None:
        self.has_begun = False
        self._request: Final = request
        self._scope: Final = scope
        self._send: Final = send
        self._paths: Final = paths
        self._enforce: Final = enforce
        self._replaced = False

    async def send(self, message: Message) -> None:
        if self._replaced:
            return  # the rest of what was not let out
        if message["type"] == "http.response.start":
            error = self._unasked(int(message["status"]))
            if error is not None:
                await self.refuse(error)
                self._replaced = True
                return
        if message["type"] == "websocket.accept" and self._unasked(200) is not None:
            self._replaced = True
            await self._send({"type": "websocket.close", "code": 1008})
            return
        self.has_begun = True
        await self._send(message)

    async def refuse(self, error: ChartgateError) -> None:
        """Answer the error."""
        self.has_begun = True
        if self._scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": 1008})
            return
        problem = problem_of(error)
        headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers]
        headers.append((b"content-length", str(len(problem.body)).encode()))
        await self._send(
            {"type": "http.response.start", "status": problem.status, "headers": headers}
        )
        await self._send({"type": "http.response.body", "body": problem.body})

    def _unasked(self, status: int) -> ChartgateError | None:
        scope: MutableMapping[str, Any] = self._scope
        route = scope.get("route")
        return answering(
            self._request,
            method=scope.get("method", "WEBSOCKET"),
            route=getattr(route, "path", scope["path"]),
            endpoint=scope.get("endpoint"),
            status=status,
            is_public=scope["path"] in self._paths,
            enforce=self._enforce,
        )
