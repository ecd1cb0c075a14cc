"""Which objects of the catalog one person may see: the tables policy shows, and what is theirs.

The system's own objects (oid below 16384, PostgreSQL documentation 67.2.2 "OID Assignment") are
the same in every database and say nothing about this one, so all of them are shown.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from chartgate.sql.views import Table

FIRST_NORMAL_OID = 16384
_PG_CLASS = 1259  # the oid of pg_class in itself, fixed since the first release


def literal(text: str) -> str:
    """The text as an SQL constant, under ``standard_conforming_strings``."""
    return "'" + text.replace("'", "''") + "'"


def array(items: Iterable[str], of: str) -> str:
    """The items as an array constructor; the empty one keeps its type."""
    return f"CAST(ARRAY[{', '.join(items)}] AS pg_catalog.{of}[])"


@dataclass(frozen=True, slots=True)
class Scene:
    """What the catalog shows one person.

    ``tables``: those the person may see, not one more. ``schemas``: the mapped ones.
    ``search_path``: the virtual one, names only, without ``pg_catalog``. ``login``: the name the
    person logged in with; the server's own service login is never shown.
    """

    tables: tuple[Table, ...]
    schemas: tuple[str, ...]
    search_path: tuple[str, ...]
    login: str

    @property
    def visible(self) -> str:
        """The oids of the visible tables, as SQL."""
        return array((str(oid) for oid in sorted(table.oid for table in self.tables)), "oid")

    def is_table(self, oid: str) -> str:
        """``oid`` is a system relation or a visible table."""
        return f"({oid} < {FIRST_NORMAL_OID} OR {oid} = ANY ({self.visible}))"

    def is_relation(self, oid: str) -> str:
        """``oid`` is a system relation, a visible table, or an index or sequence of one."""
        return (
            f"({oid} < {FIRST_NORMAL_OID} OR {oid} = ANY ({self.visible})"
            f" OR {oid} IN (SELECT __cg_i.indexrelid FROM pg_catalog.pg_index AS __cg_i"
            f" WHERE __cg_i.indrelid = ANY ({self.visible}))"
            f" OR {self.is_sequence(oid)})"
        )

    def is_sequence(self, oid: str) -> str:
        """``oid`` is a sequence that a column of a visible table owns."""
        return (
            f"{oid} IN (SELECT __cg_d.objid FROM pg_catalog.pg_depend AS __cg_d"
            f" WHERE __cg_d.classid = {_PG_CLASS} AND __cg_d.refclassid = {_PG_CLASS}"
            f" AND __cg_d.deptype IN ('a', 'i') AND __cg_d.refobjid = ANY ({self.visible})"
            " AND __cg_d.objid IN (SELECT __cg_s.seqrelid FROM pg_catalog.pg_sequence AS __cg_s))"
        )

    def is_type(self, oid: str) -> str:
        """``oid`` is a system type, a visible table's row type, or the type of its column."""
        row_types = (
            "SELECT __cg_c.reltype FROM pg_catalog.pg_class AS __cg_c"
            f" WHERE __cg_c.oid = ANY ({self.visible})"
        )
        column_types = (
            "SELECT __cg_a.atttypid FROM pg_catalog.pg_attribute AS __cg_a"
            f" WHERE __cg_a.attrelid = ANY ({self.visible})"
        )
        return (
            f"({oid} < {FIRST_NORMAL_OID} OR {oid} IN ({row_types}) OR {oid} IN ({column_types})"
            f" OR {oid} IN (SELECT __cg_t.typarray FROM pg_catalog.pg_type AS __cg_t"
            f" WHERE __cg_t.oid IN ({row_types}) OR __cg_t.oid IN ({column_types})))"
        )

    def is_constraint(self, row: str) -> str:
        """The row of ``pg_constraint`` is on a visible table and points to no hidden one."""
        return (
            f"(({row}.conrelid <> 0 AND {self.is_table(f'{row}.conrelid')}"
            f" OR {row}.conrelid = 0 AND {row}.oid < {FIRST_NORMAL_OID})"
            f" AND {self.is_table(f'{row}.confrelid')})"
        )

    def is_description(self, row: str) -> str:
        """The row of ``pg_description`` is about a visible relation or the system's own object."""
        return (
            f"({row}.objoid < {FIRST_NORMAL_OID}"
            f" OR {row}.classoid = {_PG_CLASS} AND {self.is_relation(f'{row}.objoid')})"
        )

    def is_schema(self, name: str) -> str:
        """The schema's name is the system's own or a mapped one."""
        names = ("pg_catalog", "information_schema", *self.schemas)
        return f"{name} = ANY ({array(map(literal, names), 'name')})"

    def is_named(self, schema: str, name: str) -> str:
        """The schema and name are those of a system relation or a visible table."""
        pairs = ", ".join(
            f"({literal(table.name.schema)}, {literal(table.name.name)})" for table in self.tables
        )
        system = f"{schema} IN ('pg_catalog', 'information_schema')"
        return f"({system} OR ({schema}, {name}) IN ({pairs}))" if pairs else f"({system})"

    def on_path(self, schema: str) -> str:
        """The schema's name is on the person's search path, ``pg_catalog`` included."""
        path = ("pg_catalog", *self.search_path)
        return f"{schema} = ANY ({array(map(literal, path), 'name')})"

    @property
    def shadowed(self) -> str:
        """Oids of visible tables whose name an earlier schema of the path has too, as SQL."""
        rank = {schema: at for at, schema in enumerate(self.search_path)}
        first: dict[str, int] = {}
        for table in self.tables:
            at = rank.get(table.name.schema, len(rank))
            first[table.name.name] = min(at, first.get(table.name.name, at))
        hidden = (
            table.oid
            for table in self.tables
            if first[table.name.name] < rank.get(table.name.schema, len(rank))
        )
        return array(map(str, sorted(hidden)), "oid")
