"""A version is put in force while a node is deciding: the log says which decisions it made."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.node import Node
from chartgate.adapters.policy_files import read_bundle
from chartgate.app.node_asked import Asked, Caller
from chartgate.app.policy_bundle import Bundle
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.demo.policy_bootstrap import bootstrap
from chartgate.demo.shipped import shipped
from chartgate.govern.policy_version import POLICIES
from chartgate.model.event import Evaluation, PolicyInForce
from chartgate.model.service import EVERYTHING, Service

pytestmark = [pytest.mark.system, pytest.mark.slow]

CALLER = Caller(Service("s_0123456789abcdef", "app", True, EVERYTHING), "https")
STRICTER = """
@id("nobody_sees_labs_today")
@clause("164.312(a)(1)")
@owner("Security Officer")
@review("2027-06-30")
forbid (principal, action in [Action::"view", Action::"view_summary", Action::"view_masked"], resource)
when { resource.category == Category::"labs" };
"""


async def test_every_entry_after_a_version_took_its_place_was_decided_by_it(
    tmp_path: Path, open_gate: Callable[..., Any], load_hospital: Callable[..., None]
) -> None:
    await asyncio.to_thread(load_hospital, tmp_path, patients=20)
    with open_gate(tmp_path) as gate:
        with gate.control() as control:
            people = control.snapshot().persons
            control.upsert_person("node_reads", "Reads")
            control.assign(
                "node_reads", "physician", "cardiology", valid_from=datetime(2026, 1, 1, tzinfo=UTC)
            )
        with gate.admin() as sql:
            (patient,) = sql.execute(
                "SELECT patient_id FROM encounter WHERE department = 'cardiology' LIMIT 1"
            ).fetchone()
        question = Question(
            Subject("User", "node_reads"),
            Action("view"),
            Resource("Record", "r", {"patient": str(patient), "category": "labs"}),
        )
        instance = gate.state.instance()
        async with (
            RemoteLog(gate.state.log_socket) as log,
            RemoteLog(gate.state.log_socket, kind="command") as steps,
            Node(gate.state, instance, "demo/decide-5", log) as node,
        ):
            before = node.ready
            since = gate.size

            async def client() -> list[bool]:
                found: list[bool] = []
                while not found or found[-1]:
                    answered = await node.answer(Asked((question,), "r"), CALLER)
                    found.append(answered.rulings[0].allowed)
                    await asyncio.sleep(0.002)  # often enough to hit every step, and no busy loop
                return found

            async def change() -> None:
                files = dict((await asyncio.to_thread(read_bundle, shipped("policies"))).files)
                await bootstrap(
                    gate.state,
                    instance.node,
                    instance.control,
                    steps,  # type: ignore[arg-type]
                    {POLICIES: Bundle({**files, "stricter.cedar": STRICTER})},
                    {name: person.uid for name, person in people.items()},
                )

            async with asyncio.timeout(60):
                *each, _ = await asyncio.gather(*(client() for _ in range(4)), change())
            assert all(found[0] for found in each)
            assert node.ready is not before
            assert node.ready.version.bundle.files["stricter.cedar"] == STRICTER
            events = [e for _, e in gate.events(since) if getattr(e, "node", "") == node.name]
        place = next(n for n, e in enumerate(events) if isinstance(e, PolicyInForce))
        sets = [
            {e.policy_set for e in part if isinstance(e, Evaluation)}
            for part in (events[:place], events[place:])
        ]
        assert sets == [{before.rulings.hash}, {node.rulings.hash}]
    await asyncio.sleep(0)
