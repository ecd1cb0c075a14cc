"""Attacks on the policy life cycle: what a colleague with a password, or whoever writes the control
plane's tables, could try at a running gate, and what must be left when something dies halfway.

Everything is real: both databases, the gate with sessions that never stop asking, the log, the
commands. Each test leaves what ships in force.
"""

import asyncio
import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from chartgate.adapters.policy_desk import PolicyRefused
from chartgate.cli.main import app
from chartgate.cli.policy_store import sitting
from chartgate.govern.policy_version import IllegalStep
from chartgate.model.event import Alarm, Decision, PolicyInForce, PolicyStep

pytestmark = [pytest.mark.system, pytest.mark.slow]

SCENARIOS = """
[[scenario]]
title = "a receptionist and the psychotherapy notes of her department"
who = { role = "receptionist_scheduler", department = "cardiology" }
purpose = "PATADMIN"
asks = "view"
record = { category = "psychotherapy_notes", departments = ["cardiology"] }
expect = "withheld"
clause = "164.508(a)(2)"
"""
INVARIANTS = """
[[invariant]]
id = "reception_never_reads_psychotherapy_notes"
words = "a receptionist is never shown what a psychotherapy note says"
clause = "164.508(a)(2)"
claim = "at_most"
roles = ["receptionist_scheduler"]
categories = ["psychotherapy_notes"]
level = "withheld"
"""
RULE = """
// Whether a result is normal, to plan the follow-up visit.
@id("receptionist_lab_flags")
@clause("164.514(d)(2)")
@owner("Director of Patient Access")
@review("2027-06-30")
permit (principal in Role::"receptionist_scheduler", action == Action::"view_summary", resource)
when { context.purpose in Purpose::"PATADMIN" }
when { resource.category == Category::"labs" }
when { resource.departments.containsAny(principal.departments) };
"""


@dataclass
class Desk:
    """The commands, as a person would type them."""

    gate: Any
    folder: Path

    def run(self, *words: str, **environment: str) -> Result:
        given = {"CHARTGATE_STATE": str(self.gate.state.root), **environment}
        return CliRunner().invoke(app, ["policy", *words], env=given)

    def does(self, *words: str) -> dict[str, Any]:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def policies(self, name: str, *, rule: str = "", category: str = "") -> Path:
        """A policy folder cut down to one scenario and one invariant, with one rule more."""
        folder = self.folder / name
        shutil.copytree(self.folder / "shipped", folder)
        (folder / "ceilings.toml").unlink(missing_ok=True)
        for kind, text in (("scenarios", SCENARIOS), ("invariants", INVARIANTS)):
            shutil.rmtree(folder / kind, ignore_errors=True)
            (folder / kind).mkdir()
            (folder / kind / "one.toml").write_text(text)
        file = folder / "roles" / "receptionist_scheduler.cedar"
        file.write_text(file.read_text() + rule)
        if category:
            file = folder / "schema.cedarschema"
            old = "entity Category enum ["
            file.write_text(file.read_text().replace(old, f'{old}\n  "{category}",'))
        return folder

    def map(self, name: str, old: str, new: str) -> Path:
        """The hospital's data map with one change."""
        shutil.copytree(self.folder / "maps", self.folder / name)
        file = self.folder / name / "hospital.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return file

    def approved(self, path: Path) -> str:
        """Pushed by one person and approved by another; answers the hash."""
        content = self.does("push", str(path), "--as", "sofficer")["hash"]
        assert isinstance(content, str)
        self.does("approve", content, "--as", "pofficer")
        return content

    def in_force(self, subject: str = "policies") -> str:
        found = self.does("versions")[subject]["in_force"]
        assert isinstance(found, str)
        return found

    def superuser(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.gate.ready.control, autocommit=True)
        connection.execute("SET session_replication_role = replica")
        return connection

    def wakes(self) -> None:
        """Something else changes in the control plane, so that the node looks."""
        with self.gate.control() as control:
            control.upsert_person("somebody", f"Somebody {self.gate.size}")


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    load_hospital: Callable[..., None],
    open_gate: Callable[..., Any],
    project_root: Path,
) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("attacked")
    load_hospital(root, patients=40)
    folder = tmp_path_factory.mktemp("versions")
    shutil.copytree(project_root / "policies", folder / "shipped")
    shutil.copytree(project_root / "maps", folder / "maps")
    with open_gate(root) as gate:
        yield Desk(gate, folder)


# --- sessions that never stop asking -----------------------------------------------------------


