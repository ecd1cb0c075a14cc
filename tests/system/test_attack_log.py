"""Attacks on the record: whoever learns something of a patient is found by that patient's token."""

from typing import Any

import psycopg
import pytest

from chartgate.model.event import Release

pytestmark = pytest.mark.system


def released(gate: Any, since: int) -> set[str]:
    return {
        token
        for _, event in gate.events(since)
        if isinstance(event, Release)
        for token in event.seen
    }


def test_counting_one_patients_rows_is_recorded_as_looking_at_that_patient(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        key, last, first = nurse.execute(
            "SELECT patient_id, last_name, first_name FROM patient ORDER BY patient_id LIMIT 1"
        ).fetchone()
        since = gate.size
        nurse.execute(
            "SELECT count(*) FROM patient JOIN lab_result USING (patient_id)"
            " WHERE last_name = %s AND first_name = %s",
            (last, first),
        )
        nurse.execute(
            "SELECT count(*) FROM patient WHERE last_name = %s AND first_name = %s", (last, first)
        )
    assert gate.tokens([key]) <= released(gate, since)


def test_counting_very_many_patients_lists_nobody(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        nurse.execute("SELECT 1")
        since = gate.size
        assert nurse.execute("SELECT count(*) FROM patient WHERE sex = 'F'").fetchone()[0] > 10
        nurse.execute("SELECT count(*) FROM patient")
    assert released(gate, since) == set()


@pytest.mark.parametrize(
    "shaky",
    [
        "extract(microseconds FROM statement_timestamp())::int %% 97 = patient_id %% 97",
        "extract(microseconds FROM clock_timestamp())::int %% 97 = patient_id %% 97",
        "random() < 0.05",
        (
            "CASE current_setting('extra_float_digits') WHEN '3' THEN patient_id = (SELECT"
            " max(patient_id) FROM patient) AND set_config('extra_float_digits', '2', false) = '2'"
            " ELSE patient_id < 20 END"
        ),
    ],
)
def test_an_answer_that_depends_on_the_moment_is_recorded_whole(gate: Any, shaky: str) -> None:
    with gate.connect("nadams") as nurse:
        nurse.execute("SET extra_float_digits = 3")
        for _ in range(5):
            since = gate.size
            (found,) = nurse.execute(
                f"SELECT max(patient_id) FROM patient WHERE last_name <> %s AND {shaky}", ("",)
            ).fetchone()
            known = gate.tokens([found]) if found is not None else set()
            # A stand-in's token is that of the patient, which the attacker does not know.
            assert found is None or found > 100_000 or known <= released(gate, since)


def test_a_parameter_declared_as_a_catalog_name_is_refused(gate: Any) -> None:
    with gate.connect("rpatel") as person:
        pgconn = person.pgconn
        done = pgconn.prepare(b"p", b"SELECT $1::text", [2205])
        assert done.status == psycopg.pq.ExecStatus.FATAL_ERROR
        assert done.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42501"


def test_the_log_does_not_repeat_a_relation_name_that_somebody_made_up(gate: Any) -> None:
    since = gate.size
    with gate.connect("rpatel", autocommit=True) as person:
        with pytest.raises(psycopg.errors.UndefinedTable, match="pelham_arthur_hiv"):
            person.execute("SELECT * FROM pelham_arthur_hiv")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="pg_stats"):
            person.execute("SELECT * FROM pg_catalog.pg_stats")
    refused = [e for _, e in gate.events(since) if getattr(e, "allowed", True) is False]
    assert [e.reason for e in refused] == [
        "a relation that is not in the data map",
        "a catalog relation that is not on the allow-list",
    ]
    assert not any("pelham" in e.statement for e in refused)


def test_whom_a_refused_statement_looked_for_is_recorded(gate: Any) -> None:
    with gate.connect("rpatel", autocommit=True) as person:
        since = gate.size
        for refused in (
            "SELECT pg_sleep(1) FROM patient WHERE patient_id = 3",
            "SELECT * FROM nowhere WHERE patient_id IN (3, 4)",
            "UPDATE patient SET ssn = 'x' WHERE patient_id = '3'",
        ):
            with pytest.raises(psycopg.Error):
                person.execute(refused)
    sought = [e.sought for _, e in gate.events(since) if getattr(e, "allowed", True) is False]
    three, four = (next(iter(gate.tokens([key]))) for key in (3, 4))
    assert sought == [(three,), (three, four), (three,)]
