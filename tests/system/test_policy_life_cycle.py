"""A rule is changed at a running gate: proposed, checked, approved by a second person, in force.

One small hospital of this module's own, its policies cut down to what the tests change. Everything
is real: both databases, the gate with an open session, the log, the commands. The tests at the end
are attackers with a superuser's rights on the control plane.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from click.testing import Result
from msgspec import structs
from typer.testing import CliRunner

from chartgate.adapters.policy_files import read_bundle
from chartgate.adapters.state import State
from chartgate.cli.main import app
from chartgate.errors import Misconfigured
from chartgate.model.event import (
    Alarm,
    AuditRead,
    Decision,
    LoginRefused,
    PolicyInForce,
    PolicyStep,
    PolicyStepRefused,
)

pytestmark = [pytest.mark.system, pytest.mark.slow]

SCENARIOS = """
[[scenario]]
title = "a receptionist and the lab results of her department"
who = { role = "receptionist_scheduler", department = "cardiology" }
purpose = "PATADMIN"
asks = "view"
record = { category = "labs", departments = ["cardiology"] }
expect = "EXPECTED"
clause = "164.514(d)(2)"
"""
INVARIANTS = """
[[invariant]]
id = "reception_never_reads_notes"
words = "a receptionist is never shown what a note says"
clause = "164.502(b)"
claim = "at_most"
roles = ["receptionist_scheduler"]
categories = ["CATEGORY"]
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
LABS = "SELECT count(*) FROM lab_result"


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

    def policies(self, name: str, *, rule: str, labs: str, proved: str = "notes") -> Path:
        """A policy folder with one rule more, one scenario and one invariant."""
        folder = self.folder / name
        shutil.copytree(self.folder / "shipped", folder)
        (folder / "ceilings.toml").unlink(missing_ok=True)
        for kind in ("scenarios", "invariants"):
            shutil.rmtree(folder / kind, ignore_errors=True)
            (folder / kind).mkdir()
        (folder / "scenarios" / "labs.toml").write_text(SCENARIOS.replace("EXPECTED", labs))
        (folder / "invariants" / "notes.toml").write_text(INVARIANTS.replace("CATEGORY", proved))
        file = folder / "roles" / "receptionist_scheduler.cedar"
        file.write_text(file.read_text() + rule)
        return folder

    def in_force(self) -> str:
        found = self.does("versions")["policies"]["in_force"]
        assert isinstance(found, str)
        return found

    def sql(self, text: str, *values: object) -> None:
        """What a superuser of the control plane does, the triggers switched off."""
        with psycopg.connect(self.gate.ready.control, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(text, values or None)

    def wakes(self) -> None:
        """Something else changes in the control plane, so that the node looks."""
        with self.gate.control() as control:
            control.upsert_person("somebody", f"Somebody {time.monotonic_ns()}")

    @contextmanager
    def alarmed(self, words: str) -> Iterator[None]:
        """What is done within is refused: an alarm says so, and what was in force stays."""
        before, since = self.in_force_here(), self.gate.size
        yield
        self.wakes()
        self.gate.wait_for(lambda e: isinstance(e, Alarm) and words in e.words, since)
        assert self.in_force_here() == before
        assert not [e for _, e in self.gate.events(since) if isinstance(e, PolicyInForce)]

    def in_force_here(self) -> str:
        """The policy set by which the gate decides, as its log says of a new statement."""
        since = self.gate.size
        with self.gate.connect("rpatel") as connection:
            connection.execute("SELECT 1")
        found = self.gate.wait_for(lambda e: isinstance(e, Decision), since)[1].policy_set
        assert isinstance(found, str)
        return found


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    load_hospital: Callable[..., None],
    open_gate: Callable[..., Any],
    project_root: Path,
) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("life")
    load_hospital(root, patients=40)
    folder = tmp_path_factory.mktemp("versions")
    shutil.copytree(project_root / "policies", folder / "shipped")
    with open_gate(root) as gate:
        yield Desk(gate, folder)


