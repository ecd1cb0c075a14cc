"""The decision service under attack by those who are let in, over its real door beside a running gate."""

import asyncio
import base64
import http.client
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from chartgate.adapters.decision_doors import Doors, Opening
from chartgate.adapters.grant_store import GrantDesk
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.node import Node
from chartgate.adapters.policy_in_force import load_for
from chartgate.app.grants import Given
from chartgate.model.event import Alarm, Evaluation
from chartgate.model.service import EVERYTHING, Scope, Service

pytestmark = [pytest.mark.system, pytest.mark.timeout(40)]

NARROW = Scope(frozenset({"*"}), frozenset({"*"}), frozenset({"*"}), frozenset({"context.acr"}))
MISSING = "999999999"
Ask = Callable[..., Any]


class Served(Node):
    """A node at which every token is a service's whose scope the test says."""

    scope: Scope = EVERYTHING

    def service_of_token(self, token: str) -> Service:
        return Service("s_0123456789abcdef", "app", True, self.scope)


@pytest.fixture
async def service(gate: Any) -> AsyncIterator[tuple[Served, Ask]]:
    async with (
        RemoteLog(gate.state.log_socket) as log,
        Served(gate.state, gate.state.instance(), "demo/decide-8", log) as node,
    ):
        doors = Doors(node, Opening(plain=True), pager_key=bytes(32))
        await doors.open()

        def send(path: str, body: str | bytes) -> tuple[int, Any]:
            link = http.client.HTTPConnection("127.0.0.1", doors.port, timeout=20)
            data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
            head = {"Content-Type": "application/json", "Authorization": "Bearer t"}
            link.request("POST", f"/access/v1/{path}", data, head)
            answer = link.getresponse()
            found = answer.status, json.loads(answer.read() or b"null")
            link.close()
            return found

        async def ask(body: Any, path: str = "evaluation") -> tuple[int, Any]:
            text = body if isinstance(body, str | bytes) else json.dumps(body)
            return await asyncio.to_thread(send, path, text)

        try:
            yield node, ask
        finally:
            await doors.close()


def about(
    patient: Any, who: str = "mwelby", action: str = "view", context: Any = None, **said: Any
) -> dict[str, Any]:
    said = said or {"category": "labs"}
    return {
        "subject": {"type": "User", "id": who},
        "action": {"name": action},
        "resource": {"type": "Record", "id": "r", "properties": {"patient": patient, **said}},
        "context": context or {},
    }


@pytest.fixture(scope="module")
def patients(gate: Any) -> dict[str, str]:
    """A patient of cardiology, one of nobody whom mwelby knows, one whom a label hides from him."""
    with gate.admin() as sql:
        every = [k for (k,) in sql.execute("SELECT patient_id::text FROM patient ORDER BY 1")]
        ours = {
            k
            for (k,) in sql.execute(
                "SELECT patient_id::text FROM encounter WHERE department = 'cardiology' UNION "
                "SELECT patient_id::text FROM care_team t JOIN staff s USING (staff_id) "
                "WHERE s.username = 'mwelby'"
            )
        }
        flagged = {k for (k,) in sql.execute("SELECT DISTINCT patient_id::text FROM patient_flag")}
        team = {
            k
            for (k,) in sql.execute(
                "SELECT patient_id::text FROM care_team t JOIN staff s USING (staff_id) "
                "WHERE s.username = 'mwelby'"
            )
        }
    return {
        "ours": next(k for k in every if k in ours and k not in flagged),
        "other": next(k for k in every if k not in ours and k not in flagged),
        "protected": next(k for k in every if k in flagged and k in ours and k not in team),
        "protected_other": next(k for k in every if k in flagged and k not in ours),
    }


def told(answer: tuple[int, Any]) -> tuple[int, Any]:
    """All of an answer but where it is recorded."""
    status, body = answer
    body["context"].pop("audit", None)
    return status, body


async def test_whom_a_label_hides_and_who_is_not_there_are_answered_alike(
    service: tuple[Served, Ask], patients: dict[str, str]
) -> None:
    node, ask = service
    node.scope = NARROW
    seen = 0
    for who in ["mwelby", *sorted(set(node.people.persons) - {"mwelby"})[::4]]:
        for action in ("view", "view_masked", "update", "share"):
            context = {"recipient": "Registry"} if action == "share" else {}
            for category in ("labs", "scheduling", "billing"):
                keys = (MISSING, "abc", "9" * 30, patients["protected_other"])
                asked = [about(key, who, action, context, category=category) for key in keys]
                _, body = await ask({"evaluations": asked}, "evaluations")
                missing, *others, hidden = [told((200, one)) for one in body["evaluations"]]
                assert all(other == missing for other in others)
                assert missing[1]["decision"] is False
                levels = hidden[1]["context"].get("levels", {}).values()
                if hidden[1]["decision"] or set(levels) != {"withheld"}:
                    continue  # she sees the patient, or, of a change, may
                assert hidden == missing, (who, category)
                seen += 1
    assert seen


async def test_why_a_patient_is_hidden_is_for_the_log_alone(
    gate: Any, service: tuple[Served, Ask], patients: dict[str, str]
) -> None:
    _, ask = service
    before = gate.size
    hidden = told(await ask(about(patients["protected"])))
    assert hidden == told(await ask(about(MISSING)))
    assert "protected" not in json.dumps(hidden)
    (first, second) = [e for _, e in gate.events(before) if isinstance(e, Evaluation)]
    assert "protected_person_care_team_only" in first.items[0].determining
    assert second.items[0].determining == ()


