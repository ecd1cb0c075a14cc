"""psycopg 3 through the gate: reading, writing, errors, purposes, and what ends a session."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import scalar_row

from chartgate.model.event import (
    Completed,
    Decision,
    LoginRefused,
    Release,
    SessionEnded,
    SessionStarted,
)
from chartgate.pgwire.scram import mint_verifier

pytestmark = pytest.mark.system


@contextmanager
def refused(sqlstate: str, words: str = "") -> Iterator[None]:
    with pytest.raises(psycopg.Error, match=words or None) as caught:
        yield
    assert caught.value.sqlstate == sqlstate


def her_visit(admin: Any, department: str) -> tuple[int, int]:
    row = admin.execute(
        "SELECT e.patient_id, e.encounter_id FROM encounter e WHERE e.department = %s AND NOT"
        " EXISTS (SELECT FROM patient_flag f WHERE f.patient_id = e.patient_id) ORDER BY 2 LIMIT 1",
        (department,),
    ).fetchone()
    return row[0], row[1]


def staff_id(admin: Any, name: str) -> int:
    return int(
        admin.execute("SELECT staff_id FROM staff WHERE username = %s", (name,)).fetchone()[0]
    )


# Reading.


def test_every_patient_that_was_seen_is_in_the_log(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams") as nurse, gate.admin() as admin:
        hers = nurse.execute("SELECT patient_id FROM patient").fetchall()
        everyone = admin.execute("SELECT count(*) FROM patient").fetchone()
    assert 0 < len(hers) < everyone[0]
    seen = {t for _, e in gate.events(since) if isinstance(e, Release) for t in e.seen}
    assert seen == gate.tokens(key for (key,) in hers)


READS = {
    "join": "SELECT p.patient_id, e.class FROM patient p JOIN encounter e USING (patient_id)",
    "left join": "SELECT p.patient_id, a.status FROM patient p LEFT JOIN appointment a"
    " ON a.patient_id = p.patient_id",
    "with": "WITH v AS (SELECT patient_id, max(taken_at) AS t FROM vital_sign GROUP BY 1)"
    " SELECT patient_id, t FROM v",
    "sub-query": "SELECT patient_id FROM patient WHERE patient_id IN"
    " (SELECT patient_id FROM encounter WHERE class = 'inpatient')",
    "scalar sub-query": "SELECT patient_id, (SELECT count(*) FROM encounter e"
    " WHERE e.patient_id = p.patient_id) FROM patient p",
    "union": "SELECT patient_id FROM patient UNION SELECT patient_id FROM encounter",
    "except": "SELECT patient_id FROM patient EXCEPT SELECT patient_id FROM genetic_test",
    "aggregate": "SELECT patient_id, count(*), max(started_at) FROM encounter GROUP BY patient_id",
    "window": "SELECT patient_id, row_number() OVER (PARTITION BY class ORDER BY started_at)"
    " FROM encounter",
    "distinct": "SELECT DISTINCT patient_id FROM encounter",
    "parameters": "SELECT patient_id FROM patient WHERE patient_id < 50 AND mrn <> ''",
    "sorted": "SELECT patient_id, last_name FROM patient ORDER BY last_name DESC LIMIT 5 OFFSET 2",
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("binary", [False, True])
def test_a_reading_works_and_its_patients_are_covered(gate: Any, name: str, binary: bool) -> None:
    since = gate.size
    with gate.connect("nadams") as nurse:
        rows = nurse.execute(READS[name], binary=binary).fetchall()
    # A pseudonym stands for a key where record ids are not shown; it is far from the real ones.
    keys = {row[0] for row in rows if row[0] <= 300}
    events = [e for _, e in gate.events(since)]
    seen = {t for e in events if isinstance(e, Release) for t in e.seen}
    assert keys
    assert gate.tokens(keys) <= seen
    (decision,) = [e for e in events if isinstance(e, Decision)]
    assert decision.allowed
    assert decision.tables


def test_a_filtered_answer_carries_one_notice_that_names_its_event(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        notices: list[Any] = []
        nurse.add_notice_handler(lambda d: notices.append((d.message_primary, d.message_detail)))
        nurse.execute("SELECT patient_id, ssn FROM patient").fetchall()
        nurse.execute("SELECT code, name FROM department").fetchall()
    ((message, detail),) = notices
    number = int(message.rpartition("event ")[2].rstrip(")"))
    event = dict(gate.events(number))[number]
    assert isinstance(event, Decision)
    assert event.statement == "SELECT patient_id, ssn FROM patient"
    assert "purpose TREAT" in message
    assert detail == "patient: only the rows you may see; ssn not shown"


def test_a_count_is_scope_only(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams") as nurse:
        nurse.execute("SELECT count(*) FROM patient").fetchall()
    (decision,) = [e for _, e in gate.events(since) if isinstance(e, Decision)]
    assert decision.scope_only


def test_a_statement_prepared_by_the_driver_is_decided_each_time(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams", prepare_threshold=0) as nurse:
        for key in (1, 2, 1):
            nurse.execute("SELECT mrn FROM patient WHERE patient_id = %s", (key,)).fetchall()
    decisions = [e for _, e in gate.events(since) if isinstance(e, Decision)]
    assert [set(e.sought) <= gate.tokens([1, 2]) and len(e.sought) for e in decisions] == [1, 1, 1]
    assert decisions[0].sought == decisions[2].sought != decisions[1].sought


def test_a_pipeline_goes_on_after_an_error(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams") as nurse:
        with nurse.pipeline() as pipeline:
            first = nurse.execute("SELECT patient_id FROM patient ORDER BY 1 LIMIT 2")
            pipeline.sync()
            assert len(first.fetchall()) == 2
        with refused("22012"), nurse.pipeline():
            nurse.execute("SELECT 1 / (patient_id - patient_id) FROM patient")
            nurse.execute("SELECT count(*) FROM patient")
        with nurse.pipeline():
            last = nurse.execute("SELECT count(*) FROM encounter")
        assert last.fetchone()[0] > 0
        nurse.execute("SELECT 'the end'")
    gate.wait_for(lambda e: isinstance(e, Completed) and e.sqlstate == "25P02", since)
    ends = [e.sqlstate for _, e in gate.events(since) if isinstance(e, Completed)]
    assert (ends.count("25P02"), ends.count("22012")) == (1, 1)


def test_a_result_comes_row_by_row(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        cursor = nurse.cursor(row_factory=scalar_row)
        streamed = list(cursor.stream("SELECT patient_id FROM encounter ORDER BY encounter_id"))
        assert (
            streamed
            == cursor.execute("SELECT patient_id FROM encounter ORDER BY encounter_id").fetchall()
        )


def test_deallocate_and_discard_leave_the_session_usable(gate: Any) -> None:
    with gate.connect("nadams", prepare_threshold=0) as nurse:
        query = "SELECT DISTINCT last_name FROM patient WHERE patient_id < %s"
        for tidy in ("DEALLOCATE ALL", "DISCARD ALL", "CLOSE ALL"):
            expected = nurse.execute(query, (100,)).fetchall()
            nurse.execute(tidy, prepare=False)
            nurse._prepared.clear()
            assert nurse.execute(query, (100,)).fetchall() == expected
        with refused("26000", "no such prepared statement"):
            nurse.execute("DEALLOCATE nobody", prepare=False)


# Refusals and errors.


def test_a_refusal_names_what_was_refused_and_the_session_lives_on(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams") as nurse:
        with refused("42501", "copy is not allowed"):
            nurse.execute("COPY patient TO STDOUT")
        with refused("42501", "pg_sleep"):
            nurse.execute("SELECT pg_sleep(9)")
        with refused("42601", "syntax error"):
            nurse.execute("SELEC 1")
        with refused("42P01", "no_such_table"):
            nurse.execute("SELECT * FROM no_such_table")
        assert nurse.execute("SELECT 1").fetchone() == (1,)
    refusals = [e for _, e in gate.events(since) if isinstance(e, Decision) and not e.allowed]
    assert len(refusals) == 4
    assert all(e.reason and e.statement_length for e in refusals)


def test_a_transaction_is_aborted_by_a_refusal_as_by_any_error(gate: Any) -> None:
    with gate.connect("nadams", autocommit=False) as nurse:
        nurse.execute("SELECT 1")
        with refused("42501"):
            nurse.execute("DROP TABLE patient")
        with refused("25P02"):
            nurse.execute("SELECT 1")
        nurse.rollback()
        assert nurse.execute("SELECT 1").fetchone() == (1,)


def test_a_savepoint_survives_a_refusal(gate: Any) -> None:
    with gate.connect("nadams") as nurse, nurse.transaction():
        with refused("42501"), nurse.transaction():
            nurse.execute("TRUNCATE patient")
        assert nurse.execute("SELECT 1").fetchone() == (1,)


LEAKS = (
    "SELECT CAST(last_name AS integer) FROM patient",
    "SELECT to_date(last_name, 'YYYY') FROM patient",
    "SELECT 1 / (patient_id - patient_id) FROM patient",
    "INSERT INTO vital_sign (vital_id) VALUES (1)",
)


@pytest.mark.parametrize("query", LEAKS)
def test_an_error_has_a_code_and_quotes_no_value(gate: Any, query: str) -> None:
    with gate.admin() as admin:
        names = [name for (name,) in admin.execute("SELECT DISTINCT last_name FROM patient")]
    with gate.connect("nadams") as nurse, pytest.raises(psycopg.Error) as caught:
        nurse.execute(query).fetchall()
    diag = caught.value.diag
    assert caught.value.sqlstate
    assert (diag.message_detail, diag.message_hint, diag.context, diag.table_name) == (None,) * 4
    assert not any(name in str(caught.value) for name in names)


def test_one_statement_looks_for_a_thousand_patients_at_most(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        keys = ",".join(str(key) for key in range(1_001))
        with refused("42501", "at most 1000 patients"):
            nurse.execute(f"SELECT mrn FROM patient WHERE patient_id IN ({keys})")


# Writing.

VITALS = (
    "INSERT INTO vital_sign (vital_id, patient_id, encounter_id, department, recorded_by, taken_at,"
    " systolic) VALUES (%s, %s, %s, %s, %s, localtimestamp, 120)"
)


def test_a_nurse_records_a_vital_sign_of_her_patient(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams") as nurse, gate.admin() as admin:
        patient, visit = her_visit(admin, "cardiology")
        me = staff_id(admin, "nadams")
        try:
            done = nurse.execute(VITALS, (990_001, patient, visit, "cardiology", me))
            assert done.rowcount == 1
            kept = admin.execute("SELECT systolic FROM vital_sign WHERE vital_id = 990001")
            assert kept.fetchone() == (120,)
        finally:
            admin.execute("DELETE FROM vital_sign WHERE vital_id = 990001")
    events = [e for _, e in gate.events(since)]
    written = {t for e in events if isinstance(e, Release) for t in e.written}
    assert written == gate.tokens([patient])


def test_a_nurse_records_nothing_for_another_department(gate: Any) -> None:
    with gate.connect("nadams") as nurse, gate.admin() as admin:
        patient, visit = her_visit(admin, "oncology")
        with refused("42501", "policy does not allow you to write this row"):
            nurse.execute(VITALS, (990_002, patient, visit, "oncology", staff_id(admin, "nadams")))
        kept = admin.execute("SELECT count(*) FROM vital_sign WHERE vital_id = 990002")
        assert kept.fetchone() == (0,)


def test_a_receptionist_changes_an_appointment(gate: Any) -> None:
    with gate.connect("rpatel") as desk, gate.admin() as admin:
        found = admin.execute(
            "SELECT appointment_id, status FROM appointment a WHERE department = 'cardiology' AND"
            " NOT EXISTS (SELECT FROM patient_flag f WHERE f.patient_id = a.patient_id) LIMIT 1"
        ).fetchone()
        change = "UPDATE appointment SET status = %s WHERE appointment_id = %s"
        try:
            assert desk.execute(change, ("arrived", found[0])).rowcount == 1
        finally:
            admin.execute(change, (found[1], found[0]))
        elsewhere = admin.execute(
            "SELECT appointment_id FROM appointment WHERE department = 'oncology' LIMIT 1"
        ).fetchone()
        assert desk.execute(change, ("arrived", elsewhere[0])).rowcount == 0


def test_a_refused_write_names_the_column(gate: Any) -> None:
    with gate.connect("nadams") as nurse, refused("42501", "ssn"):
        nurse.execute("UPDATE patient SET ssn = '0' WHERE patient_id = 1")
    with gate.connect("rpatel") as desk, refused("42501", "vital_sign|systolic"):
        desk.execute("UPDATE vital_sign SET systolic = 1 WHERE vital_id = 1")


def test_many_rows_are_written_in_one_batch(gate: Any) -> None:
    with gate.connect("nadams") as nurse, gate.admin() as admin:
        patient, visit = her_visit(admin, "cardiology")
        me = staff_id(admin, "nadams")
        try:
            with nurse.cursor() as cursor:
                cursor.executemany(
                    VITALS, [(990_100 + n, patient, visit, "cardiology", me) for n in range(30)]
                )
                assert cursor.rowcount == 30
        finally:
            admin.execute("DELETE FROM vital_sign WHERE vital_id >= 990100")


# Purpose.


def test_the_purpose_is_the_roles_own_until_another_is_claimed(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        assert nurse.execute("SHOW chartgate.purpose").fetchone() == ("TREAT",)
        nurse.execute("SET chartgate.purpose = 'ETREAT'")
        assert nurse.execute("SHOW chartgate.purpose").fetchone() == ("ETREAT",)
        with refused("42501", "HMARKT"):
            nurse.execute("SET chartgate.purpose = 'HMARKT'")
        nurse.execute("RESET ALL")
        assert nurse.execute("SHOW chartgate.purpose").fetchone() == ("TREAT",)


def test_the_purpose_comes_with_the_start_up_options(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams", options="-c chartgate.purpose=ETREAT") as nurse:
        assert nurse.execute("SHOW chartgate.purpose").fetchone() == ("ETREAT",)
        nurse.execute("DISCARD ALL")
        assert nurse.execute("SHOW chartgate.purpose").fetchone() == ("ETREAT",)
    (started,) = [e for _, e in gate.events(since) if isinstance(e, SessionStarted)]
    assert started.purpose == "ETREAT"


def test_a_login_for_a_wrong_purpose_is_refused_and_recorded(gate: Any) -> None:
    since = gate.size
    with pytest.raises(psycopg.OperationalError, match="HMARKT"):
        gate.connect("nadams", options="-c chartgate.purpose=HMARKT")
    (event,) = [e for _, e in gate.events(since) if isinstance(e, LoginRefused)]
    assert "HMARKT" in event.reason


# Logins.


def test_a_wrong_password_and_an_unknown_name_are_recorded_and_look_alike(gate: Any) -> None:
    since = gate.size
    said = []
    for name in ("nadams", "nobody"):
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(gate.dsn("nadams", user=name, password="wrong"))
        said.append(str(caught.value).replace(name, "…"))
    assert said[0] == said[1]
    events = [e for _, e in gate.events(since) if isinstance(e, LoginRefused)]
    assert len(events) == 2
    assert events[1].login == "unknown" != events[0].login


def test_another_database_and_an_unlisted_setting_are_refused(gate: Any) -> None:
    with pytest.raises(psycopg.OperationalError, match="no such database"):
        psycopg.connect(gate.dsn("nadams", dbname="postgres"))
    with pytest.raises(psycopg.OperationalError, match="session_replication_role"):
        gate.connect("nadams", options="-c session_replication_role=replica")


# What ends.


def test_an_assignment_that_ends_takes_effect_on_the_next_statement(gate: Any) -> None:
    query = "SELECT count(*) FROM vital_sign WHERE department = 'oncology'"
    with gate.control() as control, gate.connect("nadams") as nurse:
        before = nurse.execute(query).fetchone()[0]
        extra = control.assign(
            "nadams", "nurse", "oncology", valid_from=datetime.now(UTC) - timedelta(seconds=1)
        )
        try:
            more = eventually(lambda: nurse.execute(query).fetchone()[0], lambda n: n > before)
        finally:
            control.end_assignment(extra, at=datetime.now(UTC))
        assert more > before
        after = eventually(lambda: nurse.execute(query).fetchone()[0], lambda n: n == before)
        assert after == before


def test_a_prepared_statement_is_decided_again_when_access_has_changed(gate: Any) -> None:
    query = "SELECT count(*) FROM vital_sign WHERE department = %s"
    with gate.control() as control, gate.connect("nadams", prepare_threshold=0) as nurse:
        before = nurse.execute(query, ("oncology",)).fetchone()[0]
        extra = control.assign(
            "nadams", "nurse", "oncology", valid_from=datetime.now(UTC) - timedelta(seconds=1)
        )
        count = lambda: nurse.execute(query, ("oncology",)).fetchone()[0]  # noqa: E731
        try:
            assert eventually(count, lambda n: n > before) > before
        finally:
            control.end_assignment(extra, at=datetime.now(UTC))
        assert eventually(count, lambda n: n == before) == before


def test_a_person_who_is_deactivated_is_cut_off(gate: Any) -> None:
    since = gate.size
    with gate.control() as control:
        nurse = gate.connect("fworker")
        nurse.execute("SELECT 1")
        control.deactivate("fworker")
        try:
            with pytest.raises(psycopg.OperationalError, match="your access has ended"):
                eventually(lambda: nurse.execute("SELECT 1"), lambda _: False)
            assert nurse.closed
            with pytest.raises(psycopg.OperationalError):
                gate.connect("fworker")
        finally:
            control.upsert_person("fworker", "Finn Worker", active=True)
            # Who is deactivated has no credential any more: others of these tests log in as her.
            again = mint_verifier(gate.password("fworker"), salt=secrets.token_bytes(16))
            control.set_credential("fworker", again, datetime.now(UTC) + timedelta(hours=24))
    gate.wait_for(lambda e: isinstance(e, SessionEnded) and e.reason == "access ended", since)


def test_a_query_is_cancelled(gate: Any) -> None:
    slow = "SELECT count(*) FROM " + ", ".join(f"vital_sign v{n}" for n in range(5))
    with gate.connect("nadams") as nurse:
        timer = threading.Timer(0.5, nurse.cancel_safe)
        timer.start()
        with refused("57014"):
            nurse.execute(slow)
        timer.join()
        assert nurse.execute("SELECT 1").fetchone() == (1,)


def test_a_client_that_leaves_in_the_middle_stops_its_query(gate: Any) -> None:
    since = gate.size
    slow = b"SELECT count(*) FROM " + b", ".join(b"vital_sign v%d" % n for n in range(5))
    nurse = gate.connect("nadams")
    nurse.pgconn.send_query(slow)
    with gate.admin() as admin:
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename ="
            " 'hospital_app'"
        )
        count = lambda: admin.execute(running).fetchone()[0]  # noqa: E731
        assert eventually(count, lambda n: n == 1) == 1
        nurse.close()
        assert eventually(count, lambda n: n == 0) == 0
    gate.wait_for(lambda e: isinstance(e, SessionEnded) and e.reason == "connection lost", since)


def eventually(ask: Any, good: Any) -> Any:
    """Ask again until the answer is good, for five seconds: a change comes by notification."""
    pause = threading.Event()
    for _ in range(100):
        if good(found := ask()):
            return found
        pause.wait(0.05)
    return ask()