@pytest.fixture(scope="module")
def candidate(desk: Desk) -> str:
    """A version that passed every stage and waits for approval."""
    folder = desk.policies("candidate", rule=RULE, labs="summary")
    answer = desk.does("push", str(folder), "--as", "sofficer", "--note", "follow-up visits")
    assert answer["state"] == "ready for approval"
    assert answer["hash"] == read_bundle(folder).hash
    found = answer["hash"]
    assert isinstance(found, str)
    return found


def test_what_ships_is_in_force_by_two_people_and_marked_as_the_programs_doing(desk: Desk) -> None:
    shipped = read_bundle(desk.folder / "shipped").hash
    steps = [e for _, e in desk.gate.events() if isinstance(e, PolicyStep)]
    ours = [e for e in steps if e.content == shipped]
    assert [e.step for e in ours] == ["pushed", "shipped", "approved", "activated"]
    assert all("bootstrap" in e.detail for e in ours)
    assert ours[2].person != ours[2].proposer
    obeyed = [e for _, e in desk.gate.events() if isinstance(e, PolicyInForce)]
    assert shipped in {e.content for e in obeyed}
    assert {e.subject for e in obeyed} == {"policies", "map:hospital"}


def test_a_version_whose_scenario_does_not_hold_stays_a_draft(desk: Desk) -> None:
    folder = desk.policies("wrong", rule=RULE, labs="withheld")
    since = desk.gate.size
    result = desk.run("push", str(folder), "--as", "sofficer")
    assert result.exit_code == 1
    assert "expected withheld" in " ".join(result.output.split())
    content = read_bundle(folder).hash
    refused = [e for _, e in desk.gate.events(since) if isinstance(e, PolicyStepRefused)]
    assert [(e.step, e.content) for e in refused] == [("scenarios_passed", content)]
    result = desk.run("approve", content[:12], "--as", "pofficer")
    assert result.exit_code == 1
    assert "not every check was passed" in result.output


def test_a_version_that_nobody_could_change_again_is_refused(desk: Desk) -> None:
    folder = desk.policies("stuck", rule=RULE, labs="summary")
    file = folder / "roles" / "privacy_officer.cedar"
    start = file.read_text().index('@id("privacy_governs_policies")')
    end = file.read_text().index(";\n", start) + 2
    file.write_text(file.read_text()[:start] + file.read_text()[end:])
    result = desk.run("push", str(folder), "--as", "sofficer")
    assert result.exit_code == 1
    assert "two people" in result.output


def test_a_nurse_proposes_nothing_and_the_attempt_is_recorded(desk: Desk) -> None:
    since = desk.gate.size
    result = desk.run("push", str(desk.folder / "shipped"), "--as", "nadams")
    assert result.exit_code == 1
    assert "does not let nadams propose" in result.output
    (refused,) = [e for _, e in desk.gate.events(since) if isinstance(e, PolicyStepRefused)]
    assert refused.step == "pushed"


def test_a_wrong_password_decides_nothing_and_is_recorded(desk: Desk, candidate: str) -> None:
    since = desk.gate.size
    result = desk.run("approve", candidate[:12], "--as", "pofficer", CHARTGATE_PASSWORD="guessed")
    assert result.exit_code == 1
    (refused,) = [e for _, e in desk.gate.events(since) if isinstance(e, LoginRefused)]
    assert refused.channel == "policy store"


def test_nobody_approves_what_she_proposed(desk: Desk, candidate: str) -> None:
    since = desk.gate.size
    result = desk.run("approve", candidate[:12], "--as", "sofficer")
    assert result.exit_code == 1
    assert "a second person must" in result.output
    (refused,) = [e for _, e in desk.gate.events(since) if isinstance(e, PolicyStepRefused)]
    assert refused.step == "approved"


def test_what_is_not_approved_is_not_put_in_force(desk: Desk, candidate: str) -> None:
    result = desk.run("activate", candidate[:12], "--as", "sofficer")
    assert result.exit_code == 1
    assert "approves it first" in result.output


