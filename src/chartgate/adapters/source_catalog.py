"""Reads the source's tables and system catalogs once, at start-up: what views are built from."""

from collections.abc import Mapping
from typing import Final

import psycopg

from chartgate.app.session_views import SYSTEM_SCHEMAS, Source
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

_REFERENCES: Final = """
SELECT n.nspname, c.relname, a.attname, fn.nspname, fc.relname, fa.attname
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
  JOIN pg_catalog.pg_class fc ON fc.oid = k.confrelid
  JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
  JOIN pg_catalog.pg_attribute fa ON fa.attrelid = fc.oid AND fa.attnum = k.confkey[1]
 WHERE k.contype = 'f' AND pg_catalog.cardinality(k.conkey) = 1
   AND c.relkind = 'r' AND fc.relkind = 'r'
 ORDER BY k.conname, k.oid
"""
_Place = tuple[str, str, str]


def read_source(connection: psycopg.Connection, schema: str) -> Source:
    """The base tables of ``schema``, and the system catalogs with their views."""
    # With an empty path, types outside pg_catalog are named with their schema, as they must be sent.
    connection.execute("SELECT pg_catalog.set_config('search_path', '', false)")
    return Source(
        tables=_tables(connection, (schema,), ("r",)),
        catalog=_tables(connection, SYSTEM_SCHEMAS, ("r", "v")),
    )


def _tables(
    connection: psycopg.Connection, schemas: tuple[str, ...], kinds: tuple[str, ...]
) -> dict[TableName, Table]:
    found: dict[TableName, tuple[int, list[Column], list[str]]] = {}
    references: dict[_Place, _Place] = {}
    for row in connection.execute(_REFERENCES):
        # Of several foreign keys on one column the first by name counts.
        references.setdefault(row[:3], row[3:])
    rows = connection.execute(_COLUMNS, (list(schemas), list(kinds)))
    for schema, name, oid, column, type_sql, nullable, has_default, is_key in rows:
        _, columns, key = found.setdefault(TableName(schema, name), (oid, [], []))
        domain = ".".join(_leads_to((schema, name, column), references))
        columns.append(Column(column, type_sql, nullable, has_default, domain))
        if is_key:
            key.append(column)
    return {
        name: Table(name, oid, tuple(columns), tuple(key))
        for name, (oid, columns, key) in found.items()
    }


def _leads_to(place: _Place, references: Mapping[_Place, _Place]) -> _Place:
    """Where foreign keys end; in a circle, at its least member, so that all agree."""
    seen = []
    while place in references and place not in seen:
        seen.append(place)
        place = references[place]
    return min(seen[seen.index(place) :]) if place in seen else place
