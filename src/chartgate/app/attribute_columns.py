"""Which column can be which row attribute: the data map's SQL types against the policy's.

The rule kept: a column that does not mean what its attribute says is refused when the map is
loaded or the source's catalog is read, by map, table and attribute, never in a statement. An
attribute that is more than a column by itself is cast to what it must be; but never an instant or
a date, whose casts depend on the session's time zone: there the type must be right as it is.
"""

import re
from collections.abc import Mapping
from typing import Final

from chartgate.datamap.model import DataMap, MappedTable
from chartgate.errors import Misconfigured
from chartgate.sql.qualify import follows_time_zone
from chartgate.sql.views import Table
from chartgate.targets.sql_values import date_sql

_COLUMN: Final = re.compile(r'this\.(?:([a-z_][a-z0-9_]*)|"((?:[^"]|"")+)")\Z')
_SIZE: Final = re.compile(r"\([^)]*\)")
_NUMERIC: Final = re.compile(r"numeric\(([0-9]+)(?:,(-?[0-9]+))?\)\Z")

_TEXTS: Final = frozenset({"text", "character varying", "character", "citext", "name", "uuid"})
_IDS: Final = _TEXTS | {"smallint", "integer", "bigint"}
_DATE: Final = "date"
# Kind of attribute -> what the map may call its SQL -> types of the catalog that are that.
_FITS: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "String": {"text": _TEXTS},
    "Long": {"bigint": frozenset({"smallint", "integer", "bigint"})},
    "Bool": {"boolean": frozenset({"boolean"})},
    "datetime": {
        "timestamptz": frozenset({"timestamp with time zone"}),
        _DATE: frozenset({_DATE}),
    },
    "decimal": {"numeric": frozenset({"numeric"})},
}
_ENTITY: Final[Mapping[str, frozenset[str]]] = {"text": _IDS}
_CASTS: Final[Mapping[str, str]] = {
    "bigint": "int8", "boolean": "bool", "numeric": "numeric",
}  # fmt: skip
# All there is of a type; ``infinity`` is in it.
_RANGES: Final[Mapping[str, str]] = {
    "timestamptz": "'(,)'::pg_catalog.tstzrange",
    _DATE: "'(,)'::pg_catalog.daterange",
}
# Digits before and after the point that a decimal holds whatever they are.
_WHOLE_DIGITS: Final = 14
_FRACTION_DIGITS: Final = 4


class UnfitColumn(Misconfigured):
    """A column or an SQL type of the data map cannot be the row attribute it is mapped to."""

    code = "unfit_column"


def attribute_sql(expression: str, declared: str | None, kind: str) -> str:
    """The attribute's SQL as a filter reads it. Raises ``UnfitColumn`` with the reason alone."""
    fits = _FITS.get(kind, _ENTITY)
    type_ = declared or next(iter(fits))
    if type_ not in fits:
        raise UnfitColumn(f"type {type_} is none that a {kind} can have ({', '.join(fits)})")
    typed = expression
    if _column(expression) is None:
        if type_ in _CASTS:
            typed = f"({expression})::pg_catalog.{_CASTS[type_]}"
        elif type_ in _RANGES:
            # A cast would read the session's time zone, which whoever asks may set. A range takes
            # its own type and no other: PostgreSQL refuses the statement instead.
            known = f"pg_catalog.elem_contained_by_range(({expression}), {_RANGES[type_]})"
            typed = f"CASE WHEN {known} THEN ({expression}) END"
    return date_sql(typed) if type_ == _DATE else typed


def member_sql(expression: str, kind: str) -> str:
    """A set's member as a filter reads it."""
    casts = {"Long": "int8", "Bool": "bool"}
    return f"({expression})::pg_catalog.{casts[kind]}" if kind in casts else expression


def check_columns(
    table: MappedTable, live: Table, data_map: DataMap, kinds: Mapping[str, str]
) -> None:
    """Compare with the catalog; raises ``UnfitColumn`` naming map, table and attribute."""
    types = {column.name: column.type_sql for column in live.columns}
    _check_forms(table, types, data_map)
    for name, expression in table.attributes.items():
        column = _column(expression)
        if column is None or column not in types:
            continue
        kind = kinds.get(name, "String")
        fits = _FITS.get(kind, _ENTITY)
        declared = table.attribute_types.get(name) or next(iter(fits))
        if not _is(types[column], fits[declared]):
            raise UnfitColumn(
                f"data map {data_map.source}: tables.{table.name}: the column {column} is "
                f"{types[column]}, which cannot be the row attribute {name} ({kind})"
                f"{_HINTS.get(kind, '')}"
            )


def _check_forms(table: MappedTable, types: Mapping[str, str], data_map: DataMap) -> None:
    instants = {
        name for name, type_ in types.items() if _is(type_, _FITS["datetime"]["timestamptz"])
    }
    for name, label in table.columns.items():
        for form in (label.summary, label.masked):
            if form is not None and name in types and follows_time_zone(form, instants):
                raise UnfitColumn(
                    f"data map {data_map.source}: tables.{table.name}.columns.{name}: what is shown "
                    "of an instant follows the session's time zone, which whoever asks may set: "
                    "write date_trunc('day', …, 'UTC') or … AT TIME ZONE 'UTC'"
                )


_HINTS: Final[Mapping[str, str]] = {
    "datetime": '; for a date say type = "date", for a timestamp without time zone write '
    "this.… AT TIME ZONE and the zone it was written in",
    "decimal": f"; it takes numeric with at most {_WHOLE_DIGITS} digits before and "
    f"{_FRACTION_DIGITS} after the point",
}


def _column(expression: str) -> str | None:
    """The column's name, when the expression is one column of the row and nothing else."""
    found = _COLUMN.match(expression.strip())
    if found is None:
        return None
    plain, quoted = found.groups()
    return plain if plain is not None else quoted.replace('""', '"')


def _is(type_sql: str, fits: frozenset[str]) -> bool:
    base = _SIZE.sub("", type_sql).rpartition(".")[2]
    if base not in fits:
        return False
    if base != "numeric":
        return True
    found = _NUMERIC.match(type_sql)
    if found is None:
        return False
    precision, scale = int(found[1]), int(found[2] or 0)
    return scale <= _FRACTION_DIGITS and precision - scale <= _WHOLE_DIGITS
