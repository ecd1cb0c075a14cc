"""For an application's own tests: a missing check fails them.

    pytest_plugins = ["chartgate.sdk.pytest_plugin"]       # conftest.py

    def test_every_route_asks(chartgate_routes, client):
        client.get("/patients/17/labs")
        ...
        chartgate_routes.check(app)

The rule kept (45 CFR 164.312(a)(1)): a route that was never exercised proves nothing, so it is
listed like one that answered without asking.

``LocalPolicy`` decides with the real engine, in the test's own process: policies of a folder, people
and patients as the test says. Nothing is recorded, so it is for tests alone.
"""

from typing import Any

from chartgate.sdk.local import LocalPatient, LocalPolicy, person
from chartgate.sdk.watching import Routes, watching

__all__ = ["LocalPatient", "LocalPolicy", "Routes", "assert_every_route_asks", "person", "watching"]


def assert_every_route_asks(app: Any, routes: Routes, *, but: tuple[str, ...] = ()) -> None:
    """See ``Routes.check``."""
    routes.check(app, but=but)
