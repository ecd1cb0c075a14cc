"""The fixture ``chartgate_routes``: which routes of the application have asked, so far.

In ``conftest.py``: ``pytest_plugins = ["chartgate.sdk.pytest_plugin"]``. It watches the whole session;
put the test that calls ``chartgate_routes.check(app)`` last, or exercise the routes within it.
"""

from collections.abc import Iterator

import pytest

from chartgate.sdk.watching import Routes, watching


@pytest.fixture(scope="session")
def _chartgate_watch() -> Iterator[Routes]:
    with watching() as routes:
        yield routes


@pytest.fixture(autouse=True, scope="session")
def chartgate_routes(_chartgate_watch: Routes) -> Routes:
    """What was answered since the session began."""
    return _chartgate_watch
