"""An application's ORM through the embedded gate answers what the gateway answers, for everybody.

One function asks by ORM; it is run on two engines: a protected one, acting for a person, and a
plain one that logs in to the gateway as that person. Hospital, people and policies are the demo's.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    relationship,
    selectinload,
    subqueryload,
)

from chartgate.demo.generator_schema import BY_NAME, TABLES
from chartgate.sdk.sqlalchemy import ProtectedSession, Protection, acting_as, at_state, protect

pytestmark = [pytest.mark.system, pytest.mark.slow]

PEOPLE = (
    "mwelby", "nadams", "rpatel", "bcoder", "pofficer", "bclinician", "researcher", "annself",
)  # fmt: skip
ASKING = ("nadams", "rpatel", "researcher")

_TYPES: dict[str, Any] = {
    "bigint": sa.BigInteger,
    "integer": sa.Integer,
    "text": sa.Text,
    "date": sa.Date,
    "timestamp": sa.DateTime,
    "boolean": sa.Boolean,
}


class Base(DeclarativeBase):
    """The hospital's tables, as an application maps them."""


def columns_of(name: str) -> list[sa.Column[Any]]:
    table = BY_NAME[name]
    return [
        sa.Column(
            c.name,
            _TYPES.get(c.type.removesuffix(" NOT NULL"), sa.Numeric),
            *(
                [sa.ForeignKey(f"{c.references}.{BY_NAME[c.references].key}")]
                if c.references
                else []
            ),
            primary_key=c.name == table.key,
        )
        for c in table.columns
    ]


for _table in TABLES:
    sa.Table(_table.name, Base.metadata, *columns_of(_table.name))
TABLE = Base.metadata.tables


class Patient(Base):
    __table__ = TABLE["patient"]
    conditions: Mapped[list["Condition"]] = relationship(
        back_populates="patient", order_by="Condition.condition_id"
    )
    encounters: Mapped[list["Encounter"]] = relationship(order_by="Encounter.encounter_id")


class Encounter(Base):
    __table__ = TABLE["encounter"]


class Condition(Base):
    __table__ = TABLE["condition"]
    patient: Mapped[Patient] = relationship(back_populates="conditions")


@pytest.fixture(scope="module", autouse=True)
def _one_secret() -> Iterator[None]:
    """Pseudonyms are keyed by a secret of each session; here by one, so that they can be compared."""
    real = secrets.token_hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda n=32: "5e" * n if n == 16 else real(n))
        yield


@pytest.fixture(scope="module")
def url(gate: Any) -> sa.URL:
    """Of the hospital's own database: what an application had before it was protected."""
    parts = psycopg.conninfo.conninfo_to_dict(gate.ready.instance.legacy)
    return sa.URL.create("postgresql+psycopg", query={k: str(v) for k, v in parts.items()})


@pytest.fixture(scope="module")
def protection(gate: Any, url: sa.URL) -> Iterator[Protection]:
    made = protect(sa.create_engine(url, pool_size=2), at_state(gate.state.root, name="tests"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(protection: Protection) -> sa.Engine:
    return protection.engine


@pytest.fixture(scope="module")
def through_gateway(gate: Any) -> Iterator[Callable[[str], sa.Engine]]:
    """A plain engine that logs in to the gateway as a person."""
    engines: dict[str, sa.Engine] = {}

    def made(name: str) -> sa.Engine:
        if name not in engines:
            engines[name] = sa.create_engine(
                "postgresql+psycopg://", creator=lambda: psycopg.connect(gate.dsn(name))
            )
        return engines[name]

    yield made
    for engine in engines.values():
        engine.dispose()


def counted(rows: Any) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row) for row in rows)


def told(ask: Callable[[Session], Any], session: Session) -> Any:
    """The answer, or the SQLSTATE of the error."""
    try:
        return counted(ask(session))
    except DBAPIError as exc:
        return getattr(exc.orig, "sqlstate", None)


@pytest.mark.parametrize("name", PEOPLE)
def test_every_table_shows_a_person_what_the_gateway_shows_her(
    name: str, engine: sa.Engine, through_gateway: Any
) -> None:
    shown, at = 0, PEOPLE.index(name)
    # One sees every table, seven every other one: each table is seen by four or five.
    tables = list(TABLE.values()) if at < 1 else list(TABLE.values())[at % 2 :: 2]
    with (
        acting_as(name),
        ProtectedSession(engine) as ours,
        Session(through_gateway(name)) as theirs,
    ):
        for table in tables:
            asked = sa.select(table).order_by(*table.primary_key).limit(60)
            mine = ours.execute(asked).all()
            assert mine == theirs.execute(asked).all(), table.name
            shown += len(mine)
    assert shown


# What an application writes by ORM. Each answers rows of plain values.

P, E, C = Patient, Encounter, Condition


def lazily(s: Session) -> Any:
    found = s.scalars(sa.select(P).order_by(P.patient_id).limit(5)).all()
    return [(p.mrn, p.last_name, c.code, c.description) for p in found for c in p.conditions]


