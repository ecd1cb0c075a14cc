"""A log that a real gate wrote, decided again: the same policies change nothing, others exactly
what was changed in them."""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.policy_files import load_data_map, read_bundle, write_bundle
from chartgate.adapters.replay_log import RecordedPeople, Requests
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.policy_bundle import Bundle, open_bundle
from chartgate.app.replay import Apart, Flip, Replay, Tally
from chartgate.app.replay_report import FlipRow, ReplayReport, replay
from chartgate.cli.main import app
from chartgate.demo.shipped import shipped
from chartgate.model.event import AuditRead

pytestmark = pytest.mark.system

READERS = ("mwelby", "nadams", "rpatel", "bcoder", "bclinician", "aassist", "pharma", "contractor")
READS = (
    "SELECT * FROM patient LIMIT 5",
    "SELECT mrn, last_name, ssn FROM patient WHERE mrn = '1000'",
    "SELECT count(*) FROM encounter",
    "SELECT p.last_name, c.description, c.amount FROM patient p JOIN charge c USING (patient_id)",
    "SELECT note_text FROM clinical_note WHERE note_text LIKE '%pain%' LIMIT 2",
    "WITH l AS (SELECT patient_id, value FROM lab_result) SELECT count(value) FROM l",
    "SELECT extract(year FROM starts_at) AS y, count(*) FROM appointment GROUP BY 1",
    "SELECT relname FROM pg_class WHERE relname = 'patient'",
    "SHOW server_version",
)
REFUSED = (
    "SELECT pg_sleep(10)",
    "SELEKT 1",
    "SELECT * FROM no_such_table",
    "DELETE FROM billing_account WHERE account_id = 1",
    "UPDATE clinical_note SET note_text = 'x' WHERE note_id = 1",
)
CHARTED = "UPDATE vital_sign SET heart_rate = 61 WHERE vital_id = -1"


@dataclass(frozen=True)
class Recorded:
    """What was recorded, and what it takes to decide it again."""

    gate: Any
    bundle: Bundle
    tallies: tuple[Tally, ...]

    def point(self, bundle: Bundle) -> tuple[DecisionPoint, Any]:
        version = open_bundle(bundle)
        data_map = load_data_map(Path(self.gate.ready.instance.data_map), version.schema)
        return DecisionPoint(
            version.policies, version.schema, version.roles, data_map
        ), version.schema

    def under(self, candidate: Bundle, *, in_force: bool = True) -> ReplayReport:
        point, schema = self.point(candidate)
        known = {self.gate.ready.point.policies.hash: self.gate.ready.point} if in_force else {}
        again = Replay(point, schema, self.gate.ready.source, known)
        return replay(self.tallies, again.outcome, candidate.hash)

    def edited(self, path: str, *changes: tuple[str, str]) -> Bundle:
        text = self.bundle.text(path)
        for old, new in changes:
            assert text.count(old) >= 1, old
            text = text.replace(old, new)
        return Bundle({**self.bundle.files, path: text})

    def statements(self, *, login: str, table: str) -> int:
        """How many allowed statements of a person named the table."""
        with self.gate.control() as control:
            uid = control.snapshot().persons[login].uid
        return sum(
            tally.statements
            for tally in self.tallies
            if tally.recorded.uid == uid
            and tally.recorded.allowed
            and any(use.table == f"public.{table}" for use in tally.recorded.tables)
        )


@pytest.fixture(scope="module")
def recorded(gate: Any) -> Recorded:
    start = gate.size
    for name in READERS:
        with gate.connect(name) as connection:
            for query in (*READS, *READS[:2], *REFUSED, CHARTED):
                with suppress(psycopg.Error):
                    connection.execute(query).fetchall()
            connection.execute("SELECT last_name FROM patient WHERE patient_id = %s", (7,))
    with gate.connect("mwelby", options="-c chartgate.purpose=HPAYMT") as connection:
        connection.execute("SELECT * FROM charge LIMIT 1")
    with gate.control() as control:
        people = RecordedPeople(control.snapshot().persons)
    requests = Requests(people)
    requests.read(LogReader(gate.state.log_dir).entries(start))
    return Recorded(gate, read_bundle(shipped("policies")), tuple(requests.tallies()))


