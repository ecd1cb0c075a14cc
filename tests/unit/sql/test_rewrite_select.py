"""Cases: a statement, and what of it goes upstream.

The person sees department 3 only, first letters instead of names, and of laboratory results
those of her patients; codes are open to everybody.
"""

from typing import Any

import pytest

from chartgate.errors import Refused
from chartgate.sql.parse import MAX_BYTES, SyntaxRefused, split
from chartgate.sql.rewrite import limited, rewrite
from chartgate.sql.statement import Kind, Rewritten, Sought, TableRead
from chartgate.sql.views import Column, ColumnView, Table, TableName, TableView

TABLES = {
    "patient": (
        {"id": "integer", "mrn": "text", "name": "text", "dept": "integer"},
        "this.dept = 3",
        "this.id::text",
        {"id": "patient", "mrn": "mrn"},
    ),
    "lab": (
        {"id": "integer", "pid": "integer", "value": "numeric", "ts": "timestamp with time zone"},
        "this.pid IN (SELECT q.id FROM ehr.patient q WHERE q.dept = 3)",
        "this.pid::text",
        {"pid": "patient"},
    ),
    "code": ({"id": "integer", "label": "text"}, None, None, None),
}


def view(name: str) -> TableView:
    columns, rows, patient, keys = TABLES[name]
    return TableView(
        Table(TableName("ehr", name), 1, tuple(Column(c, t) for c, t in columns.items())),
        rows,
        tuple(
            ColumnView(c, "pg_catalog.left(this.name, 1)", "masked", clear=False, full_when="false")
            if c == "name"
            else ColumnView(c, f"this.{c}", "full", clear=True, full_when=None)
            for c in columns
        ),
        patient,
        keys,
    )


class Nurse:
    def resolve(self, schema: str | None, name: str) -> TableName:
        if schema not in (None, "ehr") or name not in TABLES:
            raise Refused("not in the data map")
        return TableName("ehr", name)

    def read(self, table: TableName) -> TableView:
        return view(table.name)

    def write(self, *_: Any) -> Any:
        raise Refused("reads only")


def rewritten(text: str) -> Rewritten:
    (statement,) = split(text)
    done = rewrite(statement, Nurse())
    assert isinstance(done, Rewritten)
    return done


PATIENT = "(SELECT {} FROM ehr.patient this WHERE this.dept = 3)"
LAB = (
    "(SELECT {} FROM ehr.lab this"
    " WHERE this.pid IN (SELECT q.id FROM ehr.patient q WHERE q.dept = 3){})"
)
KEY = "this.id::text AS __cg_k0"
NAME = 'pg_catalog."left"(this.name, 1) AS name'

