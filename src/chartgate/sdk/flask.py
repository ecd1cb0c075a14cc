"""Flask: the extension, and the check of a view.

app = Flask(__name__)
protect(app, Chartgate(...), subject=lambda: session.get("user"))

@app.get("/patients/<patient>/labs")
@require("view", of("patient", labels=Lab), partial=True)
def labs(patient):
    return shown(load_labs(patient))
"""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final

import flask
from flask import Flask, Response, g, jsonify, request

from chartgate.errors import ChartgateError
from chartgate.sdk import asked
from chartgate.sdk.asked import Asked, ask, asking, claimed, identify, session_name
from chartgate.sdk.decision import Decision
from chartgate.sdk.disclose import Withheld, disclose
from chartgate.sdk.errors import Misused
from chartgate.sdk.guard import Chosen, PublicPaths, answering, chosen, of, public, required
from chartgate.sdk.labels import Labels
from chartgate.sdk.problems import TOLD, problem_of
from chartgate.sdk.questions import ActionLike, SubjectLike

__all__ = ["ask", "identify", "of", "protect", "public", "require", "shown"]

_KEY: Final = "chartgate.asked"


def protect(
    app: Flask,
    gate: Any,
    *,
    subject: Callable[[], SubjectLike | None] | None = None,
    purpose: str = "",
    purpose_header: str = asked.PURPOSE_HEADER,
    device: Callable[[], str | None] | None = None,
    session: Callable[[], str | None] | None = None,
    public_paths: Iterable[str] = ("/static/",),
    enforce: bool = True,
) -> None:
    """Put the application behind Chartgate; the settings are those of the ASGI middleware.

    ``subject``, ``session`` and ``device`` are called within the request, when something is asked.
    """
    if getattr(gate, "is_async", False):
        raise Misused("Flask asks with the blocking client: Chartgate, or Embedded")
    paths = PublicPaths(public_paths)
    inner = app.wsgi_app

    def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def header(name: str) -> str | None:
            found = environ.get("HTTP_" + name.upper().replace("-", "_"))
            return found if isinstance(found, str) else None

        served = Asked(
            subject=subject,
            purpose=claimed(header(purpose_header)) or purpose,
            address=str(environ.get("REMOTE_ADDR", "")),
            trace=header("traceparent") or "",
            gate=gate,
        )
        # Outermost, so that it is there for whatever comes before the view.
        with asking(served):
            return inner(environ, start_response)

    def name_circumstances() -> None:
        served = asked.here()
        if session is not None:
            served.session = session_name(session())
        if device is not None:
            served.device = device() or ""

    def finish(response: Response) -> Response:
        served = asked.current()
        if served is None:
            raise Misused("the request did not come in by the application's wsgi_app")
        rule = request.url_rule
        error = answering(
            served,
            method=request.method,
            route=request.path if rule is None else rule.rule,
            endpoint=app.view_functions.get(request.endpoint or ""),
            status=response.status_code,
            is_public=request.path in paths,
            enforce=enforce,
        )
        return response if error is None else _response(error)

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]
    app.before_request(name_circumstances)
    app.after_request(finish)
    for kind in TOLD:
        app.register_error_handler(kind, _response)


def require(
    action: ActionLike,
    resource: Chosen,
    context: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Whoever asks must be allowed to do that; the decision is ``g.decision``.

    ``partial``: a no that discloses something still passes, for views that answer by ``shown``.
    """

    def check(parameters: Mapping[str, Any]) -> None:
        about = chosen(resource, parameters)
        g.decision = required(asked.ask(action, about, context), about, partial=partial)

    def guarded(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def checked(*arguments: Any, **parameters: Any) -> Any:
            check(request.view_args or {})
            return view(*arguments, **parameters)

        @wraps(view)
        async def awaited(*arguments: Any, **parameters: Any) -> Any:
            check(request.view_args or {})
            return await view(*arguments, **parameters)

        return awaited if iscoroutinefunction(view) else checked

    return guarded


def shown(
    thing: Any,
    decision: Decision | None = None,
    labels: Labels | None = None,
    *,
    withheld: Withheld = "absent",
) -> Response:
    """What of an object, or a list of them, the decision (``g.decision``) shows, as JSON."""
    counts = decision if decision is not None else g.get("decision")
    if not isinstance(counts, Decision):
        raise Misused("there is no decision: use @require, or give one")
    what = disclose(thing, counts, labels, withheld=withheld)
    if what is None:
        flask.abort(404)
    response = jsonify(what)
    response.headers["Cache-Control"] = "no-store"
    return response


def _response(error: ChartgateError) -> Response:
    problem = problem_of(error)
    return Response(problem.body, problem.status, headers=list(problem.headers))
