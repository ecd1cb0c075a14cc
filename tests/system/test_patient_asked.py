"""``--patient``: who-can and explain of one real patient say what the gate shows; nothing else leaks."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from chartgate.cli.main import app
from chartgate.cli.policy_store import opened
from chartgate.model.event import AuditRead

pytestmark = pytest.mark.system

Told = Callable[..., str]
LEVELS = ("nothing", "masked", "in summary", "in full")
NUMBER = 7_700_000


@dataclass(frozen=True)
class Placed:
    """A patient with one lab result and one note of this test's own, in a year of their own."""

    mrn: str
    key: int
    year: int


@pytest.fixture
def told(gate: Any) -> Told:
    """A command's output; it must end well unless ``status`` says otherwise."""

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, [*words, "--state", str(gate.state.root)])
        assert result.exit_code == status, result.output
        return result.output

    return run


def ordinary(folder: Path, name: str) -> str:
    """A code that makes nothing special of its row."""
    lines = (folder / name).read_text("utf-8").splitlines()
    return next(code for line in lines if (code := line.split("#")[0].strip()))


CARDIOLOGY = """EXISTS (SELECT 1 FROM encounter e WHERE e.patient_id = p.patient_id
    AND e.department = 'cardiology')"""
ONCOLOGY = CARDIOLOGY.replace("cardiology", "oncology")
PROTECTED = """EXISTS (SELECT 1 FROM patient_flag f WHERE f.patient_id = p.patient_id
    AND f.flag IN ('vip', 'employee'))"""
OF_THE_TEAM = """EXISTS (SELECT 1 FROM care_team c JOIN staff s USING (staff_id)
    WHERE c.patient_id = p.patient_id AND s.username = 'mwelby'
    AND coalesce(c.valid_until, 'infinity') >= current_date)"""
PATIENTS = {
    "treated in cardiology": f"{CARDIOLOGY} AND NOT {PROTECTED}",
    "treated elsewhere": f"{ONCOLOGY} AND NOT {CARDIOLOGY} AND NOT {OF_THE_TEAM} AND NOT {PROTECTED}",
    "protected": f"{PROTECTED} AND NOT {OF_THE_TEAM}",
    "protected, of mwelby's": f"{PROTECTED} AND {OF_THE_TEAM}",
}


@pytest.fixture
def placed(gate: Any) -> Iterator[list[Placed]]:
    """Rows written by mwelby in cardiology, with no label of their own; taken away afterwards."""
    codes = gate.state.root / "maps" / "codesets"
    found: list[Placed] = []
    with gate.admin() as raw:
        for number, condition in enumerate(PATIENTS.values()):
            row = raw.execute(
                f"SELECT p.mrn, p.patient_id, (SELECT min(encounter_id) FROM encounter) "
                f"FROM patient p WHERE {condition} ORDER BY p.patient_id LIMIT 1"
            ).fetchone()
            assert row is not None, condition
            mrn, key, encounter = row
            year = 1931 + number
            raw.execute(
                "INSERT INTO lab_result (lab_id, order_id, patient_id, encounter_id, department, "
                "author_id, test_code, test, value, unit, ref_range, flag, resulted_at) "
                "SELECT %s, (SELECT min(order_id) FROM lab_order), %s, %s, 'cardiology', staff_id, "
                "%s, 'Sodium', '140', 'mmol/L', '135-145', 'normal', make_date(%s, 5, 5) "
                "FROM staff WHERE username = 'mwelby'",
                (NUMBER + number, key, encounter, ordinary(codes, "hospital_ordinary_tests.txt"), year),
            )  # fmt: skip
            raw.execute(
                "INSERT INTO clinical_note (note_id, patient_id, encounter_id, department, "
                "author_id, kind, written_on, diagnosis_code, note_text) "
                "SELECT %s, %s, %s, 'cardiology', staff_id, 'progress', make_date(%s, 5, 5), %s, "
                "'All is well.' FROM staff WHERE username = 'mwelby'",
                (NUMBER + number, key, encounter, year, ordinary(codes, "hospital_ordinary.txt")),
            )
            found.append(Placed(mrn, key, year))
        try:
            yield found
        finally:
            raw.execute("DELETE FROM lab_result WHERE lab_id >= %s", (NUMBER,))
            raw.execute("DELETE FROM clinical_note WHERE note_id >= %s", (NUMBER,))


def shown(connection: psycopg.Connection[Any], category: str) -> dict[int, int]:
    """year -> level at which the gate shows that year's row; the year is shown at every level."""
    if category == "labs":
        rows = connection.execute(
            "SELECT resulted_at, ref_range, unit, test FROM lab_result "
            "WHERE resulted_at < '1940-01-01'"
        ).fetchall()
        return {
            at.year: 3 if whole == "135-145" else 2 if unit == "mmol/L" else 1
            for at, whole, unit, test in rows
            if test is not None
        }
    rows = connection.execute(
        "SELECT written_on, note_text, kind FROM clinical_note WHERE written_on < '1940-01-01'"
    ).fetchall()
    return {
        on.year: 3 if text == "All is well." else 2 if text is not None else 1
        for on, text, kind in rows
        if kind is not None
    }


