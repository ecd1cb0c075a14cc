"""Names in a statement and what they mean, as PostgreSQL resolves them.

Rule kept: every name is resolved here before the server sees it. A name that we cannot resolve is
refused, because ``alias.name`` with an unknown name is a function call to the server (attribute
notation), past the allow-list of functions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql.tree import names
from chartgate.sql.views import ColumnView, TableName, TableView


class UnknownName(Refused):
    """A column or table alias that is nowhere in scope. Not quoted: it may be a value."""

    code = "unknown_name"
    sqlstate = "42703"


class AmbiguousName(Refused):
    """A column name that two tables of the FROM clause have."""

    code = "ambiguous_name"
    sqlstate = "42702"


class CannotCarry(Exception):
    """This statement cannot carry hidden keys; its patients come from the companion query."""


@dataclass(eq=False, slots=True)
class Base:
    """One reference to a base table: what is used of it decides what it becomes."""

    view: TableView
    only: bool
    key: str | None
    """The name of its hidden key column here, if it carries one."""
    used: set[str] = field(default_factory=set)
    quals: list[pb.Node] = field(default_factory=list)
    """Constant conditions to be copied inside, over ``this``."""


@dataclass(eq=False, slots=True)
class Col:
    """A column in scope. ``via`` is the alias that qualifies it, ``None`` when merged by USING."""

    name: str
    type: str | None = None
    """The declared type, where it is known: only then can a comparison be *safe*."""
    via: str | None = None
    bases: tuple[tuple[Base, str], ...] = ()
    """The base columns to be kept when this one is used."""
    direct: bool = False
    """Whether it is the base column itself, in the FROM clause at hand."""
    origin: tuple[TableView, ColumnView] | None = None

    def use(self) -> None:
        """Mark it as referred to."""
        for base, name in self.bases:
            base.used.add(name)


@dataclass(eq=False, slots=True)
class Relation:
    """A FROM item by its alias."""

    alias: str
    cols: list[Col]
    keys: list[str] = field(default_factory=list)
    table: TableName | None = None
    """Set for a table without alias: only then may it be called ``schema.table``."""

    def use(self) -> None:
        """Mark all of it as referred to."""
        for col in self.cols:
            col.use()


@dataclass(eq=False, slots=True)
class Names:
    """What a FROM item, or a list of them, brings into scope."""

    relations: list[Relation] = field(default_factory=list)
    cols: list[Col] = field(default_factory=list)
    """The columns by bare name, in the order of ``*``."""
    keys: list[tuple[str, str]] = field(default_factory=list)
    """Hidden patient keys: (alias, column)."""

    def joined(self, other: "Names") -> "Names":
        """Both, side by side."""
        return Names(
            self.relations + other.relations, self.cols + other.cols, self.keys + other.keys
        )


@dataclass(eq=False, slots=True)
class Level:
    """One query level; ``correlated`` once a name inside it meant something outside it."""

    correlated: bool = False


@dataclass(eq=False, slots=True)
class Scope:
    """The names at one point of a query, and those around it."""

    names: Names
    parent: "Scope | None"
    level: Level

    def _outwards(self) -> "Iterator[tuple[Scope, list[Level]]]":
        crossed: list[Level] = []
        scope: Scope | None = self
        while scope is not None:
            yield scope, crossed
            crossed = [*crossed, scope.level]
            scope = scope.parent

    def column(self, name: str) -> Col | None:
        """The column a bare name means, or ``None``."""
        for scope, crossed in self._outwards():
            found = [col for col in scope.names.cols if col.name == name]
            if len(found) > 1:
                raise AmbiguousName("a column name is in more than one table of the FROM clause")
            if found:
                _cross(crossed)
                return found[0]
        return None

    def relation(self, alias: str, schema: str | None = None) -> Relation | None:
        """The FROM item an alias means, or ``None``."""
        for scope, crossed in self._outwards():
            found = [rel for rel in scope.names.relations if _is_called(rel, alias, schema)]
            if len(found) > 1:
                raise AmbiguousName("a table name is in the FROM clause more than once")
            if found:
                _cross(crossed)
                return found[0]
        return None

    def local(self, name: str) -> Col | None:
        """The column a bare name means at this very level."""
        found = [col for col in self.names.cols if col.name == name]
        return found[0] if len(found) == 1 else None

    def resolve(self, ref: pb.ColumnRef) -> "Col | Relation":
        """What a reference means, marked as used; the reference loses its schema, if it has one."""
        if ref.fields[-1].WhichOneof("node") == "a_star":
            relation = self._whole(names(ref.fields[:-1]), ref)
            if len(ref.fields) > 2:
                del ref.fields[: len(ref.fields) - 2]
            relation.use()
            return relation
        parts = names(ref.fields)
        if len(parts) == 1:
            col = self.column(parts[0])
            if col is None:
                relation = self._whole(parts, ref)
                relation.use()
                return relation
        else:
            relation = self._whole(parts[:-1], ref)
            found = [col for col in relation.cols if col.name == parts[-1]]
            if not found:
                # (1) alias.name with an unknown name would call a function
                raise UnknownName(f"{_place(ref)}: what is after a dot is no column of that table")
            if len(found) > 1:
                raise AmbiguousName("a column name is in that table more than once")
            col = found[0]
            if len(parts) > 2:
                del ref.fields[: len(parts) - 2]
        col.use()
        return col

    def _whole(self, parts: tuple[str, ...], ref: pb.ColumnRef) -> Relation:
        relation = None
        if len(parts) == 1:
            relation = self.relation(parts[0])
        elif len(parts) == 2:
            relation = self.relation(parts[1], parts[0])
        if relation is None:
            raise UnknownName(f"{_place(ref)}: the name is no column and no table of FROM")
        return relation


def _place(ref: pb.ColumnRef) -> str:
    """Where a name stands; the name itself may be a value in the wrong kind of quotes."""
    return f"near character {ref.location + 1}"


def _is_called(relation: Relation, alias: str, schema: str | None) -> bool:
    if schema is None:
        return relation.alias == alias
    return relation.table is not None and relation.table == TableName(schema, alias)


def _cross(levels: Iterable[Level]) -> None:
    for level in levels:
        level.correlated = True


@dataclass(eq=False, slots=True)
class Cte:
    """A WITH query in scope: emitted under a name of ours, so that no name can shadow another."""

    name: str
    emitted: str
    cols: list[Col]
    keys: list[str]
    unstable: bool


Env = dict[str, Cte]
"""The WITH queries in scope, by the name the statement uses; copied, never changed in place."""
