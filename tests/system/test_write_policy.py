"""Writes on a real server: only permitted rows change, and hidden rows answer no question.

Expectations are computed from the raw rows in Python, never from the rewritten statement.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.source_catalog import read_source
from chartgate.errors import Refused
from chartgate.sql.parse import split
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import Rewritten
from chartgate.sql.views import (
    ColumnView,
    Level,
    Table,
    TableName,
    TableView,
    WriteAction,
    WriteView,
)

pytestmark = pytest.mark.system

SCHEMA = """
CREATE SCHEMA clinic;
CREATE TABLE clinic.care_team (patient_id text, member text);
CREATE TABLE clinic.patient (
    patient_id text PRIMARY KEY, mrn varchar(8) UNIQUE NOT NULL, last_name text NOT NULL,
    born date, dept_id int NOT NULL, weight numeric(5,1), note text DEFAULT 'none',
    seen timestamptz);
INSERT INTO clinic.patient
SELECT 'p' || i, 'M' || i, 'Name' || i, date '1950-01-01' + i, 1 + i % 5, 50 + i, 'n' || i % 3, NULL
  FROM generate_series(1, 60) i;
INSERT INTO clinic.care_team SELECT 'p' || i, 'okafor' FROM generate_series(1, 60, 2) i;
CREATE TABLE clinic.lab_result (
    lab_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, patient_id text NOT NULL, code text,
    value numeric(8,2));
INSERT INTO clinic.lab_result (patient_id, code, value)
SELECT 'p' || 1 + i % 60, 'K', i FROM generate_series(1, 120) i;
"""
IN_CARE = (
    "EXISTS (SELECT 1 FROM clinic.care_team AS c WHERE c.patient_id = this.patient_id"
    " AND c.member = 'okafor')"
)
FULL_MRN = "this.dept_id = 1"
OPEN_NOTE = "this.last_name <> 'Name11'"
CREATE_HERE = "this.dept_id IN (1, 2)"

Row = Mapping[str, Any]


def in_care(row: Row) -> bool:
    """The same policy, in Python, from how the rows above are made."""
    return int(row["patient_id"][1:]) % 2 == 1


def column(name: str, when: str | None = None, level: Level = "full") -> ColumnView:
    return ColumnView(name, f'this."{name}"', level, clear=when is None, full_when=when)


@dataclass(frozen=True)
class Clinic:
    """Okafor sees the patients in their care; ``born`` is masked, ``mrn`` full in department 1."""

    tables: Mapping[TableName, Table]

    def resolve(self, schema: str | None, name: str) -> TableName:
        found = TableName(schema or "clinic", name)
        if found not in self.tables or name == "care_team":
            raise Refused("not in the data map")
        return found

    def read(self, table: TableName) -> TableView:
        when: dict[str, tuple[str, Level]] = {
            "born": ("false", "masked"),
            "mrn": (FULL_MRN, "mixed"),
        }
        return TableView(
            self.tables[table],
            IN_CARE,
            tuple(column(c.name, *when.get(c.name, ())) for c in self.tables[table].columns),
            "this.patient_id::text",
            {"patient_id": "patient"},
        )

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        policy = frozenset({"patient_id", "dept_id"})
        if table.name == "lab_result":
            columns = dict.fromkeys(("patient_id", "code", "value"))
            return WriteView(IN_CARE, columns, frozenset({"patient_id"}))
        if action == "create":
            columns = dict.fromkeys(c.name for c in self.tables[table].columns)
            return WriteView(CREATE_HERE, columns, policy)
        if action == "update":
            open_columns = {"note": OPEN_NOTE, "weight": None, "seen": None, "last_name": None}
            return WriteView("this.dept_id <> 3", open_columns, policy)
        return WriteView("this.dept_id <> 3", {}, policy)


class Gate:
    """A server, and Okafor in front of it; every statement is undone."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        conninfo = server.conninfo("postgres", "postgres")
        self.raw = psycopg.connect(conninfo, autocommit=True)
        self.raw.execute(SCHEMA.encode())
        self.clinic = Clinic(read_source(self.raw, "clinic").tables)
        self.raw.execute("SET search_path = pg_catalog")

    def rewritten(self, query: str) -> Rewritten:
        (statement,) = split(query)
        answer = rewrite(statement, self.clinic)
        assert isinstance(answer, Rewritten)
        return answer

    def rows(self, table: str = "patient") -> dict[str, dict[str, Any]]:
        with self.raw.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            key = "lab_id" if table == "lab_result" else "patient_id"
            found = cursor.execute(f"SELECT * FROM clinic.{table}".encode()).fetchall()
            return {str(row[key]): row for row in found}

    @contextmanager
    def done(self, query: str, *args: object) -> Iterator[psycopg.RawCursor[Any]]:
        """The statement carried out, until the end of the block."""
        sql = self.rewritten(query).sql.encode()
        with self.raw.transaction(force_rollback=True), psycopg.RawCursor(self.raw) as cursor:
            yield cursor.execute(sql, args)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("write") / "server")
    server.start()
    made = Gate(server)
    yield made
    made.raw.close()
    server.destroy()


