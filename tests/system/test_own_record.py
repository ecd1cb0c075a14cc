"""A patient, her mother and a records clerk through the gate: one record, and nobody else's."""

from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.system

CLINICAL = ("lab_result", "condition", "medication_order", "vital_sign", "appointment", "charge")


def count(connection: psycopg.Connection[Any], sql: str, *values: object) -> int:
    row = connection.execute(sql.encode(), values or None).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(scope="module")
def ann(gate: Any) -> str:
    """The key of the one patient whom the demo's patient is."""
    with gate.control() as control:
        (assignment,) = control.snapshot().persons["annself"].assignments
    assert assignment.patient is not None
    return str(assignment.patient)


def test_a_patient_reads_all_of_her_own_record(gate: Any, ann: str) -> None:
    with gate.connect("annself") as connection, gate.admin() as raw:
        shown = connection.execute("SELECT patient_id::text, mrn, last_name, ssn FROM patient")
        (own,) = shown.fetchall()
        there = raw.execute(
            "SELECT patient_id::text, mrn, last_name, ssn FROM patient WHERE patient_id::text = %s",
            (ann,),
        ).fetchone()
        assert there is not None
        assert own[:3] == there[:3]
        assert own[3] == (None if there[3] is None else "***-**-" + there[3][-4:])
        for table in CLINICAL:
            wanted = count(raw, f"SELECT count(*) FROM {table} WHERE patient_id::text = %s", ann)
            assert count(connection, f"SELECT count(*) FROM {table}") == wanted, table
        labs = "SELECT value FROM lab_result WHERE patient_id::text = %s ORDER BY lab_id"
        values = connection.execute(labs.encode(), (ann,)).fetchall()
        assert values == raw.execute(labs.encode(), (ann,)).fetchall() != []
        assert (
            count(connection, "SELECT count(*) FROM clinical_note WHERE kind = 'psychotherapy'")
            == 0
        )


def test_a_patient_cannot_ask_as_somebody_who_treats(gate: Any) -> None:
    with gate.connect("annself") as connection, pytest.raises(psycopg.Error, match="purpose"):
        connection.execute("SET chartgate.purpose TO 'TREAT'")


def test_a_patient_is_no_reader_of_the_directory(gate: Any) -> None:
    with gate.connect("annself") as connection:
        assert count(connection, "SELECT count(*) FROM staff") == 0


def test_a_patient_changes_her_address_and_no_diagnosis(gate: Any, ann: str) -> None:
    with gate.connect("annself") as connection, gate.admin() as raw:
        before = raw.execute(
            "SELECT address FROM patient WHERE patient_id::text = %s", (ann,)
        ).fetchone()
        try:
            moved = connection.execute("UPDATE patient SET address = '1 New Road'")
            assert moved.rowcount == 1
            assert count(raw, "SELECT count(*) FROM patient WHERE address = '1 New Road'") == 1
            with pytest.raises(psycopg.Error):
                connection.execute("UPDATE condition SET status = 'resolved'")
        finally:
            assert before is not None
            raw.execute(
                "UPDATE patient SET address = %s WHERE patient_id::text = %s", (before[0], ann)
            )


@pytest.mark.parametrize("name", ["annmother", "hrecords"])
def test_who_acts_for_a_patient_reaches_that_patient_alone(gate: Any, ann: str, name: str) -> None:
    with gate.connect(name) as connection:
        for table in ("lab_result", "medication_order", "charge"):
            others = f"SELECT count(*) FROM {table} WHERE patient_id::text <> %s"
            assert count(connection, others, ann) == 0, table
    with gate.connect("hrecords") as connection:
        # To tell people apart a records clerk finds anybody, protected patients excepted.
        assert count(connection, "SELECT count(*) FROM patient") > 100
