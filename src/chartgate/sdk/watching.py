"""Which routes of an application have asked, while somebody watches.

The rule kept: a route that was never seen to answer proves nothing, so that it is listed like one that
answered without asking.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chartgate.sdk.guard import Served, watched, why_public
from chartgate.sdk.routes import Route, routes_of


class Routes:
    """What was answered while it watched."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], list[Served]] = {}
        self._kept: list[Any] = []

    def note(self, served: Served) -> None:
        """A request was answered."""
        if served.endpoint is not None:
            self._kept.append(served.endpoint)  # so that its id stays its own
            self._seen.setdefault((id(served.endpoint), served.method), []).append(served)

    def unasked(self, app: Any) -> tuple[Route, ...]:
        """Routes that answered 2xx without having asked, and are not public."""
        return tuple(
            route
            for route in routes_of(app)
            if any(
                200 <= one.status < 300 and not one.asked and not one.public
                for one in self._of(route)
            )
        )

    def unexercised(self, app: Any) -> tuple[Route, ...]:
        """Routes that are not public and never answered 2xx while they were watched."""
        return tuple(
            route
            for route in routes_of(app)
            if not why_public(route.endpoint)
            and not any(200 <= one.status < 300 for one in self._of(route))
        )

    def check(self, app: Any, *, but: tuple[str, ...] = ()) -> None:
        """Raise ``AssertionError`` that lists the routes which asked nothing or were never seen.

        ``but``: routes, as ``"GET /path"``, that need not be exercised.
        """
        lines = [f"{route} answered without asking Chartgate" for route in self.unasked(app)]
        lines += [
            f"{route} was never seen to answer"
            for route in self.unexercised(app)
            if str(route) not in but and route not in self.unasked(app)
        ]
        if lines:
            raise AssertionError(
                "routes whose check is missing, or not shown by a test:\n  " + "\n  ".join(lines)
            )

    def _of(self, route: Route) -> list[Served]:
        if route.method != "*":
            return self._seen.get((id(route.endpoint), route.method), [])
        own = id(route.endpoint)
        return [one for (at, _), seen in self._seen.items() if at == own for one in seen]


@contextmanager
def watching() -> Iterator[Routes]:
    """Watch what is answered, by whichever application of this process."""
    routes = Routes()
    with watched(routes.note):
        yield routes
