"""Hidden rows decide nothing: not the rows, not the count, and not whether there is an error.

Every attack runs on two worlds that differ only in what policy hides. Through the rewriter both
must answer alike, errors included; on the bare tables most of them tell the worlds apart, which
shows that the attacks are real.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.errors import Refused
from chartgate.sql.parse import split
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import Rewritten
from chartgate.sql.views import Column, ColumnView, Table, TableName, TableView

pytestmark = pytest.mark.system

TYPES = {"pid": "integer", "tax_no": "text", "born": "date", "unit": "text", "k": "integer"}
# (1) a semi-join always runs after the conditions of the scan; a plain one may
POLICIES = ("this.unit = 'er'", "EXISTS (SELECT 1 FROM w.mine m WHERE m.unit = this.unit)")
ATTACKS = """
SELECT pid FROM person WHERE 1 / (CASE WHEN tax_no LIKE 'H%' THEN 0 ELSE 1 END) = 1
SELECT pid FROM person WHERE pid = 31 AND 9 / (pid - 31) > 0
SELECT pid FROM person WHERE 9 / (k - 31) > 0
SELECT pid FROM person WHERE k = 31 AND 9 / (k - 31) > 0
SELECT pid FROM person WHERE CAST(unit AS int) > 0 AND unit <> 'er'
SELECT pid FROM person WHERE unit = 'icu' AND substring(born::text, 1, -1) = 'x'
SELECT pid FROM person WHERE unit = 'icu' AND repeat('x', k * 100000000) = ''
SELECT pid FROM person WHERE unit = 'icu' AND born = ('x' || born::text)::date
SELECT a.pid FROM person a JOIN code c ON a.k = c.k AND 9 / (a.k - 31) > 0
SELECT a.pid FROM code c LEFT JOIN person a ON 9 / (a.k - 31) = c.k
SELECT pid FROM (SELECT pid, 9 / (k - 31) AS x FROM person) z WHERE x > 0
SELECT pid FROM (SELECT pid, 9 / (k - 31) AS x, unit FROM person) z WHERE unit = 'icu' AND x > 0
SELECT c.k FROM code c WHERE EXISTS (SELECT 1 FROM person WHERE 9 / (k - 31) > c.k)
SELECT c.k FROM code c WHERE c.k IN (SELECT 9 / (k - 31) FROM person)
SELECT c.k, x.v FROM code c, LATERAL (SELECT 9 / (p.k - 31) AS v FROM person p) x WHERE x.v > 0
SELECT pid FROM person p WHERE (SELECT c.k FROM code c WHERE c.k > 0 AND p.k = 31) IS NOT NULL
SELECT unit, count(*) FROM person GROUP BY unit HAVING 9 / (length(unit) - 3) > 0
WITH z AS (SELECT pid, k FROM person) SELECT pid FROM z WHERE 9 / (k - 31) > 0
WITH z AS NOT MATERIALIZED (SELECT pid, k, unit FROM person) SELECT pid FROM z WHERE k = 31 AND 9 / (k - 31) > 0
SELECT pid FROM person, generate_series(1, 9 / (k - 31)) g
SELECT pid FROM person WHERE tax_no < 'I' ORDER BY pid
SELECT count(*) FROM person WHERE tax_no LIKE 'H%'
SELECT max(tax_no), min(tax_no) FROM person
SELECT pid, rank() OVER (ORDER BY tax_no) FROM person
SELECT unit FROM person UNION SELECT tax_no FROM person
SELECT jsonb_agg(x) FROM person x
SELECT x::text FROM person x
SELECT string_agg(tax_no, ',') FROM person
SELECT (SELECT max(tax_no) FROM person)
SELECT left(tax_no, 9) || '' AS colour FROM person
WITH person AS (TABLE person) TABLE person
SELECT count(*) FROM person a FULL JOIN person b ON a.tax_no = b.tax_no
SELECT pid FROM person WHERE tax_no ~ '^H'
SELECT pid FROM person WHERE born < '1970-01-01' AND unit = 'icu'
SELECT pid FROM person NATURAL JOIN code
SELECT DISTINCT unit FROM person
SELECT pid FROM person ORDER BY 9 / (k - 31)
SELECT 9 / (k - 31) FROM person
SELECT sum(9 / (k - 31)) FROM person
SELECT CASE WHEN pid > 0 THEN 9 / (k - 31) END FROM person WHERE unit = 'icu'
SELECT pid FROM person WHERE (k, unit) = (31, 'icu')
SELECT pid FROM person WHERE coalesce(tax_no, '') > 'A'
SELECT pid FROM person WHERE date_trunc('x' || unit, born::timestamp) IS NULL
SELECT pid FROM person TABLESAMPLE BERNOULLI (100)
SELECT ctid, xmin FROM person
SELECT tableoid FROM person
SELECT pg_column_size(tax_no) FROM person
SELECT born(x) FROM person x
SELECT x.row_to_json FROM person x
SELECT (x).count FROM person x
SELECT table_to_xml('w.person', true, true, '')
SELECT histogram_bounds FROM pg_stats
SELECT * FROM pg_catalog.pg_stat_activity
TABLE person_2019_backup
SELECT set_config('x.y', tax_no, false) FROM person
SELECT pg_sleep(CASE WHEN k = 31 THEN 1 ELSE 0 END) FROM person
SELECT lo_import('/etc/passwd')
SELECT pid INTO copy FROM person
SELECT pid FROM person FOR UPDATE
SELECT 'x'::w.person FROM person
SELECT 'person'::regclass::text FROM person
SELECT pid FROM ONLY person
WITH d AS (DELETE FROM person RETURNING *) SELECT * FROM d
SELECT pid FROM person WHERE unit OPERATOR(w.=) 'er'
SELECT pid FROM person WHERE "__cg_k0" = '3'
SELECT p.__cg_k0 FROM person p
SELECT w.f(person) FROM person
SELECT * FROM xmltable('/a' PASSING '<a/>' COLUMNS b text)
EXPLAIN SELECT * FROM person
COPY person TO STDOUT
DO $$BEGIN PERFORM 1 FROM w.person; END$$
SET ROLE owner
SET session_replication_role = replica
SET search_path_evil = x
LISTEN x
CALL w.p()
LOCK TABLE person
PREPARE x AS SELECT * FROM person
DECLARE c CURSOR FOR SELECT * FROM person
""".strip().splitlines()


def view(policy: str) -> dict[str, TableView]:
    columns = tuple(Column(c, t) for c, t in TYPES.items())
    person = TableView(
        Table(TableName("w", "person"), 1, columns),
        policy,
        tuple(
            ColumnView(c, "CAST(NULL AS text)", "withheld", clear=False, full_when="false")
            if c == "tax_no"
            else ColumnView(c, f"this.{c}", "full", clear=True, full_when=None)
            for c in TYPES
        ),
        "this.pid::text",
    )
    code = TableView(
        Table(TableName("w", "code"), 2, (Column("k", "integer"),)),
        None,
        (ColumnView("k", "this.k", "full", clear=True, full_when=None),),
    )
    return {"person": person, "code": code}


class Person:
    def __init__(self, policy: str) -> None:
        self.tables = view(policy)

    def resolve(self, schema: str | None, name: str) -> TableName:
        if schema not in (None, "w") or name not in self.tables:
            raise Refused("not in the data map")
        return TableName("w", name)

    def read(self, table: TableName) -> TableView:
        return self.tables[table.name]

    def write(self, *_: Any) -> Any:
        raise Refused("reads only")


SETUP = """
CREATE SCHEMA w;
CREATE TABLE w.person (pid int, tax_no text, born date, unit text, k int);
CREATE TABLE w.code (k int); INSERT INTO w.code VALUES (0), (1), (2), (9), (31);
CREATE TABLE w.mine (unit text); INSERT INTO w.mine VALUES ('er');
CREATE TABLE w.person_2019_backup (tax_no text);
INSERT INTO w.person SELECT i, {tax}, date '1960-01-01' + i, 'er', 1 + i % 7
  FROM generate_series(1, 20) i;
{hidden}
CREATE INDEX ON w.person (k); CREATE INDEX ON w.person (unit); ANALYZE;
"""
WORLDS = {
    "a": SETUP.format(tax="'A' || i", hidden=""),
    "b": SETUP.format(
        tax="'H' || i",
        hidden="INSERT INTO w.person SELECT i, 'H' || i, date '1960-01-01' + i, 'icu', 31"
        " FROM generate_series(31, 60) i;",
    ),
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[psycopg.Connection[Any]]]:
    server = EmbeddedPostgres(Path(tmp_path_factory.mktemp("pg")) / "server")
    server.start()
    with psycopg.connect(server.conninfo("postgres", "postgres"), autocommit=True) as root:
        for name in WORLDS:
            root.execute(f"CREATE DATABASE {name}".encode())
    connections = []
    for name, setup in WORLDS.items():
        connection = psycopg.connect(server.conninfo(name, "postgres"), autocommit=True)
        connection.execute(setup.encode())
        connection.execute("SET statement_timeout = '20s'")
        connections.append(connection)
    yield connections
    for connection in connections:
        connection.close()
    server.destroy()


def answer(connection: psycopg.Connection[Any], sql: str, path: str) -> object:
    """Rows as a multiset, or the error's SQLSTATE."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path = {path}")
        try:
            cursor.execute(sql.encode())
            return sorted(map(repr, cursor.fetchall())) if cursor.description else "done"
        except psycopg.Error as exc:
            return exc.sqlstate


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_two_worlds_that_differ_in_hidden_rows_answer_alike(
    worlds: list[psycopg.Connection[Any]], attack: str, policy: str
) -> None:
    try:
        done = rewrite(split(attack)[0], Person(policy))
    except Refused:
        return
    assert isinstance(done, Rewritten)
    for sql in (done.sql, done.companion):
        if sql is not None:
            one, other = (answer(world, sql, "pg_catalog") for world in worlds)
            assert one == other, sql