UPSTREAM = {
    "SELECT id FROM patient": (
        f"SELECT id, patient.__cg_k0 AS __cg_k1 FROM {PATIENT.format(f'this.id AS id, {KEY}')} patient"
    ),
    # only what is referred to is asked for
    "SELECT name FROM ehr.patient p WHERE p.mrn = 'M1'": (
        "SELECT name, p.__cg_k0 AS __cg_k1 FROM"
        f" {PATIENT.format(f'this.mrn AS mrn, {NAME}, {KEY}')} p WHERE p.mrn = 'M1'"
    ),
    # the star is written out, so that the key does not show
    "SELECT * FROM patient": (
        "SELECT patient.id, patient.mrn, patient.name, patient.dept,"
        " patient.__cg_k0 AS __cg_k1 FROM"
        f" {PATIENT.format(f'this.id AS id, this.mrn AS mrn, {NAME}, this.dept AS dept, {KEY}')} patient"
    ),
    # a table without rows to hide and patients to name stays as simple as it was
    "TABLE code": "SELECT * FROM (SELECT this.id AS id, this.label AS label FROM ehr.code this) code",
    "SELECT * FROM patient NATURAL JOIN code": (
        "SELECT id, patient.mrn, patient.name, patient.dept, code.label,"
        " patient.__cg_k0 AS __cg_k1 FROM"
        f" {PATIENT.format(f'this.id AS id, this.mrn AS mrn, {NAME}, this.dept AS dept, {KEY}')} patient"
        " NATURAL JOIN (SELECT this.id AS id, this.label AS label FROM ehr.code this) code"
    ),
    # column aliases are the derived table's own names
    "SELECT a FROM code AS c(a, b) WHERE b = 'x'": (
        "SELECT a FROM (SELECT this.id AS a, this.label AS b FROM ehr.code this) c WHERE b = 'x'"
    ),
    # an expression that can raise: barrier, and the safe condition goes inside
    "SELECT id FROM code, patient p WHERE p.mrn = 'x' AND 1 / p.dept > 0": None,
    "SELECT max(value) FROM lab WHERE pid = 5": (
        f"SELECT pg_catalog.max(value) FROM {LAB.format('this.pid AS pid, this.value AS value', '')}"
        " lab WHERE pid = 5"
    ),
    "SELECT max(value) FROM lab WHERE pid = 5 AND value > 1": (
        "SELECT pg_catalog.max(value) FROM (SELECT this.pid AS pid, this.value AS value FROM ehr.lab"
        " this WHERE this.pid IN (SELECT q.id FROM ehr.patient q WHERE q.dept = 3)"
        " AND this.pid = 5 OFFSET 0) lab WHERE pid = 5 AND value > 1"
    ),
    # a WITH query hides the table from the statement, not from itself
    "WITH patient AS (SELECT id FROM code) SELECT * FROM patient": (
        "WITH __cg_w0 AS (SELECT id FROM (SELECT this.id AS id FROM ehr.code this) code)"
        " SELECT * FROM __cg_w0 patient"
    ),
    "WITH code AS (SELECT id FROM code) SELECT c.id, d.id FROM code c, ehr.code d": (
        "WITH __cg_w0 AS (SELECT id FROM (SELECT this.id AS id FROM ehr.code this) code)"
        " SELECT c.id, d.id FROM __cg_w0 c, (SELECT this.id AS id FROM ehr.code this) d"
    ),
    "SELECT (c).label FROM code c": (
        "SELECT c.label FROM (SELECT this.id AS id, this.label AS label FROM ehr.code this) c"
    ),
    "VALUES (1, 'a'), (2, 'b')": "VALUES (1, 'a'), (2, 'b')",
    "SELECT now()::text AS t": "SELECT pg_catalog.now()::pg_catalog.text AS t",
    "SELECT set_config('jit', 'off', false)": "SELECT pg_catalog.set_config('jit', 'off', false)",
    "SELECT set_config('jit', $1, false)": "SELECT pg_catalog.set_config('jit', $1, false)",
}


@pytest.mark.parametrize("text", [t for t, sql in UPSTREAM.items() if sql is not None])
def test_a_statement_goes_upstream_as_written_here(text: str) -> None:
    assert rewritten(text).sql == UPSTREAM[text]


def test_a_column_in_two_tables_is_ambiguous_before_the_server_sees_it() -> None:
    with pytest.raises(Refused, match="more than one table"):
        rewritten("SELECT id FROM code, patient p WHERE p.mrn = 'x'")


@pytest.mark.parametrize(
    ("text", "hidden", "beside"),
    [
        ("SELECT id FROM patient ORDER BY 1 LIMIT 3", 1, False),
        ("SELECT p.id FROM patient p LEFT JOIN lab l ON l.pid = p.id", 2, False),
        ("SELECT c.label FROM (SELECT id FROM patient) s JOIN code c ON c.id = s.id", 1, False),
        ("WITH s AS (SELECT id FROM patient) SELECT a.id FROM s a, s b", 2, False),
        ("SELECT rank() OVER (ORDER BY id) FROM patient", 1, False),
        ("SELECT sum(id) OVER (), id FROM patient", 1, False),
        ("SELECT sum(id) OVER (), id FROM patient LIMIT 1", 0, True),
        ("SELECT DISTINCT dept FROM patient", 0, True),
        ("SELECT dept, count(*) FROM patient GROUP BY 1", 0, True),
        ("SELECT id FROM patient UNION SELECT id FROM code", 0, True),
        ("SELECT p FROM patient p", 0, True),
        ("SELECT count(p.*) FROM patient p", 0, True),
        ("SELECT id FROM code WHERE id IN (SELECT dept FROM patient)", 0, True),
        ("SELECT id, (SELECT max(value) FROM lab WHERE pid = p.id) FROM patient p", 1, True),
        (
            "SELECT p.id FROM patient p JOIN (SELECT pid FROM lab GROUP BY 1) s ON s.pid = p.id",
            1,
            True,
        ),
        ("WITH s AS (SELECT dept FROM patient GROUP BY 1) SELECT * FROM s", 0, True),
        ("SELECT * FROM (SELECT id, id FROM patient) s", 0, True),
        ("SELECT dept, count(*) FROM (SELECT * FROM patient LIMIT 9) s GROUP BY 1", 0, True),
        ("SELECT id FROM code", 0, False),
        ("SELECT count(*) FROM code", 0, False),
    ],
)
def test_the_patients_of_an_answer_are_carried_or_asked_for(
    text: str, hidden: int, beside: bool
) -> None:
    done = rewritten(text)
    assert done.hidden_columns == hidden
    assert (done.companion is not None) == beside
    assert not done.scope_only