def rows(report: ReplayReport, flip: Flip) -> list[FlipRow]:
    return [row for row in report.rows if row.flip is flip]


@pytest.mark.parametrize("in_force", [True, False])
def test_under_the_policies_that_decided_nothing_changes(
    recorded: Recorded, in_force: bool
) -> None:
    report = recorded.under(recorded.bundle, in_force=in_force)
    assert report.rows == ()
    assert report.flipped == 0
    assert report.decisions == report.same + sum(count for _, count in report.apart)
    apart = dict(report.apart)
    assert set(apart) == {Apart.NO_RECORD, Apart.FORM, Apart.TEXT}
    assert apart[Apart.FORM] == 2 * len(READERS)
    assert apart[Apart.TEXT] == len(READERS)


def test_every_allowed_statement_is_decided_again_and_refusals_of_policy_too(
    recorded: Recorded,
) -> None:
    report = recorded.under(recorded.bundle)
    about_records = sum(
        tally.statements
        for tally in recorded.tallies
        if tally.recorded.allowed and tally.recorded.action in {"select", "update", "delete"}
    )
    refused_by_policy = report.same - about_records
    assert refused_by_policy >= 2 * len(READERS) - 4
    assert report.requests < report.decisions


def test_a_permit_taken_away_hides_and_lowers_for_that_role_alone(recorded: Recorded) -> None:
    bundle = recorded.edited(
        "roles/nurse.cedar",
        ('@id("nurse_cares")', '@id("nurse_cares")\n@note("narrowed")'),
        (
            'Category::"notes", Category::"labs", Category::"medications",',
            'Category::"medications",',
        ),
    )
    report = recorded.under(bundle)
    assert report.flipped
    assert {row.roles for row in report.rows} == {("nurse",)}
    assert {row.flip for row in report.rows} <= {Flip.HIDDEN, Flip.LOWERED, Flip.PARTLY, Flip.ROWS}
    hidden = {row.table for row in rows(report, Flip.HIDDEN)}
    assert {"public.clinical_note", "public.lab_result"} <= hidden
    [notes] = [r for r in report.rows if r.table == "public.clinical_note"]
    assert notes.statements == recorded.statements(login="nadams", table="clinical_note")
    assert len(notes.persons) == 1
    assert notes.last - notes.first < timedelta(minutes=5)


def test_a_permit_given_shows_more_to_that_role_alone(recorded: Recorded) -> None:
    nurse = recorded.bundle.text("roles/nurse.cedar")
    added = nurse + (
        '\n@id("nurse_bills")\npermit (principal in Role::"nurse", action == Action::"view", '
        'resource) when { resource.category == Category::"billing" };\n'
    )
    report = recorded.under(Bundle({**recorded.bundle.files, "roles/nurse.cedar": added}))
    assert {row.roles for row in report.rows} == {("nurse",)}
    assert {row.flip for row in report.rows} <= {Flip.SHOWN, Flip.RAISED, Flip.ROWS}
    assert rows(report, Flip.SHOWN) or rows(report, Flip.RAISED)
    assert {row.table for row in report.rows} == {"public.charge"}


def test_a_write_that_a_rule_no_longer_permits_is_refused(recorded: Recorded) -> None:
    before = recorded.under(recorded.bundle)
    assert not before.rows
    bundle = recorded.edited(
        "roles/nurse.cedar",
        (
            'permit (principal in Role::"nurse", action in [Action::"create", Action::"update"], resource)',
            'permit (principal in Role::"nurse", action == Action::"create", resource)',
        ),
    )
    report = recorded.under(bundle)
    assert {row.flip for row in report.rows} == {Flip.REFUSED}
    assert {(row.roles, row.action) for row in report.rows} == {(("nurse",), "update")}
    assert "vital_sign" in report.rows[0].why


