"""What ends a session that asks nothing, or does not read; and what a slow reader costs."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chartgate.model.event import Release, SessionEnded

pytestmark = pytest.mark.system
IDLE = 1.5
HUGE = b"SELECT a.patient_id, repeat('x', 1000) FROM encounter a, generate_series(1, 2000)"


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, load_hospital: Any, open_gate: Any
) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("impatient")
    load_hospital(root, patients=100)
    with open_gate(root, idle_seconds=IDLE) as gate:
        yield gate


def resident() -> int:
    """Bytes of memory of this process, which the gateway is a part of."""
    text = Path("/proc/self/statm").read_text("ascii")
    return int(text.split()[1]) * 4096


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def test_an_idle_session_ends_and_the_client_is_told(impatient: Any) -> None:
    since = impatient.size
    with impatient.connect("nadams") as nurse:
        nurse.execute("SELECT 1")
        impatient.wait_for(lambda e: isinstance(e, SessionEnded) and e.reason == "idle", since)
        with pytest.raises(psycopg.OperationalError, match="idle"):
            nurse.execute("SELECT 1")


def test_a_running_query_is_not_idle(impatient: Any) -> None:
    slow = "SELECT count(*) FROM " + ", ".join(f"vital_sign v{n}" for n in range(5))
    with impatient.connect("nadams") as nurse:
        nurse.execute(f"SET statement_timeout = {int(IDLE * 2_000)}")
        started = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            nurse.execute(slow)
        assert time.monotonic() - started > IDLE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_reader_that_stops_costs_little_and_is_cut_off(impatient: Any) -> None:
    since = impatient.size
    nurse = impatient.connect("nadams")
    before = resident()
    nurse.pgconn.send_query(HUGE)
    wait(1)
    assert resident() - before < 48 << 20
    impatient.wait_for(lambda e: isinstance(e, SessionEnded) and e.reason == "idle", since)
    with impatient.admin() as admin:
        for _ in range(100):
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                " AND usename = 'hospital_app'"
            ).fetchone()
            if row == (0,):
                break
            wait(0.05)
        assert row == (0,)
    nurse.close()


def test_a_large_answer_is_whole_and_its_patients_come_before_it(impatient: Any) -> None:
    since = impatient.size
    query = "SELECT a.patient_id, g FROM encounter a, generate_series(1, 500) g"
    with impatient.connect("nadams") as nurse:
        expected = nurse.execute("SELECT count(*) FROM encounter").fetchone()[0]
        rows = nurse.execute(query).fetchall()
    assert len(rows) == 500 * expected
    released = {t for _, e in impatient.events(since) if isinstance(e, Release) for t in e.seen}
    assert impatient.tokens({key for key, _ in rows if key <= 100}) <= released
