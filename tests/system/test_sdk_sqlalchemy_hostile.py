"""What must not work at an embedded gate: to be nobody, to be somebody else, to go around it."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import load_or_create_signer
from chartgate.app.gate_session import AccessEnded
from chartgate.app.rolebook import PurposeRefused
from chartgate.errors import Misconfigured, Refused
from chartgate.model.event import (
    Completed,
    Decision,
    LoginRefused,
    Release,
    SessionEnded,
    SessionStarted,
)
from chartgate.pgwire.scram import mint_verifier
from chartgate.sdk.asked import Asked, asking
from chartgate.sdk.sqlalchemy import (
    OtherPerson,
    ProtectedSession,
    Protection,
    acting_as,
    at_state,
    bind,
    protect,
)
from chartgate.sdk.sqlalchemy_door import Behind

pytestmark = pytest.mark.system


class Base(DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patient"
    patient_id: Mapped[int] = mapped_column(primary_key=True)
    mrn: Mapped[str]
    last_name: Mapped[str]
    ssn: Mapped[str | None]


class Allergy(Base):
    __tablename__ = "allergy"
    allergy_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    patient_id: Mapped[int]
    substance: Mapped[str]
    reaction: Mapped[str | None]
    severity: Mapped[str]
    noted_on: Mapped[Any] = mapped_column(sa.Date)


@pytest.fixture(scope="module")
def url(gate: Any) -> sa.URL:
    parts = psycopg.conninfo.conninfo_to_dict(gate.ready.instance.legacy)
    return sa.URL.create("postgresql+psycopg", query={k: str(v) for k, v in parts.items()})


@pytest.fixture(scope="module")
def protection(gate: Any, url: sa.URL) -> Iterator[Protection]:
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    made = protect(engine, at_state(gate.state.root, name="hostile"), application="clinic")
    yield made
    made.close()


@pytest.fixture
def engine(protection: Protection) -> sa.Engine:
    """Its pool has one connection, which everybody gets in turn."""
    return protection.engine


KEYS = sa.select(Patient.patient_id).where(Patient.patient_id < 10_000).order_by(Patient.patient_id)


def keys(gate: Any, name: str) -> list[int]:
    """Of the patients whom a person sees through the gateway, without those under a pseudonym."""
    text = "SELECT patient_id FROM patient WHERE patient_id < 10000 ORDER BY 1"
    with gate.connect(name) as person:
        return [k for (k,) in person.execute(text)]


def of(events: list[tuple[int, Any]], kind: type[Any]) -> list[Any]:
    return [event for _, event in events if isinstance(event, kind)]


# Nobody.


def test_without_a_person_nothing_is_answered(engine: sa.Engine, gate: Any) -> None:
    since = gate.size
    for text in ("SELECT 1", "SELECT mrn FROM patient", "SHOW timezone", "SELECT * FROM pg_class"):
        with Session(engine) as session, pytest.raises(DBAPIError, match="no person is bound"):
            session.execute(sa.text(text))
    with engine.connect() as connection, pytest.raises(DBAPIError, match="no person is bound"):
        connection.exec_driver_sql("SELECT 1")
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        with pytest.raises(psycopg.Error, match="no person is bound"):
            cursor.execute("SELECT 1")
    raw = engine.raw_connection()
    with pytest.raises(psycopg.Error, match="no person is bound"):
        raw.cursor().execute("SELECT mrn FROM patient")
    raw.close()
    refused = [d for d in of(gate.events(since), Decision) if not d.allowed]
    assert len(refused) == 7
    assert {d.person for d in refused} == {"demo/app-hostile"}


def test_a_connection_is_nobodys_once_it_is_given_back(engine: sa.Engine) -> None:
    with acting_as("nadams"), Session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Patient))
    with Session(engine) as session, pytest.raises(DBAPIError, match="no person is bound"):
        session.scalars(sa.select(Patient)).all()


def test_somebody_who_may_not_work_gets_no_connection(engine: sa.Engine, gate: Any) -> None:
    since = gate.size
    for name in ("nobody", "", "nadams' OR true --"):
        with acting_as(name), pytest.raises(AccessEnded), Session(engine) as session:
            session.scalars(sa.select(Patient)).all()
    with acting_as("nadams", "HPAYMT"), pytest.raises(PurposeRefused), Session(engine) as session:
        session.scalars(sa.select(Patient)).all()
    refused = of(gate.events(since), LoginRefused)
    assert [r.login == "unknown" for r in refused] == [True, True, True, False]
    assert {r.channel for r in refused} == {"embedded"}


# Somebody else.


def test_one_connection_serves_people_in_turn_and_each_sees_her_own(
    engine: sa.Engine, gate: Any
) -> None:
    """Eight rounds: the driver has prepared the statement on the server by then."""
    mine = {name: keys(gate, name) for name in ("nadams", "bclinician", "rpatel")}
    assert mine["nadams"] != mine["bclinician"]
    for _ in range(8):
        for name, wanted in mine.items():
            with acting_as(name), Session(engine) as session:
                assert session.scalars(KEYS).all() == wanted


def test_a_session_is_one_persons(engine: sa.Engine, gate: Any) -> None:
    first = keys(gate, "nadams")[0]
    with ProtectedSession(engine, person="nadams") as session:
        held = session.get(Patient, first)
        assert held is not None
        with acting_as("bclinician"):
            with pytest.raises(OtherPerson):
                session.get(Patient, first)  # from the identity map, without a statement
            with pytest.raises(OtherPerson):
                session.scalars(sa.select(Patient)).all()
            with pytest.raises(OtherPerson):
                session.refresh(held)
        with pytest.raises(OtherPerson), acting_as("bclinician", session=session):
            pass
        with pytest.raises(OtherPerson):
            bind(session, "nadams", "HOPERAT")
        session.commit()
        with acting_as("bclinician"), pytest.raises(OtherPerson):
            held.last_name  # noqa: B018  (expired: it would be read again)
        with pytest.raises(OtherPerson):  # the connection that it got is of no use to anybody
            session.execute(sa.text("SELECT 1"))
        with acting_as("bclinician"), pytest.raises(OtherPerson):
            session.execute(sa.text("SELECT 1"))
        with pytest.raises(psycopg.Error, match="no person is bound"):
            session.connection().connection.cursor().execute("SELECT 1")
        session.rollback()
        assert held.last_name


def test_what_one_person_loaded_is_handed_to_nobody_else(engine: sa.Engine) -> None:
    with acting_as("mwelby"):
        session = ProtectedSession(engine)
        loaded = session.scalars(sa.select(Patient).limit(1)).one()
    ways: list[Callable[[], object]] = [
        lambda: session.get(Patient, loaded.patient_id),
        lambda: session.get_one(Patient, loaded.patient_id),
        lambda: session.merge(loaded),
        lambda: list(session),
        lambda: session.refresh(loaded),
    ]
    with acting_as("nadams"):
        for way in ways:
            with pytest.raises(OtherPerson):
                way()
    session.close()


def test_a_session_that_holds_nothing_may_change_hands(engine: sa.Engine, gate: Any) -> None:
    session = Session(engine)
    for name in ("nadams", "rpatel"):
        with acting_as(name):
            assert session.scalars(KEYS).all() == keys(gate, name)
        session.close()
    with acting_as("nadams"):
        held = session.scalars(sa.select(Patient)).first()
        session.commit()
    with acting_as("rpatel"), pytest.raises(OtherPerson):
        session.scalars(KEYS).all()
    assert held in session
    session.close()


def test_a_used_session_cannot_be_given_to_a_person(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.begin()
        with pytest.raises(OtherPerson):
            bind(session, "nadams")


def test_the_purpose_is_not_to_be_changed_by_sql(engine: sa.Engine) -> None:
    for text in ("SET chartgate.purpose = 'HPAYMT'", "RESET chartgate.purpose"):
        with acting_as("mwelby"), Session(engine) as session:
            with pytest.raises(DBAPIError, match="application's to choose"):
                session.execute(sa.text(text))
            session.rollback()
            assert session.scalar(sa.text("SHOW chartgate.purpose")) == "TREAT"
    with acting_as("mwelby", "HPAYMT"), Session(engine) as session:
        session.execute(sa.text("RESET ALL"))
        assert session.scalar(sa.text("SHOW chartgate.purpose")) == "HPAYMT"


def test_the_person_of_the_request_is_found(engine: sa.Engine, gate: Any) -> None:
    request = Asked(subject="nadams")
    with asking(request), Session(engine) as session:
        assert session.scalars(KEYS).all() == keys(gate, "nadams")
    assert request.has_asked
    with asking(Asked()), Session(engine) as session, pytest.raises(DBAPIError):
        session.scalars(sa.select(Patient)).all()


# Around it.


@pytest.mark.parametrize(
    "text",
    [
        "COPY patient TO STDOUT",
        "DECLARE c CURSOR FOR SELECT * FROM patient",
        "SELECT * FROM dblink('dbname=hospital', 'SELECT 1') AS t(a int)",
        "SELECT query FROM pg_stat_activity",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "DO $$ BEGIN END $$",
        "CREATE TEMP TABLE t AS SELECT * FROM patient",
        "SELECT mrn FROM patient; DROP TABLE patient",
        "PREPARE p AS SELECT * FROM patient",
        "SELECT 'SELECT * FROM patient'::xml",
        "LISTEN chartgate",
    ],
)
def test_what_the_gateway_refuses_is_refused(engine: sa.Engine, text: str) -> None:
    with acting_as("mwelby"), engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            connection.exec_driver_sql(text)
        assert getattr(caught.value.orig, "sqlstate", "") in {"42501", "42601", "42P01", "42704"}


def test_the_driver_itself_has_no_other_way(engine: sa.Engine, gate: Any) -> None:
    """libpq's own interface, COPY and pipelines of the driver end at the gate too."""
    wanted = len(keys(gate, "nadams"))
    with acting_as("nadams"), engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        result = driver.pgconn.exec_(b"SELECT patient_id, mrn FROM patient")
        assert result.ntuples >= wanted
        with pytest.raises(psycopg.Error), driver.cursor().copy("COPY patient TO STDOUT") as copy:
            copy.read()
        connection.rollback()
        driver.rollback()
        with driver.pipeline():
            rows = driver.execute("SELECT mrn FROM patient").fetchall()
        assert len(rows) >= wanted
        with driver.cursor(name="named") as cursor, pytest.raises(psycopg.Error):
            cursor.execute("SELECT mrn FROM patient")
        assert driver.info.host.startswith("/")
        assert driver.info.user.startswith("cg_")


