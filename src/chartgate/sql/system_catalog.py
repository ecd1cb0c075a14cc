"""The system catalogs as one person's views: only relations the person may see appear.

psql, JDBC and the Python drivers describe the database from ``pg_catalog`` and
``information_schema``; those relations are therefore tables like any other, about no patient, with
rows limited to visible objects. Statistics and access lists are blank: they count and quote rows
that policy hides.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from chartgate.sql.allow import SETTINGS
from chartgate.sql.system_columns import COLUMNS
from chartgate.sql.system_objects import FIRST_NORMAL_OID, Scene, array, literal
from chartgate.sql.views import Column, ColumnView, Table, TableName, TableView

CATALOG_SCHEMA: Final = "pg_catalog"
INFORMATION_SCHEMA: Final = "information_schema"
CATALOG_RELATIONS: Final[frozenset[TableName]] = frozenset(COLUMNS)
"""The relations to introspect on the live server, and to hand to ``system_views``."""


def _system_only(scene: Scene) -> str:
    return f"this.oid < {FIRST_NORMAL_OID}"


def _none(scene: Scene) -> str:
    return "false"


def _settings(scene: Scene) -> str:
    names = array(map(literal, sorted(SETTINGS)), "text")
    return f"pg_catalog.lower(this.name) = ANY ({names})"


def _owners(scene: Scene) -> str:
    return (
        "this.oid IN (SELECT __cg_c.relowner FROM pg_catalog.pg_class AS __cg_c"
        f" WHERE __cg_c.oid = ANY ({scene.visible}))"
    )


_PREDICATES: Final[Mapping[str, Callable[[Scene], str | None]]] = MappingProxyType(
    {
        "pg_am": _system_only,
        "pg_attrdef": lambda scene: scene.is_table("this.adrelid"),
        "pg_attribute": lambda scene: scene.is_relation("this.attrelid"),
        # Who is a member of which server role says how the site is run, not what one may read.
        "pg_auth_members": _none,
        "pg_class": lambda scene: scene.is_relation("this.oid"),
        "pg_collation": _system_only,
        "pg_constraint": lambda scene: scene.is_constraint("this"),
        "pg_database": lambda scene: "this.datname = pg_catalog.current_database()",
        "pg_description": lambda scene: scene.is_description("this"),
        "pg_enum": lambda scene: scene.is_type("this.enumtypid"),
        "pg_index": lambda scene: scene.is_table("this.indrelid"),
        "pg_inherits": lambda scene: (
            f"{scene.is_relation('this.inhrelid')} AND {scene.is_relation('this.inhparent')}"
        ),
        "pg_namespace": lambda scene: scene.is_schema("this.nspname"),
        "pg_opclass": _system_only,
        # Row security on the server is not what limits the person; showing it would mislead.
        "pg_policy": _none,
        "pg_proc": _system_only,
        "pg_publication": _none,
        "pg_publication_namespace": _none,
        "pg_publication_rel": _none,
        "pg_range": lambda scene: f"this.rngtypid < {FIRST_NORMAL_OID}",
        "pg_roles": _owners,
        "pg_sequence": lambda scene: scene.is_sequence("this.seqrelid"),
        "pg_settings": _settings,
        "pg_statistic_ext": lambda scene: scene.is_table("this.stxrelid"),
        "pg_tables": lambda scene: scene.is_named("this.schemaname", "this.tablename"),
        "pg_tablespace": _system_only,
        "pg_type": lambda scene: scene.is_type("this.oid"),
        "schemata": lambda scene: scene.is_schema("this.schema_name"),
        "tables": lambda scene: scene.is_named("this.table_schema", "this.table_name"),
        "columns": lambda scene: scene.is_named("this.table_schema", "this.table_name"),
        "table_constraints": lambda scene: scene.is_named("this.table_schema", "this.table_name"),
        "key_column_usage": lambda scene: scene.is_named("this.table_schema", "this.table_name"),
        "referential_constraints": lambda scene: (
            "(this.constraint_schema, this.constraint_name) IN (SELECT __cg_n.nspname,"
            " __cg_k.conname FROM pg_catalog.pg_constraint AS __cg_k JOIN pg_catalog.pg_namespace"
            " AS __cg_n ON __cg_n.oid = __cg_k.connamespace"
            f" WHERE {scene.is_constraint('__cg_k')})"
        ),
    }
)

# What stands in place of a column: a constant of its type, or NULL where no constant is named.
_BLANK: Final[Mapping[str, Mapping[str, str | None]]] = MappingProxyType(
    {
        "pg_class": {
            "reltuples": "-1",  # "unknown", as before the first ANALYZE
            "relpages": "0",
            "relallvisible": "0",
            "relallfrozen": "0",
            "relacl": None,
            # Rules and triggers live in catalogs that stay hidden; psql must not go and ask.
            "relhasrules": "false",
            "relhastriggers": "false",
            "relrowsecurity": "false",
            "relforcerowsecurity": "false",
        },
        "pg_attribute": {"attacl": None},
        "pg_database": {"datacl": None},
        "pg_namespace": {"nspacl": None},
        "pg_proc": {"proacl": None},
        "pg_type": {"typacl": None},
        "pg_roles": {
            "rolsuper": "false",
            "rolinherit": "true",
            "rolcreaterole": "false",
            "rolcreatedb": "false",
            "rolcanlogin": "false",
            "rolreplication": "false",
            "rolconnlimit": "-1",
            "rolpassword": None,
            "rolvaliduntil": None,
            "rolbypassrls": "false",
            "rolconfig": None,
        },
        "pg_tables": {"hasrules": "false", "hastriggers": "false", "rowsecurity": "false"},
    }
)


def system_views(scene: Scene, catalog: Mapping[TableName, Table]) -> Mapping[TableName, TableView]:
    """The person's view of every catalog relation that the live server has and we know.

    ``catalog`` is what introspection found for CATALOG_RELATIONS; columns unknown to us are left
    out, relations unknown to us too.
    """
    return MappingProxyType(
        {
            name: _view(scene, table)
            for name, table in catalog.items()
            if name in COLUMNS and name.name in _PREDICATES
        }
    )


def _view(scene: Scene, table: Table) -> TableView:
    known = COLUMNS[table.name]
    blank = _BLANK.get(table.name.name, {})
    return TableView(
        table=table,
        row_predicate=_PREDICATES[table.name.name](scene),
        columns=tuple(
            _blank(column, blank[column.name]) if column.name in blank else _plain(column)
            for column in table.columns
            if column.name in known
        ),
    )


def _plain(column: Column) -> ColumnView:
    return ColumnView(column.name, f'this."{column.name}"', "full", clear=True, full_when=None)


def _blank(column: Column, constant: str | None) -> ColumnView:
    expression = f"CAST({'NULL' if constant is None else constant} AS {column.type_sql})"
    return ColumnView(column.name, expression, "withheld", clear=False, full_when="false")
