"""Puts a hospital into a database that knows nothing of Chartgate.

Rule kept: the upstream database holds the hospital's own tables, their owner, who cannot log in,
and one service account with rights on rows alone: no CREATE, no TEMP, no superuser, no BYPASSRLS.
A load is one transaction: either the whole hospital is there or nothing is.
"""

import time
from collections.abc import Iterable, Sequence
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import sql

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.demo.generator import Hospital
from chartgate.demo.generator_schema import BY_NAME, ddl_keys, ddl_tables
from chartgate.errors import Misconfigured

DATABASE = "hospital"
OWNER = "hospital_owner"
SERVICE = "hospital_app"


class UnloadableRow(Misconfigured):
    """A row that the table does not take; the message names the table and never a value."""

    code = "unloadable_row"


class TableRows(NamedTuple):
    """Rows of one table for COPY; values may be text, PostgreSQL parses them."""

    table: str
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]


class Source(NamedTuple):
    """A hospital, ready to load."""

    name: str
    """Name of its data map."""
    title: str
    tables_ddl: str
    tables: Iterable[TableRows]
    keys_ddl: str


class Loaded(NamedTuple):
    """What a load did."""

    tables: int
    rows: int
    seconds: float


def hospital_source(hospital: Hospital) -> Source:
    """The generated hospital as something to load."""
    return Source(
        name="hospital",
        title="Demo hospital",
        tables_ddl=ddl_tables(),
        tables=[
            TableRows(name, BY_NAME[name].column_names, rows)
            for name, rows in hospital.rows.items()
        ],
        keys_ddl=ddl_keys(),
    )


def is_loaded(server: EmbeddedPostgres, *, database: str = DATABASE) -> str | None:
    """Name of the source the database was loaded from; ``None`` when there is nothing yet."""
    with psycopg.connect(server.conninfo("postgres", server.superuser)) as connection:
        row = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
            (database,),
        ).fetchone()
    return None if row is None or row[0] is None else str(row[0])


def load(
    server: EmbeddedPostgres,
    source: Source,
    *,
    database: str = DATABASE,
    owner: str = OWNER,
    service: str = SERVICE,
) -> Loaded:
    """Create roles and database afresh and fill it; an older database of that name is dropped."""
    started = time.monotonic()
    _create(server, database, owner, service)
    count = rows = 0
    with psycopg.connect(server.conninfo(database, server.superuser)) as connection:
        _run(connection, "SET LOCAL ROLE {}", owner)
        connection.execute(source.tables_ddl.encode())
        for table in source.tables:
            rows += _copy(connection, table)
            count += 1
        connection.execute(source.keys_ddl.encode())
        _run(connection, "GRANT USAGE ON SCHEMA public TO {}", service)
        _run(
            connection,
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}",
            service,
        )
    with psycopg.connect(
        server.conninfo(database, server.superuser), autocommit=True
    ) as connection:
        connection.execute("ANALYZE")
        # Written last: a database without it is a load that did not end.
        connection.execute(
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), source.name)
        )
    return Loaded(count, rows, time.monotonic() - started)


def _create(server: EmbeddedPostgres, database: str, owner: str, service: str) -> None:
    with psycopg.connect(
        server.conninfo("postgres", server.superuser), autocommit=True
    ) as connection:
        _run(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", database)
        known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role, login in ((owner, "NOLOGIN"), (service, "LOGIN")):
            verb = "ALTER" if role in known else "CREATE"
            connection.execute(
                sql.SQL(
                    "{} ROLE {} {} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
                ).format(sql.SQL(verb), sql.Identifier(role), sql.SQL(login))
            )
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(database), sql.Identifier(owner)
            )
        )
        # PUBLIC may connect everywhere and make temporary tables: take both away.
        for name in (database, "postgres", "template1"):
            _run(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
        connection.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                sql.Identifier(database), sql.Identifier(service)
            )
        )
    with psycopg.connect(
        server.conninfo(database, server.superuser), autocommit=True
    ) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        _run(connection, "GRANT USAGE, CREATE ON SCHEMA public TO {}", owner)


def _run(
    connection: psycopg.Connection[tuple[object, ...]], text: LiteralString, name: str
) -> None:
    connection.execute(sql.SQL(text).format(sql.Identifier(name)))


def _copy(connection: psycopg.Connection[tuple[object, ...]], table: TableRows) -> int:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.table), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    count = 0
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in table.rows:
                copy.write_row(row)
                count += 1
    except (psycopg.DataError, psycopg.IntegrityError):
        # The server's own message quotes the value, which may be a patient's.
        raise UnloadableRow(f"{table.table}: a value does not fit its column") from None
    return count
