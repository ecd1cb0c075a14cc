"""The control plane on a real PostgreSQL: changes, and how soon a node knows."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from chartgate.adapters.control_plane import (
    ControlPlane,
    ControlPlaneUnavailable,
    UnknownName,
    open_control_plane,
)
from chartgate.adapters.control_plane_feed import ControlPlaneFeed
from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot, RoleRecord
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.errors import Misconfigured

pytestmark = pytest.mark.system

T0 = datetime(2026, 3, 1, tzinfo=UTC)
VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"
ROLES = (
    RoleRecord("workforce", "Workforce"),
    RoleRecord("clinician", "Clinician", parents=("workforce",)),
    RoleRecord("physician", "Physician", "TREAT", ("TREAT", "ETREAT"), ("clinician",)),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("control") / "pg") as running:
        yield running


@pytest.fixture
def conninfo(server: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    with psycopg.connect(server.conninfo("postgres", "postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        yield server.conninfo(name, "postgres")
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def plane(conninfo: str) -> Iterator[ControlPlane]:
    with open_control_plane(conninfo) as opened:
        opened.set_roles(ROLES)
        yield opened


@pytest.fixture
async def feed(conninfo: str, plane: ControlPlane) -> AsyncIterator[ControlPlaneFeed]:
    async with ControlPlaneFeed(conninfo, sweep_seconds=0.5, stale_seconds=1.5) as following:
        yield following


async def until(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (the condition is in another process)
            await asyncio.sleep(0.005)


def test_a_person_keeps_her_uid_when_she_is_added_again(plane: ControlPlane) -> None:
    uid = plane.upsert_person("mwelby", "Marcus Welby")
    assert plane.upsert_person("mwelby", "Marcus J. Welby") == uid
    assert uid.startswith("p_")
    assert len(uid) == 18
    assert plane.snapshot().names[uid] == "Marcus J. Welby"


def test_a_person_is_never_removed_or_renumbered(plane: ControlPlane, conninfo: str) -> None:
    plane.upsert_person("mwelby", "Marcus Welby")
    with psycopg.connect(conninfo, autocommit=True) as anyone:
        for statement in (
            "DELETE FROM person",
            "TRUNCATE person CASCADE",
            "UPDATE person SET uid = 'p_0000000000000000'",
        ):
            with pytest.raises(psycopg.errors.RestrictViolation):
                anyone.execute(statement)


def test_every_change_raises_the_epoch_and_no_change_leaves_it(plane: ControlPlane) -> None:
    epochs = [plane.snapshot().epoch]
    plane.upsert_person("mwelby", "Marcus Welby")
    epochs.append(plane.snapshot().epoch)
    one = plane.assign("mwelby", "physician", "cardiology", valid_from=T0)
    epochs.append(plane.snapshot().epoch)
    plane.set_credential("mwelby", VERIFIER, T0 + timedelta(hours=1))
    epochs.append(plane.snapshot().epoch)
    plane.end_assignment(one, at=T0 + timedelta(days=1))
    epochs.append(plane.snapshot().epoch)
    plane.deactivate("mwelby")
    epochs.append(plane.snapshot().epoch)
    assert epochs == sorted(set(epochs))
    plane.set_roles(ROLES)
    assert plane.snapshot().epoch == epochs[-1]


def test_an_ended_assignment_stays_on_record_and_stops_counting(plane: ControlPlane) -> None:
    plane.upsert_person("ddba", "Dan Dba")
    held = plane.assign("ddba", "physician", None, valid_from=T0, reference="OPS-2041")
    assert plane.assign("ddba", "physician", None, valid_from=T0, reference="OPS-2041") == held
    plane.end_assignment(held, at=T0 + timedelta(hours=8))
    plane.end_assignment(held, at=T0 + timedelta(hours=9))
    person = plane.snapshot().persons["ddba"]
    assert [a.reference for a in person.live(at=T0 + timedelta(hours=7))] == ["OPS-2041"]
    assert person.live(at=T0 + timedelta(hours=8)) == ()


def test_an_assignment_is_about_one_patient(plane: ControlPlane) -> None:
    plane.upsert_person("nadams", "Nora Adams")
    mine = plane.assign("nadams", "physician", None, valid_from=T0, patient="4711")
    assert plane.assign("nadams", "physician", None, valid_from=T0, patient="4711") == mine
    assert plane.assign("nadams", "physician", None, valid_from=T0, patient="4712") != mine
    assert plane.assign("nadams", "physician", None, valid_from=T0) != mine
    held = plane.snapshot().persons["nadams"].assignments
    assert [a.patient for a in held] == ["4711", "4712", None]
    with pytest.raises(Misconfigured):
        plane.assign("nadams", "physician", None, valid_from=T0, patient="")


def test_a_credential_ends_with_its_time_and_with_its_person(plane: ControlPlane) -> None:
    plane.upsert_person("nadams", "Nora Adams")
    plane.set_credential("nadams", VERIFIER, T0)
    taken = plane.snapshot()
    assert taken.credential("nadams", at=T0 - timedelta(seconds=1)) is not None
    assert taken.credential("nadams", at=T0) is None
    assert VERIFIER not in repr(taken)
    plane.deactivate("nadams")
    assert plane.snapshot().credential("nadams", at=T0 - timedelta(days=1)) is None
    assert not plane.snapshot().persons["nadams"].active


def test_purposes_come_from_the_live_roles(plane: ControlPlane) -> None:
    plane.upsert_person("mwelby", "Marcus Welby")
    plane.assign("mwelby", "physician", "cardiology", valid_from=T0)
    taken = plane.snapshot()
    person = taken.persons["mwelby"]
    assert taken.default_purpose(person, at=T0) == "TREAT"
    assert taken.purposes(person, at=T0) == {"TREAT", "ETREAT"}
    assert taken.purposes(person, at=T0 - timedelta(seconds=1)) == frozenset()
    assert taken.ancestors("physician") == {"physician", "clinician", "workforce"}


def test_what_does_not_exist_is_refused_by_name_of_its_kind(plane: ControlPlane) -> None:
    with pytest.raises(UnknownName, match="no person"):
        plane.set_credential("nobody", VERIFIER, T0)
    plane.upsert_person("mwelby", "Marcus Welby")
    with pytest.raises(UnknownName, match="no role surgeon"):
        plane.assign("mwelby", "surgeon", None, valid_from=T0)
    with pytest.raises(Misconfigured, match="SCRAM"):
        plane.set_credential("mwelby", "secret", T0)
    with pytest.raises(Misconfigured, match="person_name_check"):
        plane.upsert_person("Robert'); DROP", "x")
    plane.assign("mwelby", "physician", None, valid_from=T0)
    with pytest.raises(Misconfigured, match="still assigned"):
        plane.set_roles(ROLES[:2])


def test_a_newer_schema_is_refused(plane: ControlPlane, conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as anyone:
        anyone.execute("INSERT INTO migration VALUES (99)")
    with pytest.raises(ControlPlaneUnavailable, match="version 99"):
        open_control_plane(conninfo)


async def test_a_node_learns_of_a_cut_off_without_waiting_for_a_sweep(
    plane: ControlPlane, conninfo: str
) -> None:
    await asyncio.to_thread(plane.upsert_person, "mwelby", "Marcus Welby")
    seen: list[ControlPlaneSnapshot] = []
    async with ControlPlaneFeed(conninfo, on_change=seen.append, sweep_seconds=60) as feed:
        assert feed.snapshot.persons["mwelby"].active
        started = time.monotonic()
        await asyncio.to_thread(plane.deactivate, "mwelby")
        await until(lambda: not feed.snapshot.persons["mwelby"].active)
        assert time.monotonic() - started < 5
        assert seen[-1] is feed.snapshot


async def test_a_sweep_finds_what_no_notification_told(
    feed: ControlPlaneFeed, conninfo: str
) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as forger:
        await forger.execute("SET session_replication_role = replica")
        await forger.execute(
            "INSERT INTO person (uid, name, full_name) "
            "VALUES ('p_00000000000000aa', 'quiet', 'Quiet Change')"
        )
        await forger.execute("UPDATE state SET value = '1000000' WHERE key = 'epoch'")
    await until(lambda: "quiet" in feed.snapshot.persons)


async def test_a_lost_link_is_found_stale_and_restored(
    feed: ControlPlaneFeed, server: EmbeddedPostgres, conninfo: str
) -> None:
    assert feed.is_fresh(time.monotonic())
    async with await psycopg.AsyncConnection.connect(
        server.conninfo("postgres", "postgres"), autocommit=True
    ) as admin:
        name = psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute(kill, [name])
        await until(lambda: not feed.is_fresh(time.monotonic()))
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await until(lambda: feed.is_fresh(time.monotonic()))


async def test_a_node_without_a_control_plane_does_not_start(tmp_path: Path) -> None:
    feed = ControlPlaneFeed(f"host={tmp_path} dbname=none")
    with pytest.raises(ControlPlaneUnavailable):
        await feed.start()
    assert not feed.is_fresh(time.monotonic())
