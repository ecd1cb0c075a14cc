"""The routes that an application has, whichever framework it is made with.

The rule kept: a route is listed with each method it answers; what cannot be listed is an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chartgate.sdk.errors import Misused

_SELF_MADE = frozenset({"HEAD", "OPTIONS"})
"""What frameworks answer by themselves."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one route; ``endpoint`` is what answers it."""

    method: str
    path: str
    endpoint: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes_of(app: Any) -> tuple[Route, ...]:
    """All routes of a Starlette, FastAPI or Flask application; ``"django"`` for the project's."""
    if app == "django":
        return tuple(_django())
    if hasattr(app, "url_map") and hasattr(app, "view_functions"):
        return tuple(_flask(app))
    if hasattr(app, "routes"):
        return tuple(_starlette(app.routes, ""))
    raise Misused("the routes of this application cannot be listed")


def _starlette(routes: Any, before: str) -> Iterator[Route]:
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)
        if included is not None:  # a router included in a FastAPI application
            yield from _starlette((one.starlette_route or one for one in included()), before)
            continue
        path, below = getattr(route, "path", None), getattr(route, "routes", None)
        endpoint = getattr(route, "endpoint", None) or getattr(route, "app", None)
        if below:
            yield from _starlette(below, before + (path or ""))
        elif path is None or endpoint is None:
            raise Misused("the application has a kind of route that cannot be listed")
        else:
            # A class answers the methods that it has; another application, who knows.
            methods = getattr(route, "methods", None) or _methods(endpoint)
            for method in sorted(set(methods) - _SELF_MADE):
                yield Route(method, before + path, endpoint)


def _methods(endpoint: Any) -> set[str]:
    names = ("get", "post", "put", "patch", "delete")
    found = {name.upper() for name in names if hasattr(endpoint, name)}
    return found or {"*"}


def _flask(app: Any) -> Iterator[Route]:
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        for method in sorted(set(rule.methods or ()) - _SELF_MADE):
            yield Route(method, rule.rule, app.view_functions[rule.endpoint])


def _django() -> Iterator[Route]:
    from django.urls import get_resolver

    yield from _django_below(get_resolver().url_patterns, "/")


def _django_below(patterns: Any, before: str) -> Iterator[Route]:
    for pattern in patterns:
        path = before + str(pattern.pattern)
        below = getattr(pattern, "url_patterns", None)
        if below is not None:
            yield from _django_below(below, path)
            continue
        view = pattern.callback
        cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
        made = getattr(view, "actions", None)  # a view set's methods
        methods = {m.upper() for m in made} if made else _methods(cls) if cls else {"*"}
        for method in sorted(methods):
            yield Route(method, path, view)
