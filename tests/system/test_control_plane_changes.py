"""What a node reads of a change: that, and everything again where the changes do not add up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from chartgate.adapters.control_plane import ControlPlane, open_control_plane
from chartgate.adapters.control_plane_feed import ControlPlaneFeed
from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot, RoleRecord
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.errors import Misconfigured

pytestmark = pytest.mark.system

T0 = datetime(2026, 3, 1, tzinfo=UTC)
ROLES = (RoleRecord("physician", "Physician"), RoleRecord("nurse", "Nurse"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("changes") / "pg") as running:
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
        for name in ("ann", "bob", "cleo"):
            opened.upsert_person(name, name.title())
            opened.assign(name, "physician", "icu", valid_from=T0, reference="HR 1", patient="7")
        yield opened


@pytest.fixture
def sql(conninfo: str, plane: ControlPlane) -> Iterator[Callable[..., Any]]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield connection.execute


class Seen:
    """A feed, and the snapshots that came of changes."""

    def __init__(self, feed: ControlPlaneFeed, snapshots: list[ControlPlaneSnapshot]) -> None:
        self.feed = feed
        self.snapshots = snapshots

    async def of(self, change: Callable[[], Any]) -> ControlPlaneSnapshot:
        """The snapshot that comes of one change."""
        count = len(self.snapshots)
        await asyncio.to_thread(change)
        async with asyncio.timeout(10):
            while len(self.snapshots) == count:  # noqa: ASYNC110  (it is in another process)
                await asyncio.sleep(0.002)
        return self.snapshots[-1]


@pytest.fixture
async def seen(conninfo: str, plane: ControlPlane) -> AsyncIterator[Seen]:
    found: list[ControlPlaneSnapshot] = []
    async with ControlPlaneFeed(conninfo, on_change=found.append, sweep_seconds=0.3) as feed:
        yield Seen(feed, found)


async def test_a_change_names_whom_it_is_about_and_shares_all_others(
    seen: Seen, plane: ControlPlane
) -> None:
    before = seen.feed.snapshot
    ann, bob = before.persons["ann"], before.persons["bob"]
    after = await seen.of(lambda: plane.assign("ann", "nurse", None, valid_from=T0))
    assert after.changed.names == {"ann"}
    assert not after.changed.everything
    assert after.persons["bob"] is bob
    assert before.persons["ann"] is ann
    assert [a.role for a in after.persons["ann"].assignments] == ["physician", "nurse"]
    assert after.persons["ann"].assignments[0] == ann.assignments[0]
    assert ann.assignments[0].reference == "HR 1"
    assert ann.assignments[0].patient == "7"
    assert after.person_of(ann.uid) is after.persons["ann"]


async def test_a_new_name_is_told_with_the_old_one(seen: Seen, sql: Callable[..., Any]) -> None:
    uid = seen.feed.snapshot.persons["bob"].uid
    after = await seen.of(lambda: sql("UPDATE person SET name = 'rob' WHERE name = 'bob'"))
    assert after.changed.names == {"bob", "rob"}
    assert "bob" not in after.persons
    assert after.persons["rob"].uid == uid
    assert len(after.persons) == 3
    assert set(after.persons) == {"ann", "rob", "cleo"}
    assert after.names[uid] == "Bob"
    swap = "UPDATE person SET name = 'x' WHERE name = 'ann'; UPDATE person SET name = 'ann' WHERE name = 'rob'"
    after = await seen.of(lambda: sql(swap))
    if "rob" in after.persons:  # the first statement alone
        after = await seen.of(lambda: None)
    assert after.persons["ann"].uid == uid


async def test_an_assignment_that_moves_is_told_of_both(
    seen: Seen, sql: Callable[..., Any]
) -> None:
    uids = {name: seen.feed.snapshot.persons[name].uid for name in ("ann", "cleo")}
    after = await seen.of(
        lambda: sql(
            "UPDATE assignment SET person_uid = %s WHERE person_uid = %s",
            [uids["cleo"], uids["ann"]],
        )
    )
    assert after.changed.names == {"ann", "cleo"}
    assert after.persons["ann"].assignments == ()
    assert len(after.persons["cleo"].assignments) == 2


async def test_roles_credentials_and_services_are_read_when_they_change(
    seen: Seen, plane: ControlPlane, sql: Callable[..., Any]
) -> None:
    verifier = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"
    until = T0 + timedelta(days=1)
    after = await seen.of(lambda: plane.set_credential("ann", verifier, until))
    assert after.changed.names == {"ann"}
    found = after.credential("ann", at=T0)
    assert found is not None
    assert found.valid_until == until
    assert list(after.credentials) == ["ann"]
    assert len(after.credentials) == 1
    after = await seen.of(lambda: plane.set_roles([*ROLES, RoleRecord("clerk", "Clerk")]))
    assert after.changed.roles
    assert "clerk" in after.roles
    after = await seen.of(
        lambda: sql(
            "INSERT INTO service (uid, name, scope) "
            "VALUES ('s_0000000000000001', 'app', '{\"actions\": [\"view\"]}')"
        )
    )
    assert after.changed.services
    assert after.services.named("app").scope.admits_action("view")
    after = await seen.of(lambda: sql("UPDATE service SET scope = '{\"unheard\": 1}'"))
    assert not after.services.named("app").scope.admits_action("view")


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM change",
        "UPDATE change SET mark = gen_random_uuid()",
        "TRUNCATE assignment",
        "UPDATE change SET kind = 'unheard' WHERE epoch > 0",
    ],
    ids=["pruned", "another history", "emptied", "of another program"],
)
async def test_where_the_changes_do_not_add_up_everything_is_read(
    seen: Seen, conninfo: str, loss: str
) -> None:
    known = seen.feed.snapshot.mark
    assert known

    def change() -> None:
        with psycopg.connect(conninfo) as link:  # one transaction
            link.execute("UPDATE person SET full_name = 'Ann Other' WHERE name = 'ann'")
            link.execute(loss)

    after = await seen.of(change)
    assert after.changed.everything
    assert after.persons["ann"].full_name == "Ann Other"


async def test_very_many_at_once_are_everything(seen: Seen, sql: Callable[..., Any]) -> None:
    after = await seen.of(
        lambda: sql(
            "INSERT INTO person (uid, name, full_name) SELECT 'p_' || lpad(to_hex(n), 16, '0'), "
            "'many' || n, 'Many' FROM generate_series(1, 10001) n"
        )
    )
    assert after.changed.everything
    assert len(after.persons) == 10_004


def test_a_statement_that_changes_nothing_wakes_nobody(
    plane: ControlPlane, sql: Callable[..., Any]
) -> None:
    before = plane.snapshot()
    sql("UPDATE person SET full_name = 'x' WHERE name = 'nobody'")
    sql("DELETE FROM assignment WHERE id < 0")
    after = plane.snapshot()
    assert (after.epoch, after.mark) == (before.epoch, before.mark)


def test_old_changes_are_not_kept_for_ever(plane: ControlPlane, sql: Callable[..., Any]) -> None:
    sql("UPDATE state SET value = '99999' WHERE key = 'epoch'")
    sql("UPDATE change SET epoch = 1")
    for _ in range(97):  # until a multiple of 256 is passed
        plane.upsert_person("ann", f"Ann {_}")
    sql("UPDATE state SET value = '102399' WHERE key = 'epoch'")
    plane.upsert_person("ann", "Ann")
    rows = sql("SELECT min(epoch) FROM change").fetchone()
    assert rows[0] > 1


def test_names_that_could_be_taken_for_several_are_refused(plane: ControlPlane) -> None:
    for field in ("department", "reference", "patient"):
        given = {"department": "icu", field: "a\x1cb"}
        with pytest.raises(Misconfigured, match="plain_text"):
            plane.assign("ann", "nurse", valid_from=T0, **given)


def test_instants_that_python_does_not_have_are_its_last(
    plane: ControlPlane, sql: Callable[..., Any]
) -> None:
    sql("UPDATE assignment SET valid_from = '-infinity', valid_until = 'infinity'")
    (held,) = plane.snapshot().persons["ann"].assignments
    assert held.is_live(at=T0)
    assert held.valid_until is None
    sql("UPDATE assignment SET valid_from = '20000-01-01', valid_until = '20001-01-01'")
    (held,) = plane.snapshot().persons["ann"].assignments
    assert not held.is_live(at=T0)