async def test_no_other_spelling_of_a_key_is_the_patient(
    service: tuple[Served, Ask], patients: dict[str, str]
) -> None:
    _, ask = service
    key = patients["ours"]
    assert (await ask(about(key)))[1]["decision"]
    for other in (
        f" {key}",
        f"0{key}",
        f"+{key}",
        f"{key}.0",
        f"{{{key}}}",
        f'{key}","2',
        "\u0661",
    ):
        assert told(await ask(about(other))) == told(await ask(about(MISSING))), other
    text = json.dumps(about(key))
    doubled = text.replace('"patient":', '"\\u0070atient": "2", "patient":')
    assert (await ask(doubled))[0] == 400
    for wrong in ("1.0", "1e0", "true", "null", "[1]", '""'):
        status, body = await ask(text.replace(f'"patient": "{key}"', f'"patient": {wrong}'))
        assert (status, body["decision"]) == (200, False)


async def test_nothing_that_a_caller_writes_is_written_down(
    gate: Any, service: tuple[Served, Ask], capfd: pytest.CaptureFixture[str]
) -> None:
    node, ask = service
    plant = "Plantagenet-4711"
    said = {plant: plant, "purpose": plant, "session": plant, "ip": plant, "device": plant}
    asked = [
        {
            "subject": {"type": plant, "id": plant, "properties": {plant: plant}},
            "action": {"name": plant, "properties": {plant: plant}},
            "resource": {"type": plant, "id": plant, "properties": {plant: plant}},
        },
        {**about("1"), "subject": {"type": "User", "id": plant}},
        about(plant),
        about("1", context=said),
        about("1", context={"session": plant, "recipient": plant}),
        *(about("1", **{name: plant}) for name in ("category", "fields", "labels", "author")),
        about("1", fields=[plant]),
        about("1", fields={plant: "labs"}),
        about("1", fields={"a": plant}),
    ]
    for scope in (NARROW, EVERYTHING):
        node.scope = scope
        status, body = await ask({"evaluations": asked}, "evaluations")
        assert (status, len(body["evaluations"])) == (200, len(asked))
        for one in asked:
            await ask(one)
    await ask({"evaluations": asked, "page": {"token": plant}}, "search/subject")
    forms = [
        plant.encode(), plant.encode().hex().encode(), base64.b64encode(plant.encode())[:-3],
    ]  # fmt: skip
    root = gate.state.root
    looked = [
        p for p in root.rglob("*") if p.is_file() and "pg" not in p.relative_to(root).parts[0]
    ]
    assert any(gate.state.log_dir in path.parents for path in looked)
    found = [path for path in looked for form in forms if form in path.read_bytes()]
    assert found == []
    out, err = capfd.readouterr()
    assert plant not in out + err


async def test_a_grant_that_was_ended_is_not_brought_back_by_a_row(
    gate: Any, service: tuple[Served, Ask], patients: dict[str, str]
) -> None:
    _, ask = service
    instance = gate.state.instance()
    with gate.control() as control:
        control.upsert_person("attack_granted", "Attack Granted")
        control.assign(
            "attack_granted", "receptionist_scheduler", "cardiology",
            valid_from=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        office = GrantDesk(gate.state, instance, load_for(gate.state, instance), control)
        petra = office.sign_in("pofficer", gate.password("pofficer"))
        end = datetime.now(UTC) + timedelta(hours=1)
        given = Given(("view",), categories=("labs",), patient=patients["ours"])
        issued = office.issue(petra, "attack_granted", given, until=end, reason="x")
        asked = about(patients["ours"], "attack_granted")
        await answered(ask, asked, allowed=True)
        office.revoke(petra, issued.id, reason="over")
        await answered(ask, asked, allowed=False)
    before = gate.size
    with psycopg.connect(gate.ready.control, autocommit=True) as sql:
        with pytest.raises(psycopg.errors.RestrictViolation):
            sql.execute('UPDATE "grant" SET revoked_at = NULL WHERE id = %s', [issued.id])
        # whoever owns the tables can take the guard away
        sql.execute('ALTER TABLE "grant" DISABLE TRIGGER keep_ended')
        sql.execute('UPDATE "grant" SET revoked_at = NULL WHERE id = %s', [issued.id])
        sql.execute('ALTER TABLE "grant" ENABLE TRIGGER keep_ended')

    def alarms() -> list[str]:
        return [e.what for _, e in gate.events(before) if isinstance(e, Alarm)]

    async with asyncio.timeout(10):
        while "revived_grant" not in alarms():  # noqa: ASYNC110  (the log's writer is elsewhere)
            await asyncio.sleep(0.02)
    await answered(ask, asked, allowed=False)
    with psycopg.connect(gate.ready.control, autocommit=True) as sql:
        sql.execute('UPDATE "grant" SET revoked_at = now() WHERE id = %s', [issued.id])
    with gate.control() as control:
        control.deactivate("attack_granted")


async def answered(ask: Ask, asked: Any, *, allowed: bool) -> None:
    async with asyncio.timeout(5):
        while (await ask(asked))[1]["decision"] is not allowed:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
