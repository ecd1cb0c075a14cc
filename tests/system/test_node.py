"""A deciding node beside a running gate: fed by the control plane, recorded by the gate's writer."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from chartgate.adapters.control_plane import ControlPlane
from chartgate.adapters.grant_store import GrantDesk, GrantRefused, issue_grant, new_grant_id
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.node import Node
from chartgate.adapters.policy_in_force import load_for
from chartgate.adapters.service_accounts import ServiceDesk, ServiceRefused
from chartgate.app.authzen_paging import Page
from chartgate.app.authzen_search import ResourceSearch, Sought, SubjectSearch, Wanted
from chartgate.app.grants import Given, NotGrantable, grant_text
from chartgate.app.node_asked import Asked, Caller, NodeNotReady, UnknownCaller
from chartgate.app.policy_orders import Sealed
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Ruling
from chartgate.errors import Misconfigured
from chartgate.model.event import (
    Alarm,
    Evaluation,
    GrantStep,
    PolicyInForce,
    Search,
    ServiceStep,
)
from chartgate.model.service import EVERYTHING, Scope, Service

pytestmark = pytest.mark.system

CALLER = Caller(Service("s_0123456789abcdef", "app", True, EVERYTHING), "https")
LABS = Given(("view", "view_summary", "view_masked"), categories=("labs",), purpose="TREAT")


@pytest.fixture(scope="module")
def control(gate: Any) -> Iterator[ControlPlane]:
    with gate.control() as opened:
        before = opened.snapshot().persons.keys()
        yield opened
        for name in opened.snapshot().persons.keys() - before:
            opened.deactivate(name)  # the gate is shared: whoever was made here is nobody there


@pytest.fixture(scope="module")
def patient(gate: Any) -> str:
    with gate.admin() as sql:
        (key,) = sql.execute(
            "SELECT patient_id FROM encounter WHERE department = 'cardiology' LIMIT 1"
        ).fetchone()
    return str(key)


@asynccontextmanager
async def opened(gate: Any, name: str = "demo/decide-9", **arguments: Any) -> AsyncIterator[Node]:
    async with (
        RemoteLog(gate.state.log_socket) as log,
        Node(gate.state, gate.state.instance(), name, log, **arguments) as node,
    ):
        yield node
    await asyncio.sleep(0)  # the link's transport closes in the loop's next turn


@pytest.fixture
async def node(gate: Any) -> AsyncIterator[Node]:
    async with opened(gate) as made:
        yield made


def about(who: str, patient: str, category: str = "labs") -> Question:
    properties = {"patient": patient, "category": category}
    return Question(Subject("User", who), Action("view"), Resource("Record", patient, properties))


async def ruled(node: Node, question: Question) -> Ruling:
    return (await node.answer(Asked((question,), "t"), CALLER)).rulings[0]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (the condition is in another process)
            await asyncio.sleep(0.005)


async def denied_within(node: Node, question: Question, seconds: float) -> float:
    began = time.monotonic()
    while (await ruled(node, question)).allowed:
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.002)
    return time.monotonic() - began


def make(control: ControlPlane, name: str, role: str | None = None) -> int:
    control.upsert_person(name, f"{name} of the node's tests")
    if role is None:
        return 0
    return control.assign(name, role, "cardiology", valid_from=datetime(2026, 1, 1, tzinfo=UTC))


async def test_a_decision_is_on_record_before_it_is_answered(
    gate: Any, node: Node, control: ControlPlane, patient: str
) -> None:
    make(control, "node_asks", "physician")
    await until(lambda: "node_asks" in node.people.persons)
    question = about("node_asks", patient)
    answered = await node.answer(Asked((question,), "req-1"), CALLER)
    [(_, event)] = gate.events(answered.index)[:1]
    assert isinstance(event, Evaluation)
    assert event.node == "demo/decide-9"
    assert event.items[0].person == control.snapshot().persons["node_asks"].uid
    assert set(gate.tokens([patient])) >= {event.items[0].patient}
    assert (answered.log, answered.epoch) == (gate.state.instance().origin, node.epoch)
    assert node.is_ready()


async def test_the_age_of_what_a_node_knows_is_measured(node: Node) -> None:
    await until(lambda: 0 <= node.measures()["feed_age_seconds"] < 15)
    assert node.measures()["log_queue"] == 0


async def test_a_node_says_what_it_has_in_force(gate: Any, node: Node) -> None:
    told = [e for _, e in gate.events() if isinstance(e, PolicyInForce) and e.node == node.name]
    said = {event.subject: event for event in told}
    assert said["policies"].content == node.ready.version.hash
    assert said["policies"].policy_set == node.ready.version.policies.hash
    assert said["policies"].data_map == node.rulings.data_map_hash
    with psycopg.connect(gate.ready.control) as sql:
        rows = sql.execute(
            "SELECT hash FROM policy_node WHERE node = %s AND subject = 'policies'", [node.name]
        ).fetchall()
    assert rows == [(node.ready.version.hash,)]


async def test_who_is_cut_off_is_denied_at_once(
    node: Node, control: ControlPlane, patient: str
) -> None:
    held = make(control, "node_leaves", "physician")
    question = about("node_leaves", patient)
    await until(lambda: "node_leaves" in node.people.persons)
    assert (await ruled(node, question)).allowed
    control.end_assignment(held, at=datetime.now(UTC))
    assert await denied_within(node, question, 1) < 1
    make(control, "node_leaves", "physician")
    await until(lambda: len(node.people.persons["node_leaves"].assignments) == 2)
    assert (await ruled(node, question)).allowed
    control.deactivate("node_leaves")
    assert await denied_within(node, question, 1) < 1


def desk(gate: Any, control: ControlPlane, kind: type[Any]) -> Any:
    instance = gate.state.instance()
    return kind(gate.state, instance, load_for(gate.state, instance), control)


async def test_a_grant_counts_once_a_second_person_approved_it_and_until_it_is_ended(
    gate: Any, node: Node, control: ControlPlane, patient: str
) -> None:
    make(control, "node_granted", "receptionist_scheduler")
    approver = desk(gate, control, GrantDesk)
    petra = approver.sign_in("pofficer", gate.password("pofficer"))
    question = about("node_granted", patient)
    question = Question(
        question.subject, question.action, question.resource, {"purpose": "PATADMIN"}
    )
    await until(lambda: "node_granted" in node.people.persons)
    assert not (await ruled(node, question)).allowed
    given = Given(("view",), categories=("labs",), patient=patient)
    end = datetime.now(UTC) + timedelta(hours=1)
    issued = approver.issue(petra, "node_granted", given, until=end, reason="covers for R. Sick")
    await until(lambda: issued.id in node._in_force.granted)  # type: ignore[union-attr]
    ruling = await ruled(node, question)
    assert ruling.allowed
    assert ruling.grants == (issued.id,)
    assert ruling.valid_until is not None
    steps = [e for _, e in gate.events() if isinstance(e, GrantStep) and e.grant == issued.id]
    assert [(e.step, e.person) for e in steps] == [("approved", petra.uid)]

    assert approver.revoke(petra, issued.id, reason="is back")
    assert await denied_within(node, question, 1) < 1
    assert not approver.revoke(petra, issued.id, reason="again")
    assert [one.revoked_at is None for one in approver.list() if one.id == issued.id] == [False]


async def test_a_grant_is_refused_where_nobody_else_approved_it(
    gate: Any, control: ControlPlane
) -> None:
    make(control, "node_nobody")
    approver = desk(gate, control, GrantDesk)
    petra = approver.sign_in("pofficer", gate.password("pofficer"))
    marcus = approver.sign_in("mwelby", gate.password("mwelby"))
    end = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(NotGrantable, match="herself"):
        approver.issue(petra, "pofficer", LABS, until=end, reason="x")
    before = gate.size
    with pytest.raises(GrantRefused):
        approver.issue(marcus, "node_nobody", LABS, until=end, reason="x")
    (refused,) = [e for _, e in gate.events(before) if isinstance(e, GrantStep)]
    assert (refused.step, refused.person) == ("refused", marcus.uid)
    with pytest.raises(
        NotGrantable, match=r"know no action fly on Record; they know create, .* view"
    ):
        approver.issue(petra, "node_nobody", Given(("fly",)), until=end, reason="x")
    with pytest.raises(NotGrantable, match="future"):
        approver.issue(petra, "node_nobody", LABS, until=datetime.now(UTC), reason="x")


async def test_a_forged_grant_is_an_alarm_and_gives_nothing(
    gate: Any, node: Node, control: ControlPlane, patient: str
) -> None:
    make(control, "node_forger", "receptionist_scheduler")
    make(control, "node_honest", "receptionist_scheduler")
    approver = desk(gate, control, GrantDesk)
    petra = approver.sign_in("pofficer", gate.password("pofficer"))
    people = control.snapshot().persons
    end = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    honest = approver.issue(petra, "node_honest", Given(("view",)), until=end, reason="x")
    with psycopg.connect(gate.ready.control, autocommit=True) as sql:
        entry, proof = sql.execute(
            'SELECT entry, proof FROM "grant" WHERE id = %s', [honest.id]
        ).fetchone()

        def forge(number: str, policy: str, entry: bytes | None, proof: str | None) -> None:
            sql.execute(
                'INSERT INTO "grant" VALUES (%s, %s, %s, now(), %s, %s, %s, %s, %s)',
                [number, people["node_forger"].uid, policy, end, petra.uid, "x", entry, proof],
            )

        numbers = [new_grant_id() for _ in range(3)]
        texts = [
            grant_text(one, "node_forger", Given(("view",)), since=datetime.now(UTC), until=end)
            for one in numbers
        ]
        before = gate.size
        forge(numbers[0], texts[0], None, None)
        forge(numbers[1], texts[1], entry, proof)
        forge(numbers[2], honest.policy, entry, proof)
    await until(
        lambda: (
            sum(isinstance(e, Alarm) and e.what == "forged_grant" for _, e in gate.events(before))
            == 3
        )
    )
    question = about("node_forger", patient)
    assert not (await ruled(node, question)).allowed
    assert honest.id in node._in_force.granted  # type: ignore[union-attr]


async def test_a_grant_ends_with_the_name_it_was_given_to(
    gate: Any, node: Node, control: ControlPlane
) -> None:
    make(control, "node_renamed", "receptionist_scheduler")
    approver = desk(gate, control, GrantDesk)
    petra = approver.sign_in("pofficer", gate.password("pofficer"))
    end = datetime.now(UTC) + timedelta(hours=1)
    issued = approver.issue(petra, "node_renamed", Given(("view",)), until=end, reason="x")
    await until(lambda: issued.id in node._in_force.granted)  # type: ignore[union-attr]
    with psycopg.connect(gate.ready.control, autocommit=True) as sql:
        sql.execute("UPDATE person SET name = 'node_other' WHERE name = 'node_renamed'")
    await until(lambda: issued.id not in node._in_force.granted)  # type: ignore[union-attr]
    with psycopg.connect(gate.ready.control, autocommit=True) as sql:
        sql.execute("UPDATE person SET name = 'node_renamed' WHERE name = 'node_other'")
    await until(lambda: issued.id in node._in_force.granted)  # type: ignore[union-attr]


async def test_a_service_is_known_by_its_tokens_two_at_a_time(
    gate: Any, node: Node, control: ControlPlane
) -> None:
    office = desk(gate, control, ServiceDesk)
    selma = office.sign_in("sofficer", gate.password("sofficer"))
    scope = Scope(frozenset({"view"}), frozenset({"Record"}), frozenset({"labs"}))
    before = gate.size
    uid = office.add(selma, "node_portal", scope, title="Portal")
    end = datetime.now(UTC) + timedelta(days=30)
    one = office.issue_token(selma, "node_portal", valid_until=end)
    two = office.issue_token(selma, "node_portal", valid_until=end)
    with pytest.raises(Misconfigured, match="two valid"):
        office.issue_token(selma, "node_portal", valid_until=end)
    with (
        psycopg.connect(gate.ready.control, autocommit=True) as sql,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        sql.execute(
            "INSERT INTO service_token (id, service_uid, digest, valid_until) "
            "VALUES ('00000000', %s, sha256('x'), now() + interval '1 day')",
            [uid],
        )
    await until(lambda: len(node.people.services.tokens) >= 2)
    for token in (one, two):
        found = node.service_of_token(token.text)
        assert (found.uid, found.scope) == (uid, scope)
    assert one.text not in repr(one)

    assert office.revoke_token(selma, one.id)
    await until(lambda: len(node.people.services.tokens) == 1)
    with pytest.raises(UnknownCaller):
        node.service_of_token(one.text)
    assert node.service_of_token(two.text).uid == uid

    office.pin_certificate(selma, "node_portal", fingerprint="AB" * 32)
    await until(lambda: bool(node.people.services.fingerprints))
    assert node.service_of_certificate("ab" * 32).uid == uid
    office.set_scope(selma, "node_portal", Scope())
    await until(lambda: node.service_named("node_portal").scope == Scope())
    office.deactivate(selma, "node_portal")
    await until(lambda: not node.people.services.by_uid[uid].active)
    with pytest.raises(UnknownCaller):
        node.service_of_token(two.text)
    steps = [e.step for _, e in gate.events(before) if isinstance(e, ServiceStep)]
    assert steps == [
        "added", "token_issued", "token_issued", "token_revoked", "certificate_pinned", "scoped",
        "deactivated",
    ]  # fmt: skip
    (listed,) = [one for one in office.list() if one.uid == uid]
    assert [token.revoked_at is None for token in listed.tokens] == [False, True]
    marcus = office.sign_in("mwelby", gate.password("mwelby"))
    with pytest.raises(ServiceRefused):
        office.add(marcus, "node_other_portal", scope)


async def test_searches_find_people_and_patients(
    gate: Any, node: Node, control: ControlPlane, patient: str
) -> None:
    make(control, "node_found", "physician")
    await until(lambda: "node_found" in node.people.persons)
    who = SubjectSearch(
        Wanted("User"),
        Action("view"),
        Resource("Record", patient, {"patient": patient, "category": "labs"}),
    )
    found = await node.search(Sought(who, Page(1_000), b""), CALLER, request="s-1")
    assert "node_found" in found.found.names
    assert "node_granted" not in found.found.names
    which = ResourceSearch(
        Subject("User", "node_found"), Action("view"), Wanted("Record", {"category": "labs"})
    )
    page = await node.search(Sought(which, Page(5), b""), CALLER, request="s-2")
    assert len(page.found.names) == 5
    assert page.found.more
    (event,) = [e for _, e in gate.events() if isinstance(e, Search) and e.request == "s-2"]
    assert set(event.patients) <= gate.tokens(page.found.names)
    assert len(event.patients) == 5


async def test_a_node_that_lost_its_link_decides_nothing(gate: Any, patient: str) -> None:
    async with opened(gate, "demo/decide-8", sweep_seconds=0.2, stale_seconds=0.5) as node:
        question = about("mwelby", patient)
        await ruled(node, question)
        assert node._feed is not None
        await node._feed.stop()
        await until(lambda: not node.is_ready())
        with pytest.raises(NodeNotReady, match="control plane"):
            await ruled(node, question)


def test_nothing_is_filed_that_nobody_recorded(control: ControlPlane) -> None:
    make(control, "node_unfiled")
    people = control.snapshot().persons
    end = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    number = new_grant_id()

    def failing(_: GrantStep) -> Sealed:
        raise RuntimeError("the log is full")

    with pytest.raises(RuntimeError):
        issue_grant(
            control,
            failing,
            node="n",
            approver=people["pofficer"],
            beneficiary=people["node_unfiled"],
            grant_id=number,
            policy=grant_text(number, "node_unfiled", LABS, since=datetime.now(UTC), until=end),
            since=datetime.now(UTC),
            until=end,
            reason="x",
            at=datetime.now(UTC),
        )
    assert number not in control.snapshot().grants
