"""The audit commands against a real control plane, source database and log."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from chartgate.adapters.control_plane import open_control_plane
from chartgate.adapters.control_plane_snapshot import RoleRecord
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.keys import KeyStore, TokenKeys
from chartgate.adapters.log_files import LogFiles, LogReader
from chartgate.adapters.log_socket import serve_log_socket
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.policy_files import load_policy_version
from chartgate.adapters.signing import load_or_create_signer
from chartgate.adapters.state import Instance, State
from chartgate.app.tokens import PatientTokens
from chartgate.cli.audit import audit_app
from chartgate.model.event import (
    AuditRead,
    Completed,
    Decision,
    Event,
    LoginRefused,
    NodeStopped,
    Recovered,
    Release,
    TableUse,
    decode,
    encode,
)
from chartgate.pgwire.scram import mint_verifier

pytestmark = pytest.mark.system

MAP = """
source = "hospital"
title = "Test hospital"
schema = "public"
[patient]
table = "patient"
key = "patient_id"
identifier = "mrn"
[relations.care_team]
type = "Set<User>"
from = "patient p"
where = "false"
value = "p.mrn"
[relations.departments]
type = "Set<Department>"
from = "patient p"
where = "false"
value = "p.mrn"
[relations.queues]
type = "Set<Department>"
from = "patient p"
where = "false"
value = "p.mrn"
[relations.age_bands]
type = "Set<AgeBand>"
from = "patient p"
where = "false"
value = "p.mrn"
[tables.patient]
row_category = "demographics"
patient = "this.patient_id"
[tables.patient.columns]
patient_id = "key"
mrn = "record_ids"
"""
PASSWORD = "correct horse battery staple"
AT = "2026-03-02T09:00:00.000000Z"


@dataclass(frozen=True)
class World:
    """A state folder whose log tells of one read of Ann (MRN 100-1) and one count."""

    state: State
    root: Path
    uids: dict[str, str]
    ann: str

    def run(self, *words: str, password: str | None = PASSWORD) -> Result:
        env = {"CHARTGATE_PASSWORD": password, "CHARTGATE_PERSON": None, "PGPASSFILE": None}
        return CliRunner().invoke(audit_app, [*words, "--state", str(self.root)], env=env)

    def events(self) -> list[Event]:
        return [decode(entry) for _, entry in LogReader(self.state.log_dir).entries()]

    def append(self, *events: Event) -> None:
        signer = load_or_create_signer(self.state.log_key, "node.example/log")
        with LogFiles.open(self.state.log_dir, signer) as log:
            log.append([encode(event) for event in events])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("audit") / "pg") as running:
        with psycopg.connect(running.conninfo("postgres", "postgres"), autocommit=True) as admin:
            admin.execute("CREATE DATABASE control")
            admin.execute("CREATE DATABASE hospital")
        with psycopg.connect(running.conninfo("hospital", "postgres")) as hospital:
            hospital.execute("CREATE TABLE patient (patient_id bigint, mrn text)")
            hospital.execute("INSERT INTO patient VALUES (7, '100-1'), (8, '100-2')")
        yield running


@pytest.fixture
def world(server: EmbeddedPostgres, tmp_path: Path, project_root: Path) -> World:
    state = State(tmp_path / "state")
    state.create()
    data_map = tmp_path / "hospital.toml"
    data_map.write_text(MAP)
    policies = project_root / "policies"
    state.save_instance(
        Instance(
            node="node1",
            origin="node.example/log",
            source="hospital",
            data_map=str(data_map),
            policies=str(policies),
            control=server.conninfo("control", "postgres"),
            legacy=server.conninfo("hospital", "postgres"),
            auditor="pofficer",
        )
    )
    uids = {}
    now = datetime.now(UTC)
    with open_control_plane(server.conninfo("control", "postgres")) as plane:
        book = load_policy_version(policies).roles
        plane.set_roles(
            RoleRecord(r.name, r.title, r.default_purpose or None, r.purposes, r.parents)
            for r in book.roles.values()
        )
        for name, full, role in (
            ("mwelby", "Marcus Welby", "physician"),
            ("pofficer", "Petra Officer", "privacy_officer"),
            ("ddba", "Dan Dba", "it_support_dba"),
        ):
            uids[name] = plane.upsert_person(name, full)
            verifier = mint_verifier(PASSWORD, salt=os.urandom(16))
            plane.set_credential(name, verifier, now + timedelta(hours=1))
            plane.assign(
                name, role, "cardiology", valid_from=datetime(2026, 1, 1, tzinfo=UTC), reference="T"
            )
    keys = TokenKeys(KeyStore(state.keys_dir), create=True)
    ann = PatientTokens(keys, "hospital").token("patient", "7", year=2026)
    made = World(state, state.root, uids, ann)
    common = {"at": AT, "node": "node1", "session": "s1", "person": uids["mwelby"]}
    decision = Decision(
        **common,
        request="r1",
        allowed=True,
        action="select",
        purpose="TREAT",
        statement="SELECT value FROM lab_result WHERE patient_id = $1",
        tables=(TableUse(table="lab_result", columns={"value": "summary", "note": "withheld"}),),
        determining=("physician-labs",),
        roles=("physician",),
    )
    made.append(
        decision,
        Release(**common, request="r1", decision=0, seen=(ann,), rows=1),
        Completed(**common, request="r1", decision=0, rows=1),
        Decision(
            **common,
            request="r2",
            allowed=True,
            action="select",
            scope_only=True,
            tables=(TableUse(table="lab_result"),),
        ),
    )
    return made


def test_the_privacy_officer_learns_who_saw_the_patient(world: World) -> None:
    result = world.run("who", "--patient", "100-1")
    assert result.exit_code == 0, result.output
    for words in (
        "Accesses to patient 100-1",
        "Marcus Welby",
        "physician",
        "summary value",
        "withheld note",
        "physician-labs",
        "delivered",
        "in UTC",
        "1 scope-only statement may include this patient:",
        "Asked by Petra Officer (pofficer); the question is event 4",
    ):
        assert words in result.output
    assert world.ann not in result.output
    assert "\x1b" not in result.output


def test_the_question_is_in_the_log_with_tokens_and_never_the_number(world: World) -> None:
    world.run("who", "--patient", "100-1")
    asked = world.events()[-1]
    assert isinstance(asked, AuditRead)
    assert asked.allowed
    assert asked.person == world.uids["pofficer"]
    assert world.ann in asked.parameters["patient"].split(",")
    assert b"100-1" not in b"".join(e for _, e in LogReader(world.state.log_dir).entries())


def test_the_same_answer_as_json(world: World) -> None:
    result = world.run("who", "--patient", "100-1", "--on", "2026-03-02", "--json")
    answer = json.loads(result.output)
    (row,) = answer["report"]["accesses"]
    assert row["person"] == world.uids["mwelby"]
    assert answer["names"][row["person"]] == "Marcus Welby"
    assert row["tables"][0]["levels"] == {"summary": ["value"], "withheld": ["note"]}
    assert answer["closing"].startswith("1 scope-only")
    other = world.run("who", "--patient", "100-1", "--on", "2026-03-03", "--json")
    assert json.loads(other.output)["report"]["accesses"] == []


def test_another_patient_was_not_seen_and_an_unknown_number_is_said_to_be_unknown(
    world: World,
) -> None:
    assert "No statement released" in world.run("who", "--patient", "100-2").output
    assert "takes a medical record number" in world.run("who", "--patient", " ").output
    assert "no patient of this number" in world.run("who", "--patient", "9").output


def test_whom_policy_does_not_allow_is_refused_and_recorded(world: World) -> None:
    result = world.run("who", "--patient", "100-1", "--as", "mwelby")
    assert result.exit_code == 1
    assert "recorded as event 4" in result.output
    assert "Marcus" not in result.output
    asked = world.events()[-1]
    assert isinstance(asked, AuditRead)
    assert not asked.allowed
    later = world.run("who", "--patient", "100-1", "--json")
    # the refused question knew the number alone, and is found by it
    assert [a["allowed"] for a in json.loads(later.output)["report"]["asked"]] == [False]


def test_a_wrong_password_answers_nothing_and_is_recorded(world: World) -> None:
    for name, uid in (("pofficer", world.uids["pofficer"]), ("nobody", "unknown")):
        result = world.run("who", "--patient", "100-1", "--as", name, password="wrong")
        assert result.exit_code == 1
        assert "password authentication failed" in result.output
        refused = world.events()[-1]
        assert isinstance(refused, LoginRefused)
        assert refused.login == uid


def test_the_password_is_found_in_the_passfile(world: World) -> None:
    world.state.passfile.write_text("# demo\nlocalhost:1:*:pofficer:correct horse battery staple\n")
    world.state.passfile.chmod(0o600)
    assert world.run("tail", password=None).exit_code == 0
    world.state.passfile.chmod(0o644)
    assert "no password" in world.run("tail", password=None).output


def test_what_a_person_did(world: World) -> None:
    result = world.run("user", "mwelby")
    assert result.exit_code == 0, result.output
    assert f"What Marcus Welby (mwelby, {world.uids['mwelby']}) did at any time" in result.output
    assert "1 seen" in result.output
    assert "counted, not listed" in result.output
    answer = json.loads(world.run("user", "mwelby", "--on", "2026-03-02", "--json").output)
    assert [row["index"] for row in answer["report"]["statements"]] == [0, 3]
    assert world.run("user", "nobody").exit_code == 1
    asked = world.events()[-1]
    assert isinstance(asked, AuditRead)
    assert asked.parameters["person"] == "unknown"


async def test_a_running_gateway_writes_the_question(world: World) -> None:
    writer = LogWriter(
        LogFiles.open(
            world.state.log_dir, load_or_create_signer(world.state.log_key, "node.example/log")
        )
    )
    async with await serve_log_socket(world.state.log_socket, writer):
        result = await asyncio.to_thread(world.run, "who", "--patient", "100-1")
        assert result.exit_code == 0, result.output
        refused = await asyncio.to_thread(world.run, "tail", password="wrong")
        assert refused.exit_code == 1
        assert writer.size == 6
    unreachable = await asyncio.to_thread(world.run, "who", "--patient", "100-1")
    await writer.close()
    assert unreachable.exit_code == 1
    assert "Marcus" not in unreachable.output


async def test_following_prints_what_comes_until_policy_ends_it(world: World) -> None:
    program = "from chartgate.cli.audit import audit_app; audit_app()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "tail", "-n", "0", "--follow"),
        *("--state", str(world.root)),
        env={**os.environ, "CHARTGATE_PASSWORD": PASSWORD, "CHARTGATE_PERSON": "pofficer"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"audit read" not in (line := await process.stdout.readline()):
                assert line
            await asyncio.to_thread(world.append, NodeStopped(at=AT, node="n", reason="asked"))
            while b"node stopped" not in (line := await process.stdout.readline()):
                assert line
            with open_control_plane(world.state.instance().control) as plane:
                plane.deactivate("pofficer")
            await asyncio.to_thread(world.append, NodeStopped(at=AT, node="n", reason="later"))
            assert b"no longer lets you" in await process.stderr.read()
            assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_a_torn_tail_found_on_the_way_is_recorded_before_the_question(world: World) -> None:
    (wal,) = world.state.log_dir.glob("wal-*.log")
    with wal.open("ab") as file:
        file.write(b"\xc9WL\2\0\0\0\7\7")  # how a frame begins
    assert world.run("tail").exit_code == 0
    recovered, asked = world.events()[-2:]
    assert isinstance(recovered, Recovered)
    assert recovered.dropped_bytes == 9
    assert isinstance(asked, AuditRead)


def test_an_entry_this_program_does_not_know_is_not_guessed_at(world: World) -> None:
    newer = NodeStopped(at=AT, node="n", reason="x", version=99)
    world.append(newer)
    result = world.run("tail")
    assert result.exit_code == 1
    assert "log entry 4 has version 99" in result.output


def test_a_person_without_a_live_role_is_refused(world: World) -> None:
    with open_control_plane(world.state.instance().control) as plane:
        plane.upsert_person("idle", "Ida Idle")
        verifier = mint_verifier(PASSWORD, salt=os.urandom(16))
        plane.set_credential("idle", verifier, datetime.now(UTC) + timedelta(hours=1))
    assert "does not let idle read" in world.run("tail", "--as", "idle").output


def test_the_database_administrator_sees_the_tail_and_no_patient(world: World) -> None:
    result = world.run("tail", "-n", "2", "--as", "ddba", "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["index"] for line in lines] == [2, 3]
    assert world.ann not in result.output
    assert world.run("who", "--patient", "100-1", "--as", "ddba").exit_code == 1


def test_a_whole_log_verifies_and_its_checkpoint_is_kept_outside(world: World) -> None:
    first = world.run("verify")
    assert first.exit_code == 0, first.output
    assert "The log is what was signed." in first.output
    assert "no earlier checkpoint" in first.output
    world.run("tail")
    second = json.loads(world.run("verify", "--json").output)
    assert (second["size"], second["known_size"]) == (5, 4)


def test_a_flipped_byte_and_a_rolled_back_log_do_not_verify(world: World) -> None:
    assert world.run("verify").exit_code == 0
    (wal,) = world.state.log_dir.glob("wal-*.log")
    whole = wal.read_bytes()
    middle = len(whole) // 2
    wal.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    broken = world.run("verify")
    assert broken.exit_code == 1
    assert wal.name in broken.output
    wal.write_bytes(whole)
    assert world.run("verify").exit_code == 0
    for file in world.state.log_dir.iterdir():
        file.unlink()
    world.append(Release(at=AT, node="n", session="s", person="p", request="r", decision=0))
    assert world.run("verify").exit_code == 1


def test_what_verifies_the_log_may_not_lie_inside_it(world: World) -> None:
    inside = world.state.log_dir / "log.key.pub"
    inside.write_text(world.state.log_public_key.read_text())
    assert "lies inside the log" in world.run("verify", "--key", str(inside)).output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("who", "--patient", "1", "--on", "20260302"), "--on takes a day"),
        (("who", "--patient", "1", "--zone", "Mars/Olympus"), "--zone takes a name"),
    ],
)
def test_what_cannot_be_understood_is_told_in_one_line(
    world: World, words: tuple[str, ...], told: str
) -> None:
    result = world.run(*words)
    assert result.exit_code == 1
    assert told in result.output
    assert len(result.output.splitlines()) == 1


def test_a_folder_without_an_instance_is_told_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(audit_app, ["tail", "--state", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith(f"chartgate: {tmp_path} holds no Chartgate instance")