def test_the_attacks_work_on_the_bare_tables(worlds: list[psycopg.Connection[Any]]) -> None:
    told = 0
    for attack in ATTACKS[:42]:
        one, other = (answer(world, attack, "w") for world in worlds)
        told += one != other
    assert told > 35


REFUSED = ATTACKS[ATTACKS.index("SELECT pid FROM person TABLESAMPLE BERNOULLI (100)") :]


@pytest.mark.parametrize("attack", [a for a in REFUSED if "ONLY" not in a and "regclass" not in a])
def test_what_has_no_safe_form_is_refused(attack: str) -> None:
    with pytest.raises(Refused):
        rewrite(split(attack)[0], Person(POLICIES[0]))


def test_harmless_conditions_keep_their_indexes() -> None:
    """No barrier where nothing can raise: the point of judging expressions at all."""
    for sql in (
        "SELECT pid FROM person WHERE k = 3 AND unit IN ('er', 'icu') AND born >= '1960-01-01'",
        "SELECT pid FROM person p JOIN code c ON c.k = p.k WHERE p.unit LIKE 'e%'",
        "SELECT pid, 9 / k FROM person WHERE pid = $1 ORDER BY unit",
        "SELECT unit, sum(k) FROM person WHERE born > now() - interval '7 days' GROUP BY unit",
        "SELECT pid FROM person WHERE k = ANY ($1) AND pid::text = '3'",
    ):
        done = rewrite(split(sql)[0], Person(POLICIES[0]))
        assert isinstance(done, Rewritten)
        assert not done.barrier, sql
