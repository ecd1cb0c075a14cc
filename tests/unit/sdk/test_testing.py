"""What applications test with: the engine of a folder, and the list of their routes."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from chartgate.model.service import Scope
from chartgate.sdk import Record
from chartgate.sdk.errors import Misused
from chartgate.sdk.routes import routes_of
from chartgate.sdk.testing import LocalPatient, LocalPolicy, person

ROOT = Path(__file__).resolve().parents[3]
LABS = Record(patient="17", category="labs")


def local(**more: object) -> LocalPolicy:
    return LocalPolicy(
        ROOT / "policies",
        [
            person("nadams", "nurse", "cardiology"),
            person("gone", "nurse", "cardiology", until=datetime(2001, 1, 1, tzinfo=UTC)),
        ],
        data_map=ROOT / "maps" / "hospital.toml",
        patients=[LocalPatient("17", {"departments": ["cardiology"], "care_team": ["mwelby"]})],
        **more,  # type: ignore[arg-type]
    )


def test_it_decides_as_the_engine_does() -> None:
    gate = local()
    decision = gate.decide("nadams", "view", LABS)
    assert decision.allowed
    assert decision.policies == ("nurse_cares",)
    assert gate.levels("nadams", LABS)["labs"].label == "full"
    assert not gate.decide("gone", "view", LABS).allowed
    assert not gate.decide("nobody", "view", LABS).allowed
    assert not gate.decide("nadams", "view", Record(patient="18", category="labs")).allowed


def test_nothing_of_it_is_on_record() -> None:
    assert local().decide("nadams", "view", LABS).audit_index is None


def test_the_accounts_scope_counts() -> None:
    gate = local(scope=Scope(frozenset({"view"}), frozenset({"Record"}), frozenset({"notes"})))
    decision = gate.decide("nadams", "view", LABS)
    assert decision.reason is not None
    assert decision.reason.code == "question_refused"


def test_a_set_that_the_schema_does_not_know_is_an_error() -> None:
    with pytest.raises(Misused, match="no set"):
        LocalPolicy(ROOT / "policies", [], patients=[LocalPatient("17", {"friends": ["mwelby"]})])


def test_a_kind_of_route_that_cannot_be_listed_is_an_error() -> None:
    class Odd(BaseRoute):
        pass

    with pytest.raises(Misused, match="cannot be listed"):
        routes_of(Starlette(routes=[Odd()]))
    with pytest.raises(Misused, match="cannot be listed"):
        routes_of(object())


CONFTEST = 'pytest_plugins = ["chartgate.sdk.pytest_plugin"]'
TESTS = """
import asyncio
import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from chartgate.sdk.starlette import ChartgateMiddleware

async def forgotten(request):
    return JSONResponse({})

app = Starlette(
    routes=[Route("/forgotten", forgotten)],
    middleware=[Middleware(ChartgateMiddleware, gate=object())],
)

def test_it():
    async def get():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await client.get("/forgotten")
    assert asyncio.run(get()).status_code == 500

def test_every_route_asks(chartgate_routes):
    chartgate_routes.check(app)
"""


def test_the_plugin_watches_a_whole_session(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_app.py").write_text(TESTS)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 failed, 1 passed" in ran.stdout
    assert "GET /forgotten answered without asking Chartgate" in ran.stdout