def test_only_this_process_may_sit_down(protection: Protection) -> None:
    seat = protection.gate.seat()
    program = (
        "import psycopg, sys\n"
        "try: psycopg.connect(sys.argv[1])\n"
        "except psycopg.Error as exc: print(exc)\n"
    )
    where = (
        f"host={protection.gate.host} port=5432 dbname=hospital sslmode=disable gssencmode=disable"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"{where} user={seat.ticket}"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert "only the process that opened this gate" in done.stdout
    with pytest.raises(psycopg.OperationalError, match="no such seat"):
        psycopg.connect(f"{where} user=cg_0")
    known = psycopg.connect(f"{where} user={seat.ticket}")
    with pytest.raises(psycopg.Error, match="no person is bound"):
        known.execute("SELECT mrn FROM patient")
    known.close()
    with pytest.raises(psycopg.OperationalError, match="no such seat"):
        psycopg.connect(f"{where} user={seat.ticket}")  # a ticket is used once


def test_an_engine_that_makes_its_own_connections_is_useless(gate: Any, url: sa.URL) -> None:
    engine = sa.create_engine(url, creator=lambda: psycopg.connect(gate.ready.instance.legacy))
    made = protect(engine, at_state(gate.state.root, name="own"))
    with acting_as("mwelby"), pytest.raises(Misconfigured, match="creator"), Session(engine) as s:
        s.execute(sa.text("SELECT 1"))
    made.close()


def test_what_cannot_be_protected_is_said(url: sa.URL, gate: Any) -> None:
    opener = at_state(gate.state.root)
    with pytest.raises(Misconfigured, match="PostgreSQL"):
        protect(sa.create_engine("sqlite://"), opener)
    engine = sa.create_engine(url)
    with engine.connect(), pytest.raises(Misconfigured, match="in use"):
        protect(engine, opener)
    engine.dispose()
    closed = protect(sa.create_engine(url), opener)
    with pytest.raises(Misconfigured, match="already"):
        protect(closed.engine, opener)
    closed.close()
    with acting_as("mwelby"), pytest.raises(Misconfigured, match="closed"):
        closed.engine.connect()


def test_work_past_the_gate_is_recorded(protection: Protection, gate: Any) -> None:
    since = gate.size
    with protection.unprotected(person="ddba", reason="OPS-2041: index") as raw, raw.connect() as c:
        assert c.scalar(sa.text("SELECT count(*) FROM patient")) == 300
    started, ended = of(gate.events(since), SessionStarted), of(gate.events(since), SessionEnded)
    assert [(s.channel, s.application) for s in started] == [("unprotected", "OPS-2041: index")]
    assert started[0].session == ended[0].session
    with pytest.raises(Refused), protection.unprotected(person="ddba", reason=" "):
        pass
    with pytest.raises(AccessEnded), protection.unprotected(person="nobody", reason="why"):
        pass


def test_a_pool_may_ask_whether_its_connections_are_alive(gate: Any, url: sa.URL) -> None:
    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=1)
    made = protect(engine, at_state(gate.state.root, name="ping"))
    for _ in range(3):
        with acting_as("nadams"), Session(engine) as session:
            assert session.scalars(KEYS).first()
        with Session(engine) as session, pytest.raises(DBAPIError, match="no person is bound"):
            session.execute(sa.text("SELECT 1"))
    made.close()