def test_a_bare_count_lists_no_patient() -> None:
    done = rewritten("SELECT count(*) FROM patient")
    assert (done.scope_only, done.companion, done.hidden_columns) == (True, None, 0)
    assert not rewritten("SELECT count(*), max(id) FROM patient").scope_only
    assert not rewritten("SELECT count(DISTINCT id) FROM patient").scope_only
    assert not rewritten("SELECT count(*) FROM patient GROUP BY dept").scope_only


def test_a_count_with_a_condition_lists_its_patients_if_they_are_few() -> None:
    for text in (
        "SELECT count(*) AS n FROM lab WHERE value > 5",
        "SELECT count(*) FROM patient p JOIN lab l ON l.pid = p.id AND l.value > 5",
        "SELECT count(*) FROM (SELECT id FROM patient WHERE name = 'x') s",
        "WITH s AS (SELECT id FROM patient WHERE name = 'x') SELECT count(*) FROM s",
    ):
        done = rewritten(text)
        assert done.scope_only
        assert done.companion is not None
        assert "LIMIT 11" in done.companion
        assert done.companion.endswith("<= 10")


def test_what_could_differ_a_second_time_is_asked_for_loosely() -> None:
    done = rewritten("SELECT count(id) FROM (SELECT * FROM patient WHERE mrn = 'x' LIMIT 9) s")
    assert done.companion == (
        "SELECT DISTINCT __cg_u.k AS k FROM (SELECT this.id::text AS k FROM ehr.patient this"
        " WHERE this.dept = 3 AND this.mrn = 'x') __cg_u(k) WHERE __cg_u.k IS NOT NULL"
    )


@pytest.mark.parametrize(
    "shaky",
    [
        "extract(microseconds FROM statement_timestamp())::int % 7 = id",
        "extract(microseconds FROM clock_timestamp())::int % 7 = id",
        (
            "CASE current_setting('extra_float_digits') WHEN '0' THEN id = 5"
            " AND set_config('extra_float_digits', '2', false) = '2' ELSE id = 3 END"
        ),
        "random() < 0.5",
        "id = length(timeofday()) - 30",
    ],
)
def test_a_condition_that_changes_from_one_asking_to_the_next_is_left_out(shaky: str) -> None:
    companion = rewritten(f"SELECT max(name) FROM patient WHERE mrn = 'x' AND {shaky}").companion
    assert companion is not None
    assert "WHERE mrn = 'x'" in companion
    assert "timestamp" not in companion
    assert "set_config" not in companion
    assert "random" not in companion
    assert "timeofday" not in companion


@pytest.mark.parametrize(
    ("condition", "sought"),
    [
        ("id = 7", [Sought("patient", "7", None)]),
        ("'M-1' = mrn", [Sought("mrn", "M-1", None)]),
        ("id = $2", [Sought("patient", None, 2)]),
        ("id IN (1, $1)", [Sought("patient", "1", None), Sought("patient", None, 1)]),
        ("mrn = ANY ($1)", [Sought("mrn", None, 1)]),
        (
            "mrn = ANY (ARRAY['a', 'b']::text[])",
            [Sought("mrn", "a", None), Sought("mrn", "b", None)],
        ),
        ("id BETWEEN 1 AND 2", [Sought("patient", "1", None), Sought("patient", "2", None)]),
        ("id::text = '7'", [Sought("patient", "7", None)]),
        ("(id, mrn) = (7, 'M')", [Sought("patient", "7", None), Sought("mrn", "M", None)]),
        ("EXISTS (SELECT 1 FROM lab l WHERE l.pid = 9)", [Sought("patient", "9", None)]),
        ("name = 'x'", []),
        ("id <> 7", []),
    ],
)
def test_whom_a_statement_looks_for_is_told(condition: str, sought: list[Sought]) -> None:
    assert list(rewritten(f"SELECT name FROM patient WHERE {condition}").sought) == sought