def test_approved_it_is_in_force_within_a_second_in_an_open_session(
    desk: Desk, candidate: str, record_property: Callable[[str, object], None]
) -> None:
    before = desk.in_force()
    approved = desk.does("approve", candidate[:12], "--as", "pofficer", "--reason", "agreed")
    assert approved["state"] == "approved"
    with desk.gate.connect("rpatel") as session:
        assert session.execute(LABS).fetchone() == (0,)
        done = desk.does("activate", candidate[:12], "--as", "sofficer")
        returned = time.monotonic()
        while session.execute(LABS).fetchone() == (0,):
            assert time.monotonic() < returned + 1
        taken = time.monotonic() - returned
    assert done["state"] == "active"
    assert [node["node"] for node in done["nodes"]] == ["demo"]
    in_force = done["nodes"][0]["seconds"]
    assert in_force < 1
    record_property("seconds from the log entry to the node's word", in_force)
    record_property("seconds from the command's return to the first row", taken)
    print(f"\nin force {in_force:.3f} s after the log entry; seen {taken:.3f} s after activate")
    assert desk.in_force() == candidate != before
    assert desk.run("status").exit_code == 0


async def test_a_portal_that_was_open_is_not_read_on_under_another_version(
    desk: Desk, candidate: str
) -> None:
    assert desk.in_force() == candidate
    gate = desk.gate
    session = await asyncpg.connect(
        host=gate.host,
        port=gate.port,
        database=gate.database,
        user="rpatel",
        password=gate.password("rpatel"),
        ssl=False,
    )
    try:
        transaction = session.transaction()
        await transaction.start()
        cursor = await session.cursor("SELECT test_code FROM lab_result")
        assert len(await cursor.fetch(1)) == 1
        done = await asyncio.to_thread(
            desk.does, "rollback", "--as", "sofficer", "--reason", "wide"
        )
        assert done["nodes"][0]["seconds"] < 1
        with pytest.raises(asyncpg.PostgresError):
            await cursor.fetch(1)
        await transaction.rollback()
        assert await session.fetchval(LABS) == 0
    finally:
        await session.close()
    again = desk.run("activate", candidate[:12], "--as", "sofficer")
    assert again.exit_code == 1  # it needs to be proposed and approved again


def test_a_version_pulled_has_the_hash_it_was_pushed_with(desk: Desk, candidate: str) -> None:
    target = desk.folder / "pulled"
    assert desk.does("pull", candidate[:10], str(target))["hash"] == candidate
    assert read_bundle(target).hash == candidate
    assert desk.run("pull", candidate[:10], str(target)).exit_code == 1


def test_a_version_shows_who_did_what_and_what_would_change(desk: Desk, candidate: str) -> None:
    shown = desk.run("show", candidate[:12]).output
    for words in ("Selma Officer", "Petra Officer", "follow-up visits", "wide", "scenarios"):
        assert words in shown
    listed = desk.run("versions").output
    assert candidate[:12] in listed
    assert "superseded" in listed


def test_the_audit_commands_ask_the_version_in_force(desk: Desk) -> None:
    given = {"CHARTGATE_STATE": str(desk.gate.state.root)}
    since = desk.gate.size
    result = CliRunner().invoke(app, ["audit", "tail", "--as", "pofficer"], env=given)
    assert result.exit_code == 0, result.output
    (asked,) = [e for _, e in desk.gate.events(since) if isinstance(e, AuditRead)]
    assert asked.policy_set == desk.in_force_here()


def test_an_approver_who_may_no_longer_approve_does_not_count(desk: Desk) -> None:
    folder = desk.policies("stale", rule=RULE.replace("labs", "imaging"), labs="withheld")
    content = desk.does("push", str(folder), "--as", "sofficer")["hash"]
    desk.does("approve", content[:12], "--as", "pofficer")
    with psycopg.connect(desk.gate.ready.control, autocommit=True) as control:
        control.execute("UPDATE person SET active = false WHERE name = 'pofficer'")
        result = desk.run("activate", content[:12], "--as", "sofficer")
        control.execute("UPDATE person SET active = true WHERE name = 'pofficer'")
    assert result.exit_code == 1
    assert "may no longer approve" in result.output


# --- several nodes, data maps ------------------------------------------------------------------


def beside(desk: Desk, root: Path, *, trusts: bool) -> Any:
    """Another node on the same control plane, with a state folder and a log of its own."""
    ready = desk.gate.ready
    state = State(root)
    state.create()
    if trusts:
        state.trusted_logs.mkdir(mode=0o700)
        key = ready.state.log_public_key.read_text()
        (state.trusted_logs / "first.pub").write_text(key)
    instance = structs.replace(ready.instance, node="second", origin="chartgate.second/log", port=0)
    return replace(ready, state=state, instance=instance)


