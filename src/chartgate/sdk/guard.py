"""What protects a route: the check it names, and that none answers without having asked.

The rule kept (45 CFR 164.312(a)(1)): a route that answers 2xx has asked Chartgate, or is marked
``public`` with the reason why. Whatever else would be answered is not: the request fails, in
production as in the application's tests.

No framework is imported here.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from chartgate.sdk.asked import Asked
from chartgate.sdk.decision import Decision
from chartgate.sdk.errors import Misused, Unasked
from chartgate.sdk.labels import Labels, labels_of
from chartgate.sdk.questions import Record, ResourceLike

_log: Final = logging.getLogger("chartgate.sdk")
_PUBLIC: Final = "__chartgate_public__"
_C = TypeVar("_C", bound=Callable[..., Any])
Chosen = ResourceLike | Callable[[Mapping[str, Any]], ResourceLike]
"""What a check is about: a resource, or a function of the route's parameters that answers one."""


def of(
    patient: str,
    *categories: str,
    labels: Labels | type | None = None,
    fields: Iterable[str] | Mapping[str, str] = (),
    also: Iterable[str] = (),
) -> Callable[[Mapping[str, Any]], Record]:
    """The record of the patient whom the route's parameter ``patient`` names.

    Asked are the categories named, those of the ``labels`` of a class (all that a page of it may
    show, in one question) with ``also``, and the fields.
    """
    told = labels_of(labels) if isinstance(labels, type) else labels
    if labels is not None and told is None:
        raise Misused("the class declares no labels: use @disclosed")
    asked = (*categories, *(told.categories() if told is not None else ()), *also)
    columns = told.columns() if told is not None else ()
    if columns and isinstance(fields, Mapping):
        raise Misused("labels with columns and fields of your own are two questions")
    listed = fields if isinstance(fields, Mapping) else (*fields, *columns)
    if not asked and not listed:
        raise Misused("say which categories or fields of the record are asked about")
    every = tuple(dict.fromkeys(asked))
    essential = (*categories, *fields, *(told.essential() if told is not None else ()))

    def chosen(parameters: Mapping[str, Any]) -> Record:
        key = parameters.get(patient)
        if key is None:
            raise Misused(f"the route has no parameter {patient!r}")
        return Record(patient=str(key), categories=every, fields=listed, essential=essential)

    return chosen


def chosen(resource: Chosen, parameters: Mapping[str, Any]) -> ResourceLike:
    """What is asked about, with the parameters of this request."""
    return resource(parameters) if callable(resource) else resource


def required(decision: Decision, about: ResourceLike, *, partial: bool) -> Decision:
    """The decision, if it is enough for the route; else raises."""
    essential = about.essential if isinstance(about, Record) else ()
    return decision.require(partial=partial, essential=essential)


def public(why: str) -> Callable[[_C], _C]:
    """Mark a route that shows nothing of any patient; ``why`` is for whoever reviews it.

    It is the outermost decorator but the framework's own.
    """
    if not isinstance(why, str) or not why.strip():
        raise Misused('say why the route is public: @public("…")')

    def marked(endpoint: _C) -> _C:
        setattr(endpoint, _PUBLIC, why)
        return endpoint

    return marked


def why_public(endpoint: Any) -> str:
    """Why an endpoint is public; empty if it is not."""
    for one in (endpoint, getattr(endpoint, "view_class", None), getattr(endpoint, "cls", None)):
        why = getattr(one, _PUBLIC, "")
        if isinstance(why, str) and why:
            return why
    return ""


class PublicPaths:
    """Paths without an endpoint of the application's own: documentation, static files.

    A path that ends with ``/`` stands for all below it.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        if isinstance(paths, str):
            raise Misused("public paths are a list")
        given = tuple(paths)
        if "/" in given or not all(path.startswith("/") for path in given):
            raise Misused('a public path begins with "/", and "/" alone would be every path')
        self._exact: Final = frozenset(path for path in given if not path.endswith("/"))
        self._below: Final = tuple(path for path in given if path.endswith("/"))

    def __contains__(self, path: str) -> bool:
        if path in self._exact:
            return True
        # A path that climbs is none of those below.
        return path.startswith(self._below) and ".." not in path if self._below else False


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was answered, as tests look at it."""

    method: str
    route: str
    endpoint: Any
    status: int
    asked: bool
    public: bool


_watchers: Final[list[Callable[[Served], None]]] = []


@contextmanager
def watched(watcher: Callable[[Served], None]) -> Iterator[None]:
    """Tell the watcher of every request that is answered; for tests."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def answering(
    request: Asked,
    *,
    method: str,
    route: str,
    endpoint: Any,
    status: int,
    is_public: bool = False,
    enforce: bool = True,
) -> Unasked | None:
    """Called before an answer leaves: the error that is to be answered instead, if any."""
    open_to_all = is_public or bool(why_public(endpoint))
    served = Served(method, route, endpoint, status, request.has_asked, open_to_all)
    for watcher in tuple(_watchers):
        watcher(served)
    if request.has_asked or open_to_all or not 200 <= status < 300:
        return None
    name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
    _log.error("%s answered without asking Chartgate%s", name, ": withheld" if enforce else "")
    if not enforce:
        return None
    return Unasked("this route has not asked Chartgate, and is not marked public")
