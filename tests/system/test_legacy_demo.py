"""All three hospitals in a real server: loaded in time, closed to all but one account, mapped."""

import random
import time
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.datamap.model import DataMap
from chartgate.datamap.read import read_map
from chartgate.demo import legacy, synthea
from chartgate.demo.generator import generate
from chartgate.demo.generator_schema import BY_NAME
from chartgate.demo.legacy import TableRows

pytestmark = pytest.mark.system
TODAY = date(2026, 11, 22)
SETS = {"synthea": "dbt-synthea-27", "smart-r4": "smart-r4-csv"}
CATEGORIES = frozenset(
    [
        "demographics",
        "gov_ids",
        "record_ids",
        "insurance",
        "scheduling",
        "clinical_summary",
        "notes",
        "labs",
        "imaging",
        "medications",
        "vitals_nursing",
        "billing",
        "behavioral_health",
        "psychotherapy_notes",
        "sud_part2",
        "repro_sti_hiv",
        "genetic",
        "protected_person",
        "audit_log",
        "technical",
    ]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(tmp_path_factory.mktemp("legacy") / "server", roles=(legacy.SERVICE,))
    made.start()
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def hospital(server: EmbeddedPostgres) -> str:
    started = time.monotonic()
    made = generate(random.Random(7), TODAY)
    legacy.load(server, legacy.hospital_source(made))
    assert time.monotonic() - started < 15
    return legacy.DATABASE


@pytest.fixture(scope="module")
def clinics(server: EmbeddedPostgres, shared_dir: Path) -> dict[str, str]:
    for name, folder in SETS.items():
        made = synthea.source(shared_dir / "data" / folder, random.Random(7), TODAY)
        legacy.load(server, made, database=name)
    return {name: name for name in SETS}


def as_service(server: EmbeddedPostgres, database: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(server.conninfo(database, legacy.SERVICE), autocommit=True)


def data_map(path: Path) -> DataMap:
    text = tomllib.loads(path.read_text("utf-8"))
    sets = {
        name: frozenset(synthea.read_codes((path.parent / file).read_text("utf-8")))
        for name, file in text["code_sets"].items()
    }
    types = {
        "care_team": "Set<User>",
        "departments": "Set<Department>",
        "queues": "Set<Department>",
        "age_bands": "Set<AgeBand>",
    }
    return read_map(text, sets, categories=CATEGORIES, relation_types=types)


def check_every_expression(
    connection: psycopg.Connection[tuple[object, ...]], read: DataMap
) -> None:
    """Run each form, label, attribute and relation over every row: none may raise."""
    for name, table in read.tables.items():
        types = dict(
            connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0",
                (name,),
            ).fetchall()
        )
        assert set(types) == set(table.columns)
        cells = [
            f"({form})::{types[column]}"
            for column, label in table.columns.items()
            for form in (label.summary, label.masked)
            if form
        ]
        flags = [label.when for label in table.row_labels]
        values = list(table.attributes.values())
        if table.patient:
            key = table.patient
            flags += [label.when.replace("{patient}", key) for label in read.patient_labels]
            values += [
                f"(SELECT count({r.value}) FROM {r.source} WHERE {r.where.replace('{patient}', key)})"
                for r in read.relations.values()
            ]
        parts = [f"count({cell})" for cell in cells]
        parts += [f"count(*) FILTER (WHERE {flag})" for flag in flags]
        parts += [f"count({value})" for value in values]
        if parts:
            connection.execute(f"SELECT {', '.join(parts)} FROM {name} this".encode())


def test_the_generated_hospital_is_there_and_known_by_name(
    server: EmbeddedPostgres, hospital: str
) -> None:
    assert legacy.is_loaded(server, database=hospital) == "hospital"
    assert legacy.is_loaded(server, database="elsewhere") is None
    with as_service(server, hospital) as connection:
        assert connection.execute("SELECT count(*) FROM patient").fetchone() == (2400,)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (n integer)",
        "CREATE TEMP TABLE mine (n integer)",
        "CREATE SCHEMA mine",
        "TRUNCATE patient",
        "ALTER TABLE patient ADD COLUMN n integer",
        "DROP TABLE allergy",
        "SET ROLE hospital_owner",
        "CREATE ROLE mine",
        "CREATE EXTENSION dblink",
        "COPY patient TO '/tmp/patients'",
    ],
)
def test_the_service_account_has_rights_on_rows_alone(
    server: EmbeddedPostgres, hospital: str, statement: str
) -> None:
    with (
        as_service(server, hospital) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_the_service_account_reaches_no_other_database(
    server: EmbeddedPostgres, hospital: str
) -> None:
    assert hospital
    for name in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            as_service(server, name)


def test_the_database_knows_nothing_of_us(server: EmbeddedPostgres, hospital: str) -> None:
    with as_service(server, hospital) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') "
            "AND c.relkind IN ('v', 'm', 'f')"
        ).fetchone()
        assert found == (0,)
        extensions = connection.execute("SELECT extname FROM pg_extension").fetchall()
        assert extensions == [("plpgsql",)]


def test_every_expression_of_the_hospitals_map_runs_on_every_row(
    server: EmbeddedPostgres, hospital: str, project_root: Path
) -> None:
    with as_service(server, hospital) as connection:
        check_every_expression(connection, data_map(project_root / "maps" / "hospital.toml"))


@pytest.mark.parametrize("name", SETS)
def test_every_expression_of_the_synthea_maps_runs_on_every_row(
    server: EmbeddedPostgres,
    clinics: dict[str, str],
    project_root: Path,
    shared_dir: Path,
    tmp_path: Path,
    name: str,
) -> None:
    folder = shared_dir / "data" / SETS[name]
    read = data_map(synthea.prepare_map(folder, project_root / "maps", tmp_path))
    with as_service(server, clinics[name]) as connection:
        check_every_expression(connection, read)
        # What the labels leave open: some of the chart is ordinary, some of it is not.
        for table in ("conditions", "encounters", "procedures", "observations"):
            labels = " OR ".join(f"({label.when})" for label in read.tables[table].row_labels)
            row = connection.execute(
                f"SELECT count(*) FILTER (WHERE {labels}), count(*) FROM {table} this".encode()
            ).fetchone()
            assert row is not None
            assert 0 < int(str(row[0])) < int(str(row[1])), table


@pytest.mark.parametrize("name", SETS)
def test_the_synthea_tables_hold_the_files_rows(
    server: EmbeddedPostgres, clinics: dict[str, str], shared_dir: Path, name: str
) -> None:
    made = synthea.source(shared_dir / "data" / SETS[name], random.Random(7), TODAY)
    with as_service(server, clinics[name]) as connection:
        for table in made.tables:
            found = connection.execute(f"SELECT count(*) FROM {table.table}".encode()).fetchone()
            assert found == (sum(1 for _ in table.rows),)


def test_a_value_that_does_not_fit_is_named_by_table_alone(server: EmbeddedPostgres) -> None:
    made = legacy.hospital_source(generate(random.Random(1), TODAY, patients=10))
    columns = BY_NAME["allergy"].column_names
    extra = TableRows("allergy", columns, [("x-secret", 1, "a", None, "mild", TODAY)])
    with pytest.raises(legacy.UnloadableRow, match=r"^allergy: a value does not fit") as caught:
        legacy.load(server, made._replace(tables=[*made.tables, extra]), database="torn")
    assert "secret" not in str(caught.value)
    assert legacy.is_loaded(server, database="torn") is None