def test_a_second_node_takes_it_within_a_second_as_well(
    desk: Desk, serve: Callable[..., Any], tmp_path: Path
) -> None:
    folder = desk.policies("both", rule=RULE + "\n", labs="summary")
    content = desk.does("push", str(folder), "--as", "sofficer")["hash"]
    desk.does("approve", content[:12], "--as", "pofficer")
    with (
        serve(beside(desk, tmp_path / "second", trusts=True)) as port,
        desk.gate.connect("rpatel") as first,
        psycopg.connect(desk.gate.dsn("rpatel", port=port), autocommit=True) as second,
    ):
        assert [s.execute(LABS).fetchone() for s in (first, second)] == [(0,), (0,)]
        done = desk.does("activate", content[:12], "--as", "sofficer")
        assert {node["node"] for node in done["nodes"]} == {"demo", "second"}
        assert all(node["seconds"] < 1 for node in done["nodes"])
        print("\nin force on", {n["node"]: round(n["seconds"], 3) for n in done["nodes"]})
        assert (0,) not in [s.execute(LABS).fetchone() for s in (first, second)]
        desk.does("rollback", "--as", "pofficer")
        assert [s.execute(LABS).fetchone() for s in (first, second)] == [(0,), (0,)]
    # Started again, it goes on with what was in force, by its own record.
    with serve(beside(desk, tmp_path / "second", trusts=False)):
        pass


def test_a_node_that_trusts_no_log_of_the_orders_does_not_start(
    desk: Desk, serve: Callable[..., Any], tmp_path: Path
) -> None:
    with (
        pytest.raises(Misconfigured, match="no order for them can be verified"),
        serve(beside(desk, tmp_path / "third", trusts=False)),
    ):
        pass


def test_a_data_map_goes_the_same_way(desk: Desk, project_root: Path) -> None:
    maps = desk.folder / "maps"
    shutil.copytree(project_root / "maps", maps)
    file = maps / "hospital.toml"
    text = file.read_text()
    assert 'heart_rate = "vitals_nursing"' in text
    file.write_text(text.replace('heart_rate = "vitals_nursing"', 'heart_rate = "genetic"'))
    since = desk.gate.size
    pushed = desk.does("push", str(file), "--as", "sofficer")
    assert (pushed["subject"], pushed["state"]) == ("map:hospital", "ready for approval")
    content = pushed["hash"]
    assert desk.run("approve", content[:12], "--as", "sofficer").exit_code == 1
    desk.does("approve", content[:12], "--as", "pofficer")
    with desk.gate.connect("nadams") as session:
        rates = "SELECT count(heart_rate) FROM vital_sign"
        before = session.execute(rates).fetchone()
        done = desk.does("activate", content[:12], "--as", "sofficer")
        assert done["nodes"][0]["seconds"] < 1
        assert before != (0,)
        assert session.execute(rates).fetchone() == (0,)
        desk.does("rollback", "--map", "--as", "sofficer")
        assert session.execute(rates).fetchone() == before
    maps_seen = {e.data_map for _, e in desk.gate.events(since) if isinstance(e, Decision)}
    assert len(maps_seen) == 2


def test_a_map_of_a_column_that_the_source_does_not_have_stays_a_draft(
    desk: Desk, project_root: Path
) -> None:
    maps = desk.folder / "absent"
    shutil.copytree(project_root / "maps", maps)
    file = maps / "hospital.toml"
    text = file.read_text().replace("heart_rate =", "pulse =")
    file.write_text(text)
    result = desk.run("push", str(file), "--as", "sofficer")
    assert result.exit_code == 1
    assert "column vital_sign.pulse" in result.output


# --- a superuser of the control plane ---------------------------------------------------------

FORGED = """
    INSERT INTO policy_step (subject, hash, step, generation, entry, proof)
    SELECT subject, %s, step, generation + 50, entry, proof FROM policy_step
    WHERE subject = 'policies' AND step = 'activated' ORDER BY id DESC LIMIT 1
"""


