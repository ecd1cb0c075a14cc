"""What a write may not do is refused, by its name; what it may do is limited by policy's SQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from chartgate.errors import Refused
from chartgate.sql.parse import split
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import Kind, Rewritten, Sought
from chartgate.sql.views import (
    Column,
    ColumnView,
    Level,
    Table,
    TableName,
    TableView,
    WriteAction,
    WriteView,
)

PATIENT = TableName("clinic", "patient")
DEPARTMENT = TableName("clinic", "department")


def column(name: str, when: str | None = None, level: Level = "full") -> ColumnView:
    return ColumnView(name, f"this.{name}", level, clear=when is None, full_when=when)


PATIENT_VIEW = TableView(
    table=Table(
        PATIENT,
        16400,
        (
            Column("patient_id", "text"),
            Column("mrn", "character varying(8)"),
            Column("last_name", "text"),
            Column("born", "date"),
            Column("dept_id", "integer", has_default=True),
            Column("note", "text"),
        ),
    ),
    row_predicate="this.dept_id IN (1, 2)",
    columns=(
        column("patient_id"),
        column("mrn", "this.dept_id = 1", "mixed"),
        column("last_name"),
        column("born", "false", "masked"),
        column("dept_id"),
        column("note"),
    ),
    patient="this.patient_id",
    patient_columns={"patient_id": "patient"},
)
DEPARTMENT_VIEW = TableView(
    table=Table(
        DEPARTMENT,
        16402,
        (
            Column("dept_id", "integer"),
            Column("name", "text"),
            Column("tags", "text[]"),
            Column("beds", "numeric(4,1)"),
        ),
    ),
    row_predicate=None,
    columns=(column("dept_id"), column("name"), column("tags"), column("beds")),
)
ANY: Mapping[WriteAction, WriteView] = {
    "create": WriteView(
        "this.dept_id = 1",
        dict.fromkeys(("patient_id", "mrn", "last_name", "born", "dept_id", "note")),
        frozenset({"dept_id"}),
    ),
    "update": WriteView(
        "this.dept_id = 1",
        {"last_name": None, "born": None, "note": "this.last_name <> 'Locked'", "mrn": "false"},
        frozenset({"dept_id"}),
    ),
    "delete": WriteView("this.dept_id = 1", {}),
}


@dataclass(frozen=True)
class Clinic:
    """Two tables; what may be written in the first is given."""

    patients: TableView = PATIENT_VIEW
    writes: Mapping[WriteAction, WriteView] = field(default_factory=lambda: ANY)

    def resolve(self, schema: str | None, name: str) -> TableName:
        if schema not in (None, "clinic") or name not in ("patient", "department"):
            raise Refused("not in the data map")
        return TableName("clinic", name)

    def read(self, table: TableName) -> TableView:
        return {PATIENT: self.patients, DEPARTMENT: DEPARTMENT_VIEW}[table]

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        if table == DEPARTMENT:
            return WriteView(None, dict.fromkeys(("dept_id", "name", "tags", "beds")))
        return self.writes[action]


def rewritten(query: str, clinic: Clinic | None = None) -> Rewritten:
    (statement,) = split(query)
    answer = rewrite(statement, clinic or Clinic())
    assert isinstance(answer, Rewritten)
    return answer


def test_an_update_is_limited_by_the_row_the_write_and_the_column() -> None:
    done = rewritten("UPDATE patient SET note = 'x' WHERE patient_id = 'p1'")
    assert done.kind is Kind.UPDATE
    assert not done.read_only
    assert (
        "WHERE this.dept_id IN (1, 2) AND this.dept_id = 1 AND this.last_name <> 'Locked'"
        in done.sql
    )
    assert done.sql.endswith("AND patient_id = 'p1' RETURNING this.patient_id AS __cg_k0")


def test_a_write_without_returning_says_that_its_rows_are_ours_alone() -> None:
    done = rewritten("DELETE FROM clinic.patient WHERE patient_id = 'p1'")
    assert (done.kind, done.hidden_columns, done.written_hidden, done.returning_added) == (
        Kind.DELETE,
        1,
        True,
        True,
    )


def test_a_write_with_returning_keeps_it_and_adds_the_key_at_the_end() -> None:
    done = rewritten("UPDATE patient p SET note = 'x' RETURNING p.last_name AS n, p.mrn")
    assert done.sql.endswith("RETURNING this.last_name AS n, this.mrn, this.patient_id AS __cg_k0")
    assert not done.returning_added
    # mrn is full only in department 1, so only those rows may be written
    assert done.sql.count("this.dept_id = 1") == 1


def test_the_tables_of_a_write_name_the_target_first_with_its_action() -> None:
    done = rewritten(
        "UPDATE patient SET note = 'x' WHERE patient_id IN"
        " (SELECT q.patient_id FROM patient q WHERE q.last_name = 'A')"
    )
    assert [(read.table, read.write) for read in done.tables] == [
        (PATIENT, "update"),
        (PATIENT, None),
    ]
    assert done.tables[0].columns == ("patient_id", "note")
    assert done.companion is not None
    assert "chartgate" not in done.sql + done.companion + " ".join(done.limited)


def test_a_key_in_the_condition_is_sought() -> None:
    done = rewritten("DELETE FROM patient WHERE patient_id = $1 OR patient_id = 'p2'")
    assert set(done.sought) == {Sought("patient", None, 1), Sought("patient", "p2", None)}


def test_a_table_about_no_patient_is_written_without_hidden_columns() -> None:
    done = rewritten("DELETE FROM department WHERE upper(name) = 'X'")
    assert done.sql == "DELETE FROM clinic.department this WHERE pg_catalog.upper(name) = 'X'"
    assert (done.hidden_columns, done.returning_added, done.limited) == (0, False, ())


REFUSED = {
    "UPDATE patient SET note = 'x' WHERE born > '1950-01-01'": "born .* masked",
    "UPDATE patient SET note = born::text": "born .* masked",
    "UPDATE patient SET note = 'x' RETURNING born": "born .* masked",
    "UPDATE patient SET note = 'x' RETURNING *": "born .* masked",
    "UPDATE patient p SET note = 'x' RETURNING p.*": "born .* masked",
    "DELETE FROM patient WHERE born IS NULL": "born .* masked",
    "UPDATE patient SET dept_id = 2": "dept_id .* decides",
    "UPDATE patient SET patient_id = 'x'": "patient_id .* may not be written",
    "UPDATE patient SET mrn = 'x'": "mrn .* may not be written",
    "UPDATE patient SET note = 'x' WHERE upper(last_name) = 'A'": "could raise",
    "UPDATE patient SET note = 'x' WHERE 1 / dept_id = 1": "could raise",
    "DELETE FROM patient WHERE last_name::int = 1": "could raise",
    "UPDATE patient SET note = q.name FROM department q": "from clause",
    "DELETE FROM patient USING department q": "using clause",
    "DELETE FROM patient WHERE CURRENT OF c": "current of",
    "UPDATE ONLY patient SET note = 'x'": "ONLY",
    "DELETE FROM ONLY patient": "ONLY",
    "UPDATE patient this SET note = 'x'": "this",
    "UPDATE patient SET note = (SELECT max(this.name) FROM department this)": "this",
    "WITH this AS (SELECT 1) UPDATE patient SET note = 'x'": "this",
    "UPDATE patient SET (note, last_name) = ('a', 'b')": "multi assign",
    "UPDATE patient SET note[1] = 'a'": "part of a column",
    "UPDATE patient SET note = 'a', note = 'b'": "twice",
    "UPDATE patient SET note = 'x' WHERE EXISTS"
    " (SELECT 1 FROM department q WHERE q.name = born::text)": "born .* masked",
    "UPDATE patient SET note = 'x' WHERE EXISTS (SELECT 1 FROM patient q(a, b, c, d, e, f)"
    " WHERE q.c = note)": "refers to the row being written",
    "UPDATE patient AS p(a, b) SET note = 'x'": "syntax|column aliases",
    "INSERT INTO patient (patient_id, dept_id) SELECT * FROM department": r"SELECT \*",
    "INSERT INTO patient (patient_id, dept_id, mrn) SELECT 'a', 1": "differ",
    "UPDATE patient SET note = 'x' WHERE ctid = '(0,1)'": "no column",
    "UPDATE patient SET note = 'x' WHERE patient.upper = 'x'": "no column",
    "UPDATE patient SET note = 'x' RETURNING patient": "no column",
    "UPDATE patient SET note = 'x' RETURNING row_to_json(patient)": "no column",
    "UPDATE patient SET note = 'x' RETURNING department.*": "not the table written",
    'UPDATE patient SET note = (SELECT 1 FROM "chartgate write target".x)': "schema of that name",
    "UPDATE patient SET note = pg_read_file('x')": "pg_read_file",
    "UPDATE patient SET __cg_k0 = 'x'": "__cg_",
    "INSERT INTO patient DEFAULT VALUES": "DEFAULT VALUES",
    "INSERT INTO patient (patient_id) VALUES (DEFAULT)": "nothing but DEFAULT",
    "INSERT INTO patient (patient_id, note) VALUES ('a', DEFAULT), ('b', 'c')": "some rows",
    "INSERT INTO patient (patient_id) VALUES ('a') ON CONFLICT DO NOTHING": "on conflict",
    "INSERT INTO patient (patient_id) OVERRIDING USER VALUE VALUES ('a')": "OVERRIDING",
    "INSERT INTO patient (patient_id) VALUES ('a')": "dept_id .* give it",
    "INSERT INTO patient (patient_id, dept_id) VALUES ('a', DEFAULT)": "dept_id .* give it",
    "INSERT INTO patient (patient_id, dept_id) VALUES ('a')": "differ",
    "INSERT INTO patient (patient_id, dept_id) SELECT 'a'": "differ",
    "INSERT INTO patient VALUES ('a', 'b', 'c', NULL, 1, 'n', 'more')": "differ",
    "INSERT INTO patient (patient_id, patient_id) VALUES ('a', 'b')": "twice",
    "INSERT INTO patient (ctid) VALUES ('(0,1)')": "no column",
    "INSERT INTO patient (note[1]) VALUES ('a')": "part of a column",
    "INSERT INTO patient (patient_id, dept_id) VALUES ('a', 1) RETURNING born": "born .* masked",
    "INSERT INTO patient (patient_id) SELECT * INTO x FROM patient": "into clause",
    "WITH d AS (DELETE FROM patient RETURNING patient_id) SELECT * FROM d": "SELECT",
    "WITH d AS (SELECT 1 AS a) INSERT INTO department WITH e AS (SELECT 2) SELECT 1, 'x'": "two WITH",
    "MERGE INTO patient USING department q ON true WHEN MATCHED THEN DELETE": "merge",
    "TRUNCATE patient": "truncate",
    "COPY patient FROM STDIN": "copy",
    "UPDATE staff.payroll SET amount = 1": "not in the data map",
}


@pytest.mark.parametrize("query", REFUSED)
def test_a_write_that_reads_or_changes_more_than_policy_shows_is_refused(query: str) -> None:
    with pytest.raises(Refused, match=REFUSED[query]):
        rewritten(query)


def test_a_refusal_never_quotes_a_value() -> None:
    with pytest.raises(Refused) as caught:
        rewritten(
            "UPDATE patient SET note = 'x' WHERE born = '1962-03-04' AND last_name = 'Okafor'"
        )
    assert "1962" not in str(caught.value)
    assert "Okafor" not in str(caught.value)


def test_what_nobody_may_write_is_refused_before_anything_is_sent() -> None:
    nothing = WriteView("false", {})
    clinic = Clinic(writes={"create": nothing, "update": nothing, "delete": nothing})
    for query in (
        "INSERT INTO patient (patient_id, dept_id) VALUES ('a', 1)",
        "UPDATE patient SET note = 'x'",
        "DELETE FROM patient",
    ):
        with pytest.raises(Refused, match="not allowed"):
            rewritten(query, clinic)


def test_an_insert_judges_the_new_row_and_casts_without_cutting() -> None:
    done = rewritten("INSERT INTO patient (patient_id, mrn, dept_id) VALUES ($1, $2, $3)")
    assert done.kind is Kind.INSERT
    assert "VALUES ($1::text, $2::pg_catalog.text, $3::int)" in done.sql
    assert "varchar(8)" not in done.sql
    assert "WHERE CASE WHEN this.dept_id = 1 THEN true ELSE" in done.sql
    assert "NULL::date AS born" in done.sql
    assert done.hidden_columns == 1
    assert done.returning_added


def test_an_insert_from_a_query_reads_as_the_person_reads() -> None:
    done = rewritten(
        "INSERT INTO patient (patient_id, dept_id)"
        " SELECT patient_id || 'x', 1 FROM patient WHERE last_name = 'A'"
    )
    assert "FROM clinic.patient this WHERE this.dept_id IN (1, 2)" in done.sql
    assert done.companion is not None
    assert [read.write for read in done.tables] == ["create", None]


def test_returning_of_an_insert_only_for_rows_that_may_be_read() -> None:
    done = rewritten("INSERT INTO patient (patient_id, dept_id) VALUES ('a', 1) RETURNING mrn")
    assert "CASE WHEN this.dept_id = 1 AND this.dept_id IN (1, 2) THEN true" in done.sql


def test_a_predicate_with_an_alias_of_its_own_cannot_be_captured() -> None:
    done = rewritten("UPDATE patient q SET note = q.last_name WHERE q.patient_id = 'p'")
    assert done.sql.startswith("UPDATE clinic.patient this SET note = this.last_name WHERE this.")


def test_with_queries_stay_before_the_write() -> None:
    done = rewritten(
        "WITH w AS (SELECT dept_id FROM department) UPDATE patient SET note = 'x'"
        " WHERE dept_id IN (SELECT dept_id FROM w)"
    )
    assert done.sql.startswith("WITH ")
    assert "UPDATE clinic.patient this SET note = 'x'" in done.sql
    done = rewritten(
        "WITH w AS (SELECT dept_id, name FROM department)"
        " INSERT INTO department SELECT w.dept_id, w.name FROM w"
    )
    assert done.sql.startswith("INSERT INTO clinic.department AS this (dept_id, name) SELECT ")
    assert "WITH " in done.sql


def test_both_sides_of_a_union_are_inserted_as_the_columns_want() -> None:
    done = rewritten(
        "INSERT INTO department SELECT 1, 'a' UNION ALL SELECT dept_id, name FROM department"
    )
    assert "__cg_source.dept_id::int AS dept_id" in done.sql
    assert (done.hidden_columns, done.returning_added, done.companion) == (0, False, None)


def test_patients_seen_by_source_and_returning_are_all_in_one_companion() -> None:
    done = rewritten(
        "INSERT INTO patient (patient_id, dept_id) SELECT p.patient_id || 'x', 1 FROM patient p"
        " RETURNING (SELECT max(q.last_name) FROM patient q)"
    )
    assert done.companion is not None
    assert done.companion.count(" UNION ") == 1
    assert not done.returning_added


def test_default_keeps_its_place_and_a_default_column_is_left_out() -> None:
    assert "SET note = DEFAULT WHERE" in rewritten("UPDATE patient SET note = DEFAULT").sql
    done = rewritten(
        "INSERT INTO patient (patient_id, note, dept_id) VALUES ('a', DEFAULT, 1), ('b', DEFAULT, 1)"
    )
    assert "AS this (patient_id, dept_id)" in done.sql


def test_a_column_condition_on_a_new_row_is_judged_with_the_row() -> None:
    create = WriteView(
        None, {"patient_id": None, "dept_id": None, "note": "this.dept_id = 2"}, frozenset()
    )
    done = rewritten(
        "INSERT INTO patient (patient_id, dept_id, note) VALUES ('a', 1, 'n')",
        Clinic(writes={**ANY, "create": create}),
    )
    assert "CASE WHEN this.dept_id = 2 THEN true" in done.sql


def test_a_write_of_everything_needs_no_condition() -> None:
    done = rewritten("INSERT INTO department VALUES (7, 'x')")
    assert "WHERE" not in done.sql
    assert rewritten("DELETE FROM department").sql == "DELETE FROM clinic.department this"


def test_the_audit_text_has_no_value_in_it() -> None:
    done = rewritten("UPDATE patient SET note = 'secret' WHERE patient_id = 'p1'")
    assert "secret" not in done.statement_class
    assert "p1" not in done.statement_class


def test_the_audit_text_names_tables_and_columns() -> None:
    done = rewritten("DELETE FROM patient WHERE patient_id = 'p1'")
    assert done.statement_class == "DELETE FROM patient WHERE patient_id = $1"


def test_a_count_that_is_written_is_scope_only() -> None:
    done = rewritten("INSERT INTO department (dept_id) SELECT count(*) FROM patient")
    assert done.scope_only


def test_numbers_and_arrays_are_cast_to_their_own_types() -> None:
    done = rewritten("INSERT INTO department VALUES (1, 'a', $1, 7.25)")
    assert "VALUES (1::int, 'a'::text, $1::text[], (7.25)::numeric)" in done.sql


def test_who_may_read_no_row_may_create_one_but_not_read_it_back() -> None:
    blind = Clinic(patients=replace(PATIENT_VIEW, row_predicate="false"))
    query = "INSERT INTO patient (patient_id, dept_id) VALUES ('a', 1)"
    assert rewritten(query, blind).returning_added
    with pytest.raises(Refused, match="RETURNING"):
        rewritten(query + " RETURNING patient_id", blind)


def test_a_policy_column_without_a_default_is_judged_as_the_null_it_will_be() -> None:
    create = WriteView(
        "this.note IS NULL", dict.fromkeys(("patient_id", "dept_id")), frozenset({"note"})
    )
    done = rewritten(
        "INSERT INTO patient (patient_id, dept_id) VALUES ('a', 1)",
        Clinic(writes={**ANY, "create": create}),
    )
    assert "CASE WHEN this.note IS NULL THEN true" in done.sql
    assert "NULL::text AS note" in done.sql


def test_returning_from_a_table_seen_in_full_needs_no_condition() -> None:
    done = rewritten("INSERT INTO department (name) VALUES ('x') RETURNING name, dept_id AS d")
    assert done.sql.endswith("this RETURNING name, dept_id AS d")


def test_a_name_that_is_no_column_is_not_repeated() -> None:
    with pytest.raises(Refused) as caught:
        rewritten('UPDATE patient SET "Smith 123-45-6789" = 1')
    assert "Smith" not in str(caught.value)
    assert caught.value.sqlstate == "42703"