def test_a_write_that_a_rule_newly_permits_is_allowed(recorded: Recorded) -> None:
    nurse = recorded.bundle.text("roles/nurse.cedar")
    added = nurse + (
        '\n@id("nurse_rewrites")\npermit (principal in Role::"nurse", action in [Action::"update", '
        'Action::"view"], resource);\n'
    )
    candidate = Bundle({**recorded.bundle.files, "roles/nurse.cedar": added})
    allowed = rows(recorded.under(candidate), Flip.ALLOWED)
    assert [(row.roles, row.statements) for row in allowed] == [(("nurse",), 1)]
    assert "clinical_note" in allowed[0].why
    blind = recorded.under(candidate, in_force=False)
    assert not rows(blind, Flip.ALLOWED)
    assert dict(blind.apart)[Apart.VERSION] >= 1


def test_a_purpose_that_may_no_longer_be_claimed_refuses_what_was_asked_for_it(
    recorded: Recorded,
) -> None:
    bundle = recorded.edited(
        "roles.toml",
        (
            'purposes = ["TREAT", "ETREAT", "COC", "HPAYMT"]',
            'purposes = ["TREAT", "ETREAT", "COC"]',
        ),
    )
    report = recorded.under(bundle)
    assert [(r.flip, r.roles, r.statements) for r in report.rows] == [
        (Flip.REFUSED, ("physician",), 1)
    ]


def test_a_rule_that_names_one_person_hits_her_and_nobody_like_her(recorded: Recorded) -> None:
    guard = recorded.bundle.text("guardrails.cedar") + (
        '\n@id("not_him")\nforbid (principal, action, resource) '
        'when { principal == User::"mwelby" };\n'
    )
    report = recorded.under(Bundle({**recorded.bundle.files, "guardrails.cedar": guard}))
    assert {row.roles for row in report.rows} == {("physician",)}
    assert len(report.persons) == 1
    assert report.more == 0


def test_a_rule_that_only_a_clock_ends_counts_as_of_each_decision(recorded: Recorded) -> None:
    first = min(tally.first for tally in recorded.tallies)
    text = (first - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    guard = recorded.bundle.text("guardrails.cedar") + (
        '\n@id("closed_since_yesterday")\nforbid (principal in Role::"nurse", action, resource) '
        f'when {{ context.now > datetime("{text}") }};\n'
    )
    report = recorded.under(Bundle({**recorded.bundle.files, "guardrails.cedar": guard}))
    assert {row.roles for row in report.rows} == {("nurse",)}
    assert {row.flip for row in report.rows} <= {Flip.HIDDEN, Flip.REFUSED}


def test_the_command_signs_in_records_the_question_and_shows_whom_a_candidate_hits(
    recorded: Recorded, tmp_path: Path
) -> None:
    candidate = tmp_path / "candidate"
    write_bundle(
        recorded.edited("roles/nurse.cedar", ('Category::"labs", Category::"medications",', "")),
        candidate,
    )
    before = recorded.gate.size

    def run(*words: str, name: str = "pofficer") -> Result:
        environment = {"PGPASSFILE": str(recorded.gate.state.passfile), "CHARTGATE_PERSON": None}
        command = [
            "policy",
            "replay",
            *words,
            "--as",
            name,
            "--state",
            str(recorded.gate.state.root),
        ]
        return CliRunner().invoke(app, command, env=environment)

    shown = run(str(candidate), "--since", "1d")
    assert shown.exit_code == 1, shown.output
    assert "Nora Adams" in shown.output
    assert "Table hidden instead of shown" in shown.output
    found = json.loads(run(str(candidate), "--json").stdout)
    assert found["report"]["flipped"] == found["report"]["less"] > 0
    assert found["report"]["more"] == 0
    assert list(found["names"].values()) == ["Nora Adams"]
    asked = [e for _, e in recorded.gate.events(before) if isinstance(e, AuditRead)]
    assert [e.allowed for e in asked] == [True, True]
    assert asked[0].parameters["candidate"] == found["candidate"]["hash"]

    refused = run(str(candidate), name="nadams")
    assert refused.exit_code == 1
    assert "does not let" in refused.output
    technical = json.loads(run(str(candidate), "--json", name="ddba").stdout)
    assert technical["names"] == {}
    assert "persons" not in technical["report"]
    assert technical["report"]["people"] == 1
    assert run("active").exit_code == 0
