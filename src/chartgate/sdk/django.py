"""Django: the middleware, and the check of a view, synchronous and asynchronous.

    # settings.py
    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware",
                  "chartgate.sdk.django.ChartgateMiddleware"]
    CHARTGATE = {"url": "https://localhost:8443", "token_file": "…", "ca": "…"}

    # views.py
    @require("view", of("patient", labels=Lab), partial=True)
    def labs(request, patient):
        return shown(load_labs(patient), request.decision)

``CHARTGATE`` holds the arguments of ``Chartgate``, and besides: ``gate`` (an object, or the dotted name
of one, to ask instead), ``subject`` (a function of the request, or its dotted name; without it
``request.user``), ``purpose``, ``purpose_header``, ``device`` (a function of the request), ``public_paths``,
``enforce``; see ``sdk.starlette.ChartgateMiddleware``.
"""

from collections.abc import Callable, Mapping
from functools import partial as bound
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ClassVar, Final

from asgiref.sync import iscoroutinefunction as is_async
from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from chartgate.errors import ChartgateError
from chartgate.sdk import asked
from chartgate.sdk.asked import Asked, ask, ask_async, asking, claimed, identify, session_name
from chartgate.sdk.client import Chartgate
from chartgate.sdk.decision import Decision
from chartgate.sdk.disclose import Withheld, disclose
from chartgate.sdk.errors import Misused
from chartgate.sdk.guard import Chosen, PublicPaths, answering, chosen, of, public, required
from chartgate.sdk.labels import Labels
from chartgate.sdk.problems import TOLD, problem_of
from chartgate.sdk.questions import ActionLike, SubjectLike

__all__ = [
    "ChartgateMiddleware",
    "ask",
    "ask_async",
    "identify",
    "of",
    "public",
    "require",
    "shown",
]

_OWN: Final = frozenset(
    {"gate", "subject", "purpose", "purpose_header", "device", "public_paths", "enforce"}
)


class ChartgateMiddleware:
    """Behind Django's authentication, before everything that answers something of a patient."""

    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        told = _settings()
        self._get_response: Final = get_response
        self._gate: Final = _gate(told)
        self._subject: Final[Callable[[HttpRequest], SubjectLike | None]] = _named(
            told.get("subject", signed_in)
        )
        self._purpose: Final = str(told.get("purpose", ""))
        self._purpose_header: Final = str(told.get("purpose_header", asked.PURPOSE_HEADER))
        self._device: Final[Callable[[HttpRequest], str | None] | None] = _named(told.get("device"))
        self._public: Final = PublicPaths(told.get("public_paths", ()))
        self._enforce: Final = bool(told.get("enforce", True))
        if is_async(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if is_async(self._get_response):
            return self._later(request)
        with asking(self._asked(request)) as served:
            return self._finished(request, self._get_response(request), served)

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        with asking(self._asked(request)) as served:
            return self._finished(request, await self._get_response(request), served)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """What a view raised becomes an answer."""
        return _response(error) if isinstance(error, TOLD) else None

    def _asked(self, request: HttpRequest) -> Asked:
        purpose = claimed(request.headers.get(self._purpose_header))
        device = self._device(request) if self._device is not None else None
        session = getattr(request, "session", None)
        return Asked(
            subject=bound(self._subject, request),
            purpose=purpose or self._purpose,
            session=session_name(getattr(session, "session_key", None)),
            device=device or "",
            address=request.META.get("REMOTE_ADDR", ""),
            trace=request.headers.get("traceparent", ""),
            gate=self._gate,
        )

    def _finished(
        self, request: HttpRequest, response: HttpResponseBase, served: Asked
    ) -> HttpResponseBase:
        match = request.resolver_match
        error = answering(
            served,
            method=request.method or "",
            route=request.path if match is None else match.route or request.path,
            endpoint=None if match is None else match.func,
            status=response.status_code,
            is_public=request.path in self._public,
            enforce=self._enforce,
        )
        if error is None:
            return response
        response.close()
        return _response(error)


def signed_in(request: HttpRequest) -> str | None:
    """The name that Django's user signs in with."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    name = user.get_username()
    return name if isinstance(name, str) else None


def require(
    action: ActionLike,
    resource: Chosen,
    context: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Whoever asks must be allowed to do that; the decision is ``request.decision``.

    ``partial``: a no that discloses something still passes, for views that answer by ``shown``.
    On a method of a class-based view use Django's ``method_decorator``.
    """

    def guarded(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def checked(request: Any, *arguments: Any, **parameters: Any) -> Any:
            about = chosen(resource, parameters)
            decision = asked.ask(action, about, context)
            request.decision = required(decision, about, partial=partial)
            return view(request, *arguments, **parameters)

        @wraps(view)
        async def awaited(request: Any, *arguments: Any, **parameters: Any) -> Any:
            about = chosen(resource, parameters)
            decision = await asked.ask_async(action, about, context)
            request.decision = required(decision, about, partial=partial)
            return await view(request, *arguments, **parameters)

        return awaited if iscoroutinefunction(view) else checked

    return guarded


def shown(
    thing: Any,
    decision: Decision,
    labels: Labels | None = None,
    *,
    withheld: Withheld = "absent",
) -> HttpResponse:
    """What of an object, or a list of them, the decision shows, as JSON; 404 if it does not exist."""
    what = disclose(thing, decision, labels, withheld=withheld)
    if what is None:
        raise Http404("not found")
    return JsonResponse(what, safe=False, headers={"Cache-Control": "no-store"})


def _settings() -> dict[str, Any]:
    told = getattr(settings, "CHARTGATE", {})
    if not isinstance(told, Mapping):
        raise Misused("CHARTGATE in the settings is a dict")
    return dict(told)


def _gate(told: Mapping[str, Any]) -> Any:
    if "gate" in told:
        return _named(told["gate"])
    return Chartgate(**{name: value for name, value in told.items() if name not in _OWN})


def _named(thing: Any) -> Any:
    return import_string(thing) if isinstance(thing, str) else thing


def _response(error: ChartgateError) -> HttpResponse:
    problem = problem_of(error)
    return HttpResponse(problem.body, status=problem.status, headers=dict(problem.headers))