FORKING = """
import os, sys
import sqlalchemy as sa
from chartgate.sdk.sqlalchemy import acting_as, at_state, protect

engine = sa.create_engine("postgresql+psycopg://", pool_size=1)
protect(engine, at_state(sys.argv[1], name="forks"))

def ask(name):
    with acting_as(name), engine.connect() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM patient WHERE patient_id < 10000"))

print(ask("nadams"), flush=True)
child = os.fork()
print(ask("rpatel" if child == 0 else "nadams"), flush=True)
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
print(ask("nadams"), flush=True)
"""


def test_a_forked_worker_has_a_gate_of_its_own(gate: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(gate.state.root)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    hers, his = len(keys(gate, "nadams")), len(keys(gate, "rpatel"))
    assert sorted(map(int, done.stdout.split())) == sorted([hers, hers, hers, his])


def test_the_example_gives_a_person_her_report(gate: Any) -> None:
    example = Path(__file__).resolve().parents[2] / "examples/sqlalchemy_report/report.py"
    since = gate.size
    done = subprocess.run(
        [sys.executable, str(example), "nadams"],
        env={**os.environ, "CHARTGATE_STATE": str(gate.state.root)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cardiology" in done.stdout
    events = gate.events(since)
    assert {d.node for d in of(events, Decision)} == {"demo/app-report"}
    assert of(events, Release)


async def test_what_the_node_puts_in_force_is_in_force_here(gate: Any) -> None:
    files = list(gate.state.in_force_dir.glob("*.json"))
    assert files
    async with at_state(gate.state.root, name="follows")() as behind:
        before = behind.in_force.point
        for file in files:
            os.utime(file)
        for _ in range(1_000):
            if behind.in_force.point is not before:
                break
            await asyncio.sleep(0.01)
        assert behind.in_force.point is not before
        assert behind.in_force.point.policies.hash == before.policies.hash
        assert behind.people.is_fresh(time.monotonic())
        assert not behind.people.is_fresh(time.monotonic() + 16)


# Decide, record, act.


def test_every_patient_is_in_the_log_before_a_row_is_handed_out(
    engine: sa.Engine, gate: Any
) -> None:
    wanted = keys(gate, "nadams")
    since = gate.size
    with acting_as("nadams"), Session(engine) as session:
        found = session.scalars(sa.select(Patient)).all()
        events = gate.events(since)
    assert {p.patient_id for p in found} >= set(wanted)
    reads = [(i, d) for i, d in events if isinstance(d, Decision) and d.action == "select"]
    (index, decision), releases = reads[0], of(events, Release)
    assert decision.allowed
    assert decision.node == "demo/app-hostile"
    assert decision.tables[0].columns["ssn"] != "full"
    assert decision.tables[0].row_filter
    assert {t for r in releases for t in r.seen} >= gate.tokens(wanted)
    assert len({t for r in releases for t in r.seen}) == len(found)
    assert {r.decision for r in releases} == {index}


def test_an_aggregate_names_its_patients_too(engine: sa.Engine, gate: Any) -> None:
    since = gate.size
    with acting_as("nadams"), Session(engine) as session:
        session.execute(sa.select(Patient.last_name, sa.func.count()).group_by(Patient.last_name))
    releases = of(gate.events(since), Release)
    assert all(r.companion for r in releases)
    assert {t for r in releases for t in r.seen} >= gate.tokens(keys(gate, "nadams"))


def test_a_person_has_one_session_in_the_log_for_all_her_connections(
    protection: Protection, gate: Any
) -> None:
    since = gate.size
    for _ in range(3):
        with acting_as("qanalyst"), Session(protection.engine) as session:
            session.execute(sa.text("SELECT 1"))
    started = of(gate.events(since), SessionStarted)
    assert [(s.channel, s.authentication, s.application) for s in started] == [
        ("embedded", "application", "clinic")
    ]
    ends = {(e.session, e.person) for e in of(gate.events(since), Completed)}
    assert {session for session, person in ends if person == started[0].person} == {
        started[0].session
    }


class _Poisoned(LogWriter):
    """A log whose disk fails when the test says so."""

    files: LogFiles

    def fail(self) -> None:
        self._files.poison("the disk is gone")


def test_nothing_is_handed_out_that_cannot_be_recorded(
    gate: Any, url: sa.URL, tmp_path: Path
) -> None:
    logs: list[_Poisoned] = []
    real = at_state(gate.state.root, name="poisoned")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Behind]:
        folder = tmp_path / "log"
        folder.mkdir(mode=0o700)
        log = _Poisoned(LogFiles.open(folder, load_or_create_signer(tmp_path / "key", "t/log")))
        logs.append(log)
        async with real() as behind:
            values = {n: getattr(behind, n) for n in Behind.__dataclass_fields__}
            yield Behind(**{**values, "log": log})
        with contextlib.suppress(Exception):
            await log.close()

    made = protect(sa.create_engine(url), opened)
    with acting_as("nadams"), Session(made.engine) as session:
        assert session.scalars(sa.select(Patient)).all()
        logs[0].fail()
        with pytest.raises(OperationalError, match="cannot be written"):
            session.scalars(sa.select(Patient.mrn)).all()
    with acting_as("rpatel"), pytest.raises(DBAPIError), Session(made.engine) as session:
        session.scalars(sa.select(Patient.mrn)).all()
    made.close()


def until_refused(session: Session) -> None:
    for _ in range(500):
        session.execute(sa.text("SELECT count(*) FROM staff"))
        threading.Event().wait(0.01)


def test_access_that_ends_ends_on_the_next_statement(engine: sa.Engine, gate: Any) -> None:
    with gate.control() as control, acting_as("fworker"), Session(engine) as session:
        session.execute(sa.text("SELECT count(*) FROM staff"))
        since = gate.size
        control.deactivate("fworker")
        try:
            with pytest.raises(DBAPIError, match="your access has ended"):
                until_refused(session)
            session.close()
            with pytest.raises(AccessEnded):
                session.execute(sa.text("SELECT count(*) FROM staff"))
        finally:
            control.upsert_person("fworker", "Finn Worker", active=True)
            again = mint_verifier(gate.password("fworker"), salt=secrets.token_bytes(16))
            control.set_credential("fworker", again, datetime.now(UTC) + timedelta(hours=24))
    assert of(gate.events(since), LoginRefused)
    with acting_as("nadams"), Session(engine) as session:
        assert session.scalars(KEYS).all()  # nobody else is touched


# Writing.


def test_what_is_not_shown_in_full_is_not_written_back(engine: sa.Engine, gate: Any) -> None:
    with gate.admin() as admin:
        before = admin.execute("SELECT patient_id, ssn, mrn FROM patient ORDER BY 1").fetchall()
    with acting_as("nadams"), Session(engine) as session:
        hers = session.scalars(sa.select(Patient).order_by(Patient.patient_id)).first()
        assert hers is not None
        assert hers.ssn is None or hers.ssn.startswith("***")
        hers.ssn = "000-00-0000"
        with pytest.raises(DBAPIError) as caught:
            session.flush()
        assert getattr(caught.value.orig, "sqlstate", "") == "42501"
        session.rollback()
        hers.mrn = "M"
        with contextlib.suppress(DBAPIError, sa.orm.exc.StaleDataError):
            session.flush()
        session.rollback()
    with gate.admin() as admin:
        after = admin.execute("SELECT patient_id, ssn, mrn FROM patient ORDER BY 1").fetchall()
    assert before == after


def allergy(key: int, patient: int) -> dict[str, Any]:
    values = {"substance": "latex", "reaction": None, "severity": "mild"}
    return {"allergy_id": key, "patient_id": patient, **values, "noted_on": date(2026, 1, 1)}


def test_rows_are_written_where_policy_says_and_nowhere_else(engine: sa.Engine, gate: Any) -> None:
    with gate.admin() as admin:
        everybody = [k for (k,) in admin.execute("SELECT patient_id FROM patient")]
    hers = keys(gate, "mwelby")
    hidden = next(k for k in everybody if k not in hers)
    since = gate.size
    with acting_as("mwelby"), Session(engine) as session:
        added = [Allergy(**allergy(900_000 + n, hers[n])) for n in range(3)]
        session.add_all(added)
        session.flush()
        added[0].severity = "severe"
        session.flush()
        session.expire_all()
        assert [a.severity for a in added] == ["severe", "mild", "mild"]
        with pytest.raises(DBAPIError, match="delete"), session.begin_nested():
            session.execute(sa.delete(Allergy).where(Allergy.allergy_id == 900_001))
        with pytest.raises(DBAPIError) as caught, session.begin_nested():
            session.execute(
                sa.insert(Allergy), [allergy(900_010, hers[0]), allergy(900_011, hidden)]
            )
        assert getattr(caught.value.orig, "sqlstate", "") == "42501"
        changed = session.execute(
            sa.update(Allergy).values(severity="x").where(Allergy.patient_id == hidden)
        )
        assert changed.rowcount == 0
        session.rollback()
    written = {t for r in of(gate.events(since), Release) for t in r.written}
    assert written == gate.tokens(hers[:3])
    with gate.admin() as admin:
        assert admin.execute(
            "SELECT count(*) FROM allergy WHERE allergy_id >= 900000"
        ).fetchone() == (0,)


# On an event loop.


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_async_sessions_are_one_persons_each(driver: str, gate: Any, url: sa.URL) -> None:
    engine = create_async_engine(url.set(drivername=f"postgresql+{driver}", query={}), pool_size=2)
    made = await asyncio.to_thread(protect, engine, at_state(gate.state.root, name=driver))
    wanted = {name: keys(gate, name) for name in ("nadams", "rpatel", "bclinician")}

    async def asked(name: str) -> list[int]:
        with acting_as(name):
            async with AsyncSession(engine) as session:
                await asyncio.sleep(0)
                found = (await session.scalars(KEYS)).all()
                first = await session.get(Patient, found[0])
                assert first is not None
                await session.refresh(first)
                return list(found)

    try:
        names = list(wanted) * 4
        for name, found in zip(names, await asyncio.gather(*map(asked, names)), strict=True):
            assert found == wanted[name]
        async with AsyncSession(engine) as session:
            bind(session, "nadams")
            if driver == "asyncpg":  # by a portal; psycopg declares a cursor, which is refused
                rows = await session.stream(KEYS)
                assert [k async for k in rows.scalars()] == wanted["nadams"]
            assert (await session.scalars(KEYS)).all() == wanted["nadams"]
            with acting_as("rpatel"), pytest.raises(OtherPerson):
                await session.execute(KEYS)
        async with AsyncSession(engine) as session:
            with pytest.raises(DBAPIError, match="no person is bound"):
                await session.execute(KEYS)
    finally:
        await engine.dispose()
        await asyncio.to_thread(made.close)
