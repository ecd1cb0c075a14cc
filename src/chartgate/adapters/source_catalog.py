"""Reads the source's tables and system catalogs once, at start-up: what views are built from."""

from typing import Final

import psycopg

from chartgate.app.gate_session import SYSTEM_SCHEMAS, Source
from chartgate.sql.views import Column, Table, TableName

_COLUMNS: Final = """
SELECT n.nspname, c.relname, c.oid::int8, a.attname,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       NOT a.attnotnull, a.atthasdef OR a.attidentity <> '',
       COALESCE(a.attnum = ANY (i.indkey), false)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
 WHERE n.nspname = ANY (%s) AND c.relkind = ANY (%s)
 ORDER BY n.nspname, c.relname, a.attnum
"""


def read_source(connection: psycopg.Connection, schema: str) -> Source:
    """The base tables of ``schema``, and the system catalogs with their views."""
    return Source(
        tables=_tables(connection, (schema,), ("r",)),
        catalog=_tables(connection, SYSTEM_SCHEMAS, ("r", "v")),
    )


def _tables(
    connection: psycopg.Connection, schemas: tuple[str, ...], kinds: tuple[str, ...]
) -> dict[TableName, Table]:
    found: dict[TableName, tuple[int, list[Column], list[str]]] = {}
    rows = connection.execute(_COLUMNS, (list(schemas), list(kinds)))
    for schema, name, oid, column, type_sql, nullable, has_default, is_key in rows:
        _, columns, key = found.setdefault(TableName(schema, name), (oid, [], []))
        columns.append(Column(column, type_sql, nullable, has_default))
        if is_key:
            key.append(column)
    return {
        name: Table(name, oid, tuple(columns), tuple(key))
        for name, (oid, columns, key) in found.items()
    }