def joined(s: Session) -> Any:
    asked = sa.select(P).options(joinedload(P.conditions)).where(P.sex == "F")
    return [
        (p.patient_id, p.birth_date, p.ssn, c.description, c.code)
        for p in s.scalars(asked).unique()
        for c in p.conditions
    ]


def select_in(s: Session) -> Any:
    asked = sa.select(P).options(selectinload(P.conditions), selectinload(P.encounters))
    asked = asked.where(P.last_name < "E")
    return [
        (p.patient_id, p.phone, len(p.encounters), *sorted(c.description for c in p.conditions))
        for p in s.scalars(asked)
    ]


def sub_queried(s: Session) -> Any:
    asked = sa.select(P).options(subqueryload(P.conditions)).where(P.last_name < "M")
    return [(p.mrn, c.onset_on) for p in s.scalars(asked) for c in p.conditions]


def backwards(s: Session) -> Any:
    asked = sa.select(C).join(C.patient).order_by(C.condition_id).limit(12)
    return [(c.condition_id, c.patient.last_name if c.patient else None) for c in s.scalars(asked)]


def grouped(s: Session) -> Any:
    return s.execute(
        sa.select(E.department, sa.func.count(), sa.func.max(E.started_at))
        .join(P, P.patient_id == E.patient_id)
        .group_by(E.department)
        .having(sa.func.count() > 1)
    )


def counting(s: Session) -> Any:
    return s.execute(sa.select(sa.func.count()).select_from(C).where(C.code.like("F%")))


def aliases(s: Session) -> Any:
    one, other = aliased(P), aliased(P)
    return s.execute(
        sa.select(one.patient_id, other.patient_id)
        .join(other, sa.and_(one.zip == other.zip, one.patient_id < other.patient_id))
        .limit(500)
        .order_by(one.patient_id, other.patient_id)
    )


def with_query(s: Session) -> Any:
    busy = sa.select(E.patient_id, sa.func.count().label("n")).group_by(E.patient_id).cte("busy")
    return s.execute(sa.select(P.mrn, busy.c.n).join(busy, busy.c.patient_id == P.patient_id))


def together(s: Session) -> Any:
    return s.execute(sa.union(sa.select(P.last_name).where(P.sex == "M"), sa.select(C.description)))


def existing(s: Session) -> Any:
    return s.execute(sa.select(P.patient_id).where(P.conditions.any(C.code.is_not(None))))


def ranked(s: Session) -> Any:
    rank = sa.func.row_number().over(partition_by=E.department, order_by=E.encounter_id)
    inner = sa.select(E.encounter_id, E.reason, rank.label("r")).subquery()
    return s.execute(sa.select(inner).where(inner.c.r < 3))


def in_text(s: Session) -> Any:
    return s.execute(
        sa.text("SELECT /* 100% */ mrn, ssn -- no; more\n FROM patient WHERE sex = :sex"),
        {"sex": "F"},
    )


def in_driver_text(s: Session) -> Any:
    return s.connection().exec_driver_sql(
        "SELECT patient_id, last_name FROM public.patient WHERE city LIKE %(c)s OR ssn LIKE '%%7'",
        {"c": "%a%"},
    )


def by_raw_cursor(s: Session) -> Any:
    cursor = s.connection().connection.cursor()
    cursor.execute("SELECT note_id, note_text FROM clinical_note WHERE kind = %s", ["progress"])
    return cursor.fetchall()


def streamed(s: Session) -> Any:
    return s.execute(sa.select(P.mrn), execution_options={"stream_results": True}).all()


def one_by_key(s: Session) -> Any:
    first = s.scalar(sa.select(sa.func.min(P.patient_id)))
    found = s.get(P, first)
    s.expire_all()
    return [] if found is None else [(found.mrn, found.last_name, found.ssn)]


def unmapped(s: Session) -> Any:
    return s.execute(sa.text("SELECT * FROM pg_authid"))


def locking(s: Session) -> Any:
    return s.execute(sa.select(P.mrn).with_for_update())


def calling(s: Session) -> Any:
    return s.execute(sa.select(sa.func.pg_read_file("/etc/passwd")))


SHAPES = (
    lazily, joined, select_in, sub_queried, backwards, grouped, counting, aliases, with_query,
    together, existing, ranked, in_text, in_driver_text, by_raw_cursor, streamed, one_by_key,
    unmapped, locking, calling,
)  # fmt: skip


@pytest.mark.parametrize("name", ASKING)
def test_whatever_an_application_asks_is_answered_as_at_the_gateway(
    name: str, engine: sa.Engine, through_gateway: Any
) -> None:
    theirs_by = through_gateway(name)
    answers = {}
    with acting_as(name):
        for ask in SHAPES:
            with Session(engine) as ours, Session(theirs_by) as theirs:
                mine = answers[ask.__name__] = told(ask, ours)
                assert mine == told(ask, theirs), ask.__name__
    assert any(answers.values())
    assert answers["unmapped"] == "42P01"
    assert answers["calling"] == "42501"