@pytest.mark.slow
@pytest.mark.parametrize("category", ["labs", "notes"])
def test_who_can_says_of_each_person_what_the_gate_shows_her_of_that_patient(
    gate: Any, told: Told, placed: list[Placed], category: str
) -> None:
    said: dict[tuple[str, str, int], int] = {}
    for one in placed:
        answer = json.loads(
            told(
                "who-can", "view", category, "--patient", one.mrn, "--json",
                "--record", "department=cardiology", "--record", "author=mwelby",
            )
        )  # fmt: skip
        for person in answer["people"]:
            for holding in person["holdings"]:
                assert holding["records"] == "any record"
                for purpose in holding["purposes"]:
                    key = (person["person"], purpose, one.year)
                    said[key] = max(said.get(key, 0), LEVELS.index(holding["may"]))
    with opened(gate.state.root) as store:
        people, roles = store.control.snapshot().persons, store.loaded().version.roles
    passwords = {line.split(":")[3] for line in gate.state.passfile.read_text("utf-8").splitlines()}
    asked = [person for name, person in people.items() if name in passwords and person.active]
    assert len(asked) >= 15
    seen: dict[tuple[str, str, int], int] = {}
    for person in asked:
        with gate.connect(person.name) as connection:
            for purpose in (roles.default_purpose(person.assignments), "TREAT", "HPAYMT", "HCOMPL"):
                try:
                    connection.execute(f"SET chartgate.purpose = '{purpose}'")
                except psycopg.Error:
                    continue  # she may not claim it
                for year, level in shown(connection, category).items():
                    seen[person.name, purpose, year] = level
    purposes = {purpose for _, purpose, _ in seen} | {"TREAT", "HPAYMT", "HCOMPL"}
    assert {key: level for key, level in said.items() if key[1] in purposes} == seen
    assert set(seen.values()) >= {1, 2, 3}
    assert {year for *_, year in seen} == {one.year for one in placed}


def test_explain_says_the_same_and_shows_nothing_that_was_looked_up(
    gate: Any, told: Told, placed: list[Placed]
) -> None:
    treated, elsewhere, protected, of_the_team = placed
    for one, answer in ((treated, "in full"), (of_the_team, "in full")):
        found = json.loads(
            told("explain", "mwelby", "view", "labs", "--patient", one.mrn, "--json")
        )
        assert found["answer"] == answer
        values = [
            value
            for label in found["labels"]
            for policy in (*label["giving"], *label["barring"])
            for conjunct in policy["conjuncts"]
            for noun, value in conjunct["values"].items()
            if "patient" in noun and "person" not in noun
        ]
        assert values
        assert set(values) == {None}
    found = json.loads(
        told("explain", "mwelby", "view", "labs", "--patient", protected.mrn, "--json")
    )
    assert found["question"]["labels"] == ["labs", "protected_person"]
    assert found["patient"]["labels"] == ["protected_person"]
    out = told("explain", "mwelby", "view", "labs", "--patient", elsewhere.mrn, "--full")
    assert "looked up, not shown" in " ".join(out.split())
    assert "in a department that has to do with the patient" in " ".join(out.split())
    assert "oncology" not in out


def test_the_question_is_on_disk_with_the_patients_token_before_the_source_is_asked(
    gate: Any, told: Told
) -> None:
    for words in (("who-can", "view", "labs"), ("explain", "mwelby", "view", "labs")):
        before = gate.size
        out = told(*words, "--patient", "MRN-000000", status=1)
        assert out == "chartgate: the source has no patient of this number today\n"
        (asked,) = [e for _, e in gate.events(before) if isinstance(e, AuditRead)]
        assert asked.allowed
        assert len(asked.parameters["patient"]) == 32
        assert "MRN" not in str(asked.parameters)
    listed = json.loads(told("audit", "who", "--patient", "MRN-000000", "--json"))
    assert len(listed["report"]["asked"]) >= 2


def test_whom_policy_does_not_let_read_the_log_does_not_reach_the_source(
    gate: Any, told: Told, placed: list[Placed]
) -> None:
    for number in (placed[0].mrn, "MRN-000000"):
        before = gate.size
        out = told("who-can", "view", "labs", "--patient", number, "--as", "mwelby", status=1)
        assert "does not let mwelby read the audit log" in out
        (refused,) = [e for _, e in gate.events(before) if isinstance(e, AuditRead)]
        assert not refused.allowed
        assert len(refused.parameters["patient"]) == 32


def test_what_cannot_be_asked_of_a_patient_is_one_line(told: Told, placed: list[Placed]) -> None:
    mrn = placed[0].mrn
    for words, reason in (
        (("who-can", "view", "labs", "--patient", " "), "takes a medical record number"),
        (("who-can", "read_audit", "--patient", mrn), "of a category of her records"),
        (("who-can", "view", "labs", "--patient", mrn, "--roles"), "source of an instance"),
        (
            ("who-can", "view", "labs", "--patient", mrn, "--record", "care_team=mwelby"),
            "--patient looks care_team up",
        ),
        (("explain", "--role", "nurse", "view", "labs", "--patient", mrn), "source of an instance"),
    ):
        assert reason in told(*words, status=1)