def test_a_version_that_cannot_be_kept_for_the_next_start_is_not_obeyed(desk: Desk) -> None:
    """The disk takes log entries, but not a file of the size of a version.

    First of this file: the log's own files, room made ahead included, must still be smaller than a version.
    """
    content = desk.approved(desk.policies("full", rule=RULE + "\n" * 1_500_000))
    since = desk.gate.size
    largest = max(file.stat().st_size for file in desk.gate.state.log_dir.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 50_000, hard))
    try:
        desk.run("activate", content, "--as", "sofficer")
        _, alarm = desk.gate.wait_for(lambda e: isinstance(e, Alarm), since)
        assert "cannot be kept" in alarm.words
        assert not [e for _, e in desk.gate.events(since) if isinstance(e, PolicyInForce)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    desk.wakes()
    desk.gate.wait_for(lambda e: isinstance(e, PolicyInForce) and e.content == content, since)
    desk.does("rollback", "--as", "pofficer")


def test_after_the_node_says_so_nothing_is_decided_by_the_version_before(desk: Desk) -> None:
    """Sessions hammer while a stricter version comes into force; the log's order says all."""
    content = desk.approved(desk.policies("wide", rule=RULE))
    gate = desk.gate
    stop = threading.Event()
    failures: list[BaseException] = []

    async def asks() -> None:
        session = await asyncpg.connect(
            host=gate.host,
            port=gate.port,
            database=gate.database,
            user="rpatel",
            password=gate.password("rpatel"),
            ssl=False,
        )
        try:
            while not stop.is_set():
                await session.fetch("SELECT test_code FROM lab_result LIMIT 3")
        finally:
            await session.close()

    def hammer() -> None:
        async def together() -> None:
            await asyncio.gather(*(asks() for _ in range(6)))

        try:
            asyncio.run(together())
        except BaseException as exc:
            failures.append(exc)

    since = gate.size
    worker = threading.Thread(target=hammer)
    worker.start()
    try:
        desk.does("activate", content, "--as", "sofficer")
        for _ in range(2):
            desk.does("rollback", "--as", "pofficer")
            content = desk.approved(desk.folder / "wide")
            desk.does("activate", content, "--as", "sofficer")
        desk.does("rollback", "--as", "pofficer")
    finally:
        stop.set()
        worker.join(30)
    assert not failures
    now, seen, late = "", 0, []
    for index, event in gate.events(since):
        if isinstance(event, PolicyInForce):
            now, seen = event.policy_set, seen + 1
        elif isinstance(event, Decision) and event.allowed and now and event.policy_set != now:
            late.append(index)
    assert seen == 6
    assert late == []


# --- two versions that do not go together ------------------------------------------------------


def test_what_does_not_go_with_the_map_in_force_is_not_put_in_force(desk: Desk) -> None:
    """A version that was checked with another data map; and nobody is locked out by one."""
    wider = desk.approved(desk.policies("wider", category="research_x"))
    desk.does("activate", wider, "--as", "sofficer")
    narrow = desk.approved(desk.policies("narrow", rule=RULE))
    line = 'heart_rate = "vitals_nursing"'
    data_map = desk.approved(desk.map("x", line, 'heart_rate = "research_x"'))
    desk.does("activate", data_map, "--as", "sofficer")
    since = desk.gate.size
    result = desk.run("activate", narrow, "--as", "sofficer")
    assert result.exit_code == 1
    assert "data map" in result.output
    assert desk.in_force() == wider
    back = desk.run("rollback", "--as", "pofficer")
    assert back.exit_code == 1  # what was before does not know the category either
    assert not [e for _, e in desk.gate.events(since) if isinstance(e, (PolicyInForce, Alarm))]
    desk.does("rollback", "--map", "--as", "pofficer")
    desk.does("rollback", "--as", "pofficer")


def test_a_sitting_ends_when_another_version_comes_into_force(desk: Desk) -> None:
    """Signed in under the old policies, she does not act by them under the new ones."""
    content = desk.approved(desk.policies("meanwhile", rule=RULE + "\n"))
    with sitting(desk.gate.state.root, "pofficer") as (_, policy_desk, person):
        desk.does("activate", content, "--as", "sofficer")
        with pytest.raises(IllegalStep, match="sign in again"):
            policy_desk.roll_back(person, "policies")
    assert desk.in_force() == content
    desk.does("rollback", "--as", "pofficer")


def test_whoever_is_cut_off_while_she_sits_there_takes_no_further_step(desk: Desk) -> None:
    content = desk.approved(desk.policies("cut", rule=RULE + "\n\n"))
    before = desk.in_force()
    with sitting(desk.gate.state.root, "sofficer") as (_, policy_desk, person):
        with desk.superuser() as control:
            control.execute("UPDATE person SET active = false WHERE name = 'sofficer'")
        try:
            with pytest.raises(PolicyRefused):
                policy_desk.activate(person, "policies", content)
        finally:
            with desk.superuser() as control:
                control.execute("UPDATE person SET active = true WHERE name = 'sofficer'")
    assert desk.in_force() == before


def test_a_map_is_held_against_the_catalog_as_it_is_when_it_comes_into_force(desk: Desk) -> None:
    """The column changed its type after the approval: the map before stays, and an alarm says so."""
    before = desk.in_force("map:hospital")
    file = desk.map("late", 'heart_rate = "vitals_nursing"', 'heart_rate = "genetic"')
    content = desk.approved(file)
    since = desk.gate.size
    with desk.gate.admin() as source:
        source.execute("ALTER TABLE encounter RENAME COLUMN department TO kept")
        source.execute("ALTER TABLE encounter ADD COLUMN department bytea")
        try:
            desk.run("activate", content, "--as", "sofficer")
            _, alarm = desk.gate.wait_for(lambda e: isinstance(e, Alarm), since)
        finally:
            source.execute("ALTER TABLE encounter DROP COLUMN department")
            source.execute("ALTER TABLE encounter RENAME COLUMN kept TO department")
    assert alarm.what == "unusable_version"
    assert "department" in alarm.words
    assert not [e for _, e in desk.gate.events(since) if isinstance(e, PolicyInForce)]
    desk.does("rollback", "--map", "--as", "pofficer")
    assert desk.in_force("map:hospital") == before


# --- whoever writes the control plane's tables ---------------------------------------------------


def test_notifications_without_end_do_not_fill_the_log(desk: Desk) -> None:
    since = desk.gate.size
    with desk.superuser() as control:
        for number in range(1_000):
            control.execute("SELECT pg_notify('chartgate', %s)", [f"x {number % 7}"])
    desk.gate.wait_for(lambda e: isinstance(e, Alarm) and "times" in e.words, since)
    assert desk.gate.size - since < 10


def test_forged_orders_in_any_number_are_told_and_do_not_fill_the_log(desk: Desk) -> None:
    since = desk.gate.size
    with desk.superuser() as control:
        control.execute(
            "INSERT INTO policy_step (subject, hash, step, generation, entry, proof) "
            "SELECT subject, hash, step, generation + 1000 + g, entry, proof "
            "FROM (SELECT * FROM policy_step WHERE step = 'activated' ORDER BY id LIMIT 1) one, "
            "generate_series(1, 300) g"
        )
        try:
            desk.wakes()
            desk.gate.wait_for(lambda e: isinstance(e, Alarm) and "more rows" in e.words, since)
        finally:
            control.execute("DELETE FROM policy_step WHERE generation > 1000")
    assert len([e for _, e in desk.gate.events(since) if isinstance(e, Alarm)]) < 30
    content = desk.approved(desk.policies("after", rule=RULE + "\n\n\n"))
    done = desk.does("activate", content, "--as", "sofficer")
    assert done["nodes"][0]["seconds"] < 1
    desk.does("rollback", "--as", "pofficer")


def test_what_people_and_nodes_are_called_steers_no_terminal(desk: Desk) -> None:
    with desk.superuser() as control:
        control.execute("UPDATE person SET full_name = E'S\x1b[2JO\x07' WHERE name = 'sofficer'")
        control.execute(
            "INSERT INTO policy_node VALUES "
            "(E'n\x1b[2J', E'map:\x1b[2J', E'\x1b[2J', 1, 'infinity'), "
            "('other', 'policies', E'\x1b[2J', 9, '-infinity')"
        )
        try:
            results = [
                desk.run(*words)
                for words in (
                    ("versions",),
                    ("show", "active"),
                    ("status",),
                    ("status", "--json"),
                    ("versions", "--json"),
                )
            ]
        finally:
            control.execute("DELETE FROM policy_node WHERE node <> 'demo'")
            control.execute("UPDATE person SET full_name = 'Selma Officer' WHERE name = 'sofficer'")
    assert [r.exit_code for r in results] == [0, 0, 1, 1, 0]
    for result in results:
        assert "\x1b" not in result.output
        assert "\x07" not in result.output


def test_a_refusal_whose_row_was_deleted_has_been_said_all_the_same(desk: Desk) -> None:
    content = desk.approved(desk.policies("refused", rule=RULE + "\n" * 4))
    desk.does("refuse", content, "--as", "pofficer")
    with desk.superuser() as control:
        control.execute("DELETE FROM policy_step WHERE step = 'refused' AND hash = %s", [content])
    result = desk.run("activate", content, "--as", "sofficer")
    assert result.exit_code == 1
    assert "lost a step" in result.output


def test_a_step_that_got_no_row_changes_nothing_and_can_be_taken_again(desk: Desk) -> None:
    """As when a command dies between the log entry and the row."""
    content = desk.does(
        "push", str(desk.policies("dies", rule=RULE + "\n" * 5)), "--as", "sofficer"
    )["hash"]
    with psycopg.connect(desk.gate.ready.control, autocommit=True) as control:
        control.execute(
            "CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;"
            "CREATE TRIGGER dies BEFORE INSERT ON policy_step FOR EACH ROW EXECUTE FUNCTION dies();"
        )
        since = desk.gate.size
        try:
            assert desk.run("approve", content, "--as", "pofficer").exit_code == 1
        finally:
            control.execute("DROP FUNCTION dies CASCADE")
    recorded = [e.step for _, e in desk.gate.events(since) if isinstance(e, PolicyStep)]
    assert recorded == ["approved"]
    assert desk.run("activate", content, "--as", "sofficer").exit_code == 1
    desk.does("approve", content, "--as", "pofficer")
    desk.does("activate", content, "--as", "sofficer")
    desk.does("rollback", "--as", "pofficer")