SWAP = """
    CREATE FUNCTION swap() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE policy_bundle SET content = (
            SELECT content FROM kept WHERE subject = NEW.subject AND hash <> NEW.hash LIMIT 1
        ) WHERE subject = NEW.subject AND hash = NEW.hash;
        RETURN NEW;
    END $$;
    CREATE TRIGGER swap AFTER INSERT ON policy_step FOR EACH ROW EXECUTE FUNCTION swap();
"""


def test_an_activation_row_for_other_content_is_refused_and_alarmed(desk: Desk) -> None:
    folder = desk.policies("forged", rule=RULE.replace('"labs"', '"notes"'), labs="full")
    bundle = read_bundle(folder)
    assert desk.run("push", str(folder), "--as", "sofficer").exit_code == 1  # its content is filed
    with desk.alarmed(bundle.hash[:12]):
        desk.sql(FORGED, bundle.hash)
    result = desk.run("versions")
    assert result.exit_code == 1
    assert "NOT BORNE OUT" in result.output


def test_an_old_activation_filed_again_is_refused_and_alarmed(desk: Desk, candidate: str) -> None:
    with desk.alarmed("is refused"):
        desk.sql(FORGED, candidate)


def test_the_same_row_copied_brings_nothing_back(desk: Desk, candidate: str) -> None:
    with desk.alarmed(f"{candidate[:12]}, which is refused"):
        desk.sql(
            "INSERT INTO policy_step (subject, hash, step, generation, entry, proof) "
            "SELECT subject, hash, step, generation, entry, proof FROM policy_step "
            "WHERE step = 'activated' AND hash = %s LIMIT 1",
            candidate,
        )


def test_content_swapped_under_a_valid_hash_is_refused_and_alarmed(desk: Desk) -> None:
    """A trigger of the attacker's swaps the files while an approved version is put in force."""
    folder = desk.policies("swapped", rule=RULE.replace("labs", "imaging") + "\n", labs="withheld")
    content = desk.does("push", str(folder), "--as", "sofficer")["hash"]
    desk.does("approve", content[:12], "--as", "pofficer")
    with psycopg.connect(desk.gate.ready.control, autocommit=True) as control:
        control.execute("ALTER TABLE policy_bundle DISABLE TRIGGER keep_policy")
        control.execute("CREATE TABLE kept AS SELECT * FROM policy_bundle")
        control.execute(SWAP)
        with desk.alarmed("has the hash"):
            desk.run("activate", content[:12], "--as", "sofficer")
        assert desk.run("pull", content[:12], str(desk.folder / "swap")).exit_code == 1
        # Put right again, the order that is in the log is obeyed.
        since = desk.gate.size
        control.execute("DROP TRIGGER swap ON policy_step")
        control.execute(
            "UPDATE policy_bundle b SET content = k.content FROM kept k "
            "WHERE (k.subject, k.hash) = (b.subject, b.hash)"
        )
        control.execute("ALTER TABLE policy_bundle ENABLE TRIGGER keep_policy")
        control.execute("DROP TABLE kept")
    desk.gate.wait_for(lambda e: isinstance(e, PolicyInForce) and e.content == content, since)
    assert desk.run("activate", content[:12], "--as", "sofficer").exit_code == 1
    desk.does("rollback", "--as", "pofficer")


def test_a_notification_without_a_change_is_alarmed_and_changes_nothing(desk: Desk) -> None:
    for words in ("policy_step 999999999", "policy_step", "policy_step 1"):
        before, since = desk.in_force_here(), desk.gate.size
        with psycopg.connect(desk.gate.ready.control, autocommit=True) as control:
            control.execute("SELECT pg_notify('chartgate', %s)", [words])
        desk.gate.wait_for(
            lambda e: isinstance(e, Alarm) and e.what == "forged_notification", since
        )
        assert desk.in_force_here() == before


def test_versions_and_steps_are_never_changed_or_removed(desk: Desk) -> None:
    with psycopg.connect(desk.gate.ready.control, autocommit=True) as control:
        for table in ("policy_bundle", "policy_step"):
            for text in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
                with pytest.raises(psycopg.Error, match="never changed or removed"):
                    control.execute(text)