def writable(row: Row) -> bool:
    return in_care(row) and row["dept_id"] != 3


CONDITIONS: dict[str, Callable[[Row], bool]] = {
    "true": lambda row: True,
    "note = 'n1'": lambda row: row["note"] == "n1",
    "patient.last_name IN ('Name1', 'Name2', 'Name3')": lambda row: (
        row["last_name"] in {"Name1", "Name2", "Name3"}
    ),
    "dept_id = 3": lambda row: False,
    "mrn > 'M3'": lambda row: row["mrn"] > "M3" and row["dept_id"] == 1,
    "NOT (note = 'n1' OR dept_id = 2)": lambda row: row["note"] != "n1" and row["dept_id"] != 2,
    "patient_id IN (SELECT q.patient_id FROM patient q WHERE q.dept_id = 2)": lambda row: (
        row["dept_id"] == 2
    ),
    "seen IS NULL AND last_name LIKE 'Name4%'": lambda row: row["last_name"].startswith("Name4"),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_update_changes_exactly_the_rows_that_policy_and_condition_allow(
    gate: Gate, condition: str
) -> None:
    before = gate.rows()
    expected = {
        key
        for key, row in before.items()
        if writable(row) and row["last_name"] != "Name11" and CONDITIONS[condition](row)
    }
    with gate.done(f"UPDATE patient SET note = 'changed' WHERE {condition}") as cursor:
        assert cursor.rowcount == len(expected)
        assert {row[-1] for row in cursor.fetchall()} == expected
        after = gate.rows()
    assert {key for key in before if after[key] != before[key]} == expected
    assert all(after[key] == {**before[key], "note": "changed"} for key in expected)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_delete_removes_exactly_the_rows_that_policy_and_condition_allow(
    gate: Gate, condition: str
) -> None:
    before = gate.rows()
    expected = {k for k, row in before.items() if writable(row) and CONDITIONS[condition](row)}
    with gate.done(f"DELETE FROM patient WHERE {condition}") as cursor:
        assert cursor.rowcount == len(expected)
        assert set(gate.rows()) == set(before) - expected


def test_the_mark_of_a_column_seen_in_full_on_some_rows_limits_what_returning_shows(
    gate: Gate,
) -> None:
    with gate.done("UPDATE patient SET weight = weight + 1 RETURNING mrn") as cursor:
        found = {row[0] for row in cursor.fetchall()}
    expected = {r["mrn"] for r in gate.rows().values() if writable(r) and r["dept_id"] == 1}
    assert found == expected


HOSTILE = [
    "UPDATE patient SET note = 'x' WHERE 1 / (CASE WHEN last_name = 'Secret' THEN 0 ELSE 1 END) = 1",
    "DELETE FROM patient WHERE CAST(last_name AS int) = 1",
    "UPDATE patient SET note = 'x' WHERE substring(last_name, 1, dept_id - 3) = 'S'",
    "UPDATE patient SET note = 'x' WHERE last_name = 'Secret'",
    "UPDATE patient SET note = last_name || 'x' WHERE note = 'n1' RETURNING note",
    "UPDATE patient SET note = (CASE WHEN 1 / (weight - 999) > 0 THEN 'a' ELSE 'b' END)",
    "UPDATE patient SET weight = 1000 / (weight - 76.5)",
    "DELETE FROM patient WHERE last_name = 'Secret' RETURNING last_name",
    "DELETE FROM patient WHERE EXISTS (SELECT 1 FROM patient q WHERE q.last_name = 'Secret')",
    "UPDATE patient SET note = (SELECT max(q.last_name) FROM patient q)",
    "UPDATE patient SET note = (SELECT 1 / (count(*) - 30) FROM patient q)::text",
    (
        "INSERT INTO lab_result (patient_id, code, value) SELECT q.patient_id, 'X', 1 / (q.weight - 76.5)"
        " FROM patient q"
    ),
    (
        "INSERT INTO lab_result (patient_id, code) SELECT q.patient_id, q.last_name FROM patient q"
        " RETURNING code"
    ),
    "UPDATE patient SET note = 'x' WHERE born > '1950-02-01'",
    "UPDATE patient SET seen = born",
]


@pytest.mark.parametrize("query", HOSTILE)
def test_a_hidden_row_makes_no_difference_to_any_answer(gate: Gate, query: str) -> None:
    def outcome() -> object:
        try:
            with gate.done(query) as cursor:
                return cursor.statusmessage, sorted(map(str, cursor.fetchall()))
        except Refused as refusal:
            return "refused", str(refusal)
        except psycopg.Error as error:
            return "error", error.sqlstate

    one_world = outcome()
    with gate.raw.transaction(force_rollback=True):
        gate.raw.execute(
            "UPDATE clinic.patient SET last_name = 'Secret', weight = 76.5, note = 'hidden'"
            " WHERE patient_id = 'p2' OR patient_id = 'p44'"
        )
        gate.raw.execute(
            "INSERT INTO clinic.patient (patient_id, mrn, last_name, dept_id, weight)"
            " VALUES ('p900', 'M900', 'Secret', 2, 999)"
        )
        assert outcome() == one_world


def test_an_insert_that_policy_allows_stores_what_was_given(gate: Gate) -> None:
    query = (
        "INSERT INTO patient (patient_id, mrn, last_name, born, dept_id, weight, seen)"
        " VALUES ($1, $2, $3, $4, $5, $6, now())"
    )
    from datetime import date
    from decimal import Decimal

    args = ("p901", "M901", "New", date(2001, 2, 3), 2, Decimal("70.25"))
    with gate.done(query, *args) as cursor:
        assert (cursor.statusmessage, cursor.fetchall()) == ("INSERT 0 1", [("p901",)])
        row = gate.rows()["p901"]
    assert (row["mrn"], row["born"], row["dept_id"]) == ("M901", date(2001, 2, 3), 2)
    assert row["weight"] == Decimal("70.3")  # numeric(5,1), as a plain INSERT rounds
    assert row["note"] == "none"  # the default
    assert row["seen"] is not None


@pytest.mark.parametrize(
    "values",
    [
        "('p901', 'M901', 'New', 3)",
        "('p901', 'M901', 'New', 1), ('p902', 'M902', 'New', 3)",
        "('p902', 'M902', 'New', 3), ('p901', 'M901', 'New', 1)",
        "('p901', 'M901', 'New', NULL)",
        "('p901', 'M901', 'New', (SELECT max(q.dept_id) FROM patient q))",
    ],
)
def test_an_insert_that_policy_forbids_raises_and_stores_nothing(gate: Gate, values: str) -> None:
    before = gate.rows()
    query = f"INSERT INTO patient (patient_id, mrn, last_name, dept_id) VALUES {values}"
    with pytest.raises(psycopg.errors.InvalidTextRepresentation), gate.done(query):
        pass
    assert gate.rows() == before


def test_a_text_too_long_for_its_column_is_an_error_and_not_cut(gate: Gate) -> None:
    query = (
        "INSERT INTO patient (patient_id, mrn, last_name, dept_id)"
        " VALUES ('p901', 'M90123456789', 'New', 1)"
    )
    with pytest.raises(psycopg.errors.StringDataRightTruncation), gate.done(query):
        pass


def test_an_insert_from_a_query_stores_what_the_person_sees(gate: Gate) -> None:
    query = (
        "INSERT INTO lab_result (patient_id, code, value)"
        " SELECT q.patient_id, q.last_name, q.weight FROM patient q WHERE q.dept_id = 2"
    )
    expected = {r["last_name"] for r in gate.rows().values() if in_care(r) and r["dept_id"] == 2}
    done = gate.rewritten(query)
    assert done.companion is not None
    with gate.done(query) as cursor:
        assert cursor.rowcount == len(expected)
        stored = gate.rows("lab_result").values()
        assert {row["code"] for row in stored if row["code"] != "K"} == expected
    seen = {row[0] for row in gate.raw.execute(done.companion.encode()).fetchall()}
    assert seen == {
        r["patient_id"] for r in gate.rows().values() if in_care(r) and r["dept_id"] == 2
    }


def test_a_result_for_a_patient_not_in_care_cannot_be_filed(gate: Gate) -> None:
    query = "INSERT INTO lab_result (patient_id, code, value) VALUES ('{}', 'K', 4.1)"
    with gate.done(query.format("p1")) as cursor:
        assert cursor.rowcount == 1
    with (
        pytest.raises(psycopg.errors.InvalidTextRepresentation),
        gate.done(query.format("p2")),
    ):
        pass


def test_the_identity_of_a_new_row_can_be_returned(gate: Gate) -> None:
    query = (
        "INSERT INTO lab_result (patient_id, code, value) VALUES ('p1', 'K', 4), ('p3', 'K', 5)"
        " RETURNING lab_id, patient_id AS who"
    )
    with gate.done(query) as cursor:
        assert [column.name for column in cursor.description or ()] == ["lab_id", "who", "__cg_k0"]
        rows = cursor.fetchall()
    assert [(row[1], row[2]) for row in rows] == [("p1", "p1"), ("p3", "p3")]
    assert all(isinstance(row[0], int) for row in rows)


def test_parameters_keep_the_types_of_their_columns(gate: Gate) -> None:
    query = "UPDATE patient SET weight = $1, note = $2 WHERE patient_id = $3 RETURNING weight"
    with gate.done(query, 71, "by parameter", "p1") as cursor:
        assert cursor.fetchall() == [(71, "p1")]
        assert gate.rows()["p1"]["note"] == "by parameter"
    with gate.done(query, 71, "by parameter", "p2") as cursor:
        assert cursor.fetchall() == []