def test_a_key_is_followed_through_sub_selects_and_with() -> None:
    for source in ("(SELECT id AS x FROM patient) s", "s"):
        text = f"WITH s AS (SELECT id AS x FROM patient) SELECT x FROM {source} WHERE x = 4"
        assert rewritten(text).sought == (Sought("patient", "4", None),)


REFUSED = {
    "SELECT a FROM code AS c(a, b, d)": "more column aliases",
    "SELECT * FROM (SELECT 1) AS c(a, b)": "more column aliases",
    "SELECT * FROM code JOIN patient USING (label)": "not in both",
    "SELECT s.id FROM (SELECT id, id FROM code) s": "more than once",
    "SELECT (c.label).count FROM code c": "field of a record",
    "SELECT (c).* FROM code c": "table.column",
    "SELECT * FROM current_date": "something in FROM",
    "SELECT *": "without a table",
    "SELECT rank()": "needs OVER",
    "SELECT lower('x') OVER ()": "window function",
    "SELECT 1 !== 2": "operator",
    "SELECT a.* FROM code": "no table",
    "SELECT ehr.code.nothing FROM code": "after a dot",
    "WITH a AS (SELECT 1), a AS (SELECT 2) SELECT 1": "of one name",
    "WITH RECURSIVE a AS (SELECT 1 FROM a) SELECT 1 FROM a": "plain UNION",
    "SELECT a FROM json_to_record('{}') AS x(a regclass)": "from JSON",
    "SELECT p.row_to_json FROM patient p": "after a dot",
    "SELECT (p).row_to_json FROM patient p": "after a dot",
    "SELECT p.count FROM patient p": "after a dot",
    "SELECT nothing FROM patient": "no column",
    "SELECT __cg_k0 FROM patient": "kept for the gateway",
    'SELECT "__CG_k0" FROM patient': "kept for the gateway",
    "SELECT id AS __cg_x FROM patient": "kept for the gateway",
    "SELECT ctid FROM patient": "no column",
    "SELECT name(p), born(p) FROM patient p": r"function born\(\)",
    "SELECT id FROM patient FOR UPDATE": "locking",
    "SELECT id INTO x FROM patient": "into",
    "SELECT id FROM patient TABLESAMPLE SYSTEM (1)": "table sample",
    "SELECT pg_sleep(1)": r"pg_sleep\(\)",
    "SELECT ehr.f(1)": "own schemas",
    "SELECT 1 OPERATOR(ehr.+) 1": "own schemas",
    "SELECT 'x' COLLATE ehr.x": "own schemas",
    "SELECT 1::ehr.t": "own schemas",
    "SELECT 1::unknown_type": "type unknown_type",
    "SELECT id FROM other": "data map",
    "SELECT id FROM evil.patient": "data map",
    "SELECT id FROM db.ehr.patient": "catalogname",
    "WITH x AS (DELETE FROM code RETURNING id) SELECT id FROM x": "no SELECT",
    "WITH RECURSIVE x AS (SELECT 1 AS a), y AS (SELECT a FROM z), z AS (SELECT 1 AS a) SELECT * FROM y": "later",
    "SELECT table_to_xml('ehr.patient', true, true, '')": "table_to_xml",
    "SELECT set_config('role', 'x', false)": "set_config",
    "SELECT current_setting('data_directory')": "current_setting",
    "EXPLAIN SELECT 1": "explain",
    "COPY patient TO STDOUT": "copy",
    "COPY (SELECT 1) TO PROGRAM 'x'": "copy",
    "DO $$BEGIN END$$": "do",
    "LOCK TABLE patient": "lock",
    "LISTEN x": "listen",
    "PREPARE x AS SELECT 1": "prepare",
    "EXECUTE x": "execute",
    "DECLARE c CURSOR FOR SELECT 1": "cursor",
    "CREATE TABLE x (a int)": "create",
    "GRANT ALL ON patient TO x": "grant",
    "TRUNCATE patient": "truncate",
    "SELECT id FROM patient ORDER BY 2": "ORDER BY",
    "SELECT * FROM json_to_record('{}') AS x(a int4, b ehr.t)": "own schemas",
    "SELECT id FROM patient p, patient p": "more than one table",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_we_do_not_know_we_refuse_by_name(text: str) -> None:
    with pytest.raises(Refused, match=f"(?i){REFUSED[text]}"):
        rewritten(text)


@pytest.mark.parametrize(
    "text", ["SELECT 'Smith", "SELEC 1", "SELECT 1\x00; DROP TABLE x", "SELECT '\ud800'"]
)
def test_what_is_not_the_grammar_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(SyntaxRefused) as caught:
        split(text)
    assert "Smith" not in str(caught.value)


def test_a_text_that_could_overflow_the_parser_never_reaches_it() -> None:
    with pytest.raises(Refused, match="longer than"):
        split("SELECT " + "1+" * MAX_BYTES + "1")
    with pytest.raises(Refused, match="nested too deeply"):
        split("SELECT " + "1+" * (MAX_BYTES // 2 - 10) + "1")
    with pytest.raises(Refused, match="statements"):
        split("SELECT 1;" * 65)


def test_every_statement_of_a_message_is_given() -> None:
    assert [s.position for s in split("SELECT 1; SELECT 2")] == [0, 10]
    assert split("  -- nothing") == ()


@pytest.mark.parametrize(
    ("text", "audit"),
    [
        (
            "SELECT name FROM patient AS \"Mrs Smith\" WHERE mrn = 'M-1' /* Smith */ AND id > 5",
            "SELECT name FROM patient id_1 WHERE mrn = $1 AND id > $2",
        ),
        (
            "SELECT id AS smith FROM patient WHERE id = $3",
            "SELECT id AS id_1 FROM patient WHERE id = $1",
        ),
        (
            "SELECT count(*) FROM lab WHERE ts > now() - interval '3 days'",
            "SELECT count(*) FROM lab WHERE ts > (now() - $1::interval)",
        ),
        ("SELECT varchar(3) 'abc'", "SELECT $1::varchar(3)"),
        ("SELECT NULL, true, -1.5, 'x'", "SELECT NULL, $1, $2, $3"),
    ],
)
def test_the_audit_text_has_the_shape_and_no_value(text: str, audit: str) -> None:
    assert rewritten(text).statement_class == audit


def test_what_is_limited_is_said_without_values() -> None:
    assert rewritten("SELECT id FROM patient").limited == ("patient: only the rows you may see",)
    assert rewritten("SELECT * FROM patient").limited == (
        "patient: only the rows you may see; name shown masked",
    )
    assert rewritten("SELECT * FROM code").limited == ()


def test_tables_are_told_with_the_columns_referred_to() -> None:
    done = rewritten("SELECT p.name FROM patient p JOIN lab l ON l.pid = p.id")
    told = {str(read.table): read.columns for read in done.tables}
    assert told == {"ehr.patient": ("id", "name"), "ehr.lab": ("pid",)}
    assert (done.kind, done.read_only) == (Kind.SELECT, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SELECT nope FROM patient", "near character 8: the name is no column"),
        ("SELECT 1 FROM patient p WHERE p.nope = 1", "near character 31: what is after a dot"),
    ],
)
def test_a_misspelt_name_is_told_by_its_place_and_not_repeated(text: str, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        rewritten(text)
    assert "nope" not in str(refused.value)


def test_a_column_that_differs_by_row_says_whether_it_is_ever_shown_in_full() -> None:
    def said(full_when: str) -> tuple[str, ...]:
        column = ColumnView("value", "NULL", "mixed", clear=False, full_when=full_when)
        table = Table(TableName("public", "lab_result"), 1, (Column("value", "text"),))
        view = TableView(table, None, (column,))
        return limited((TableRead(table.name, ("value",), view),))

    assert said("false") == ("lab_result: value never shown in full",)
    assert said("this.mine") == ("lab_result: value in full on some rows only",)
