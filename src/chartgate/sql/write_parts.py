"""What every write has: a target, expressions over it, RETURNING, and an account of it all.

Rule kept: a write's expressions run on raw rows, so they may name nothing but columns of the
target that the person sees in full; sub-selects stand alone and are rewritten as ordinary reads.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import postgast
from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql import tree
from chartgate.sql.scope import UnknownName
from chartgate.sql.statement import Kind, Rewritten, Sought, TableRead
from chartgate.sql.system_objects import Scene
from chartgate.sql.verify import deparsed
from chartgate.sql.views import (
    Column,
    ColumnView,
    TableName,
    TableView,
    Views,
    WriteAction,
    WriteView,
)

Read = Callable[[pb.Node, Views], Rewritten]
"""How a SELECT is rewritten: the dispatcher's own way."""

SELF: Final = "this"
TARGET_SCHEMA: Final = "chartgate write target"
"""Schema and name under which a probe reads the raw target; no statement may use them."""
_KEY: Final = f"{tree.HIDDEN}k0"


class WriteRefused(Refused):
    """Policy, or the form of the statement, does not let this be written."""

    code = "write_refused"


@dataclass(frozen=True, slots=True)
class Target:
    """The table written, and what the person may see and write there."""

    name: TableName
    action: WriteAction
    view: TableView
    write: WriteView

    @property
    def columns(self) -> dict[str, ColumnView]:
        return {column.name: column for column in self.view.columns}

    @property
    def declared(self) -> dict[str, Column]:
        return {column.name: column for column in self.view.table.columns}

    def full(self, columns: Iterable[str]) -> list[str]:
        """The conditions under which all these columns are seen in full; refuses a *never*."""
        conditions: list[str] = []
        for name in sorted(set(columns)):
            view = self.columns[name]
            if view.full_when == "false":
                raise WriteRefused(
                    f"column {name} of {self.name} is {view.level}:"
                    f" {self.action} may refer only to columns seen in full"
                )
            if view.full_when is not None:
                conditions.append(view.full_when)
        return conditions

    def writable(self, columns: Iterable[str]) -> list[str]:
        """The conditions under which all these columns may be written."""
        conditions: list[str] = []
        for name in columns:
            if name not in self.declared:
                # not quoted: a value in the wrong kind of quotes is a name to the grammar
                raise UnknownName(f"a name that is no column of {self.name}")
            if name not in self.write.columns:
                raise WriteRefused(
                    f"column {name} of {self.name} may not be written: {self.action}"
                )
            condition = self.write.columns[name]
            if condition == "false":
                raise WriteRefused(
                    f"column {name} of {self.name} may not be written: {self.action}"
                )
            if condition is not None:
                conditions.append(condition)
        return conditions


@dataclass(frozen=True, slots=True)
class _TargetViews:
    """The person's views, and the raw target under a name that only a probe knows."""

    views: Views
    raw: TableView

    def resolve(self, schema: str | None, name: str) -> TableName:
        return self.raw.table.name if schema == TARGET_SCHEMA else self.views.resolve(schema, name)

    def read(self, table: TableName) -> TableView:
        return self.raw if table == self.raw.table.name else self.views.read(table)

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        return self.views.write(action, table)  # pragma: no cover - a probe writes nothing

    @property
    def scene(self) -> Scene:
        """What the catalog shows the person; nothing, for views that do not say."""
        return cast(Scene, getattr(self.views, "scene", Scene((), (), (), "")))


@dataclass(frozen=True, slots=True)
class Probe:
    """Expressions over the target, rewritten, and what they refer to."""

    select: pb.SelectStmt
    columns: frozenset[str]
    unsafe: bool
    tables: tuple[TableRead, ...]
    companion: str | None
    sought: tuple[Sought, ...]
    limited: tuple[str, ...]


def target_of(relation: pb.RangeVar, action: WriteAction, views: Views) -> Target:
    if not relation.inh:
        raise WriteRefused(f"{action} with ONLY is not allowed")
    if relation.alias.colnames:  # pragma: no cover - the grammar has no such form
        raise WriteRefused(f"{action} with column aliases is not allowed")
    name = views.resolve(relation.schemaname or None, relation.relname)
    target = Target(name, action, views.read(name), views.write(action, name))
    if target.write.row_predicate == "false":
        raise WriteRefused(f"{action} on {name} is not allowed")
    return target


def rename(message: Message, called: tuple[tuple[str, ...], ...]) -> None:
    """``alias.column`` becomes ``this.column``; sub-selects have names of their own."""
    if isinstance(message, pb.SelectStmt | pb.WithClause):
        return
    if isinstance(message, pb.ColumnRef):
        prefix = tree.names(message.fields[:-1])
        if prefix in called:
            last = pb.Node()
            last.CopyFrom(message.fields[-1])
            tree.set_names(message.fields, (SELF,))
            message.fields.append(last)
        return
    for child in tree.children(message):
        rename(child, called)


def called(relation: pb.RangeVar) -> tuple[tuple[str, ...], ...]:
    """What the statement may call its target: the alias, else the table with and without schema."""
    if relation.HasField("alias"):
        return ((relation.alias.aliasname,),)
    if relation.schemaname:
        return ((relation.relname,), (relation.schemaname, relation.relname))
    return ((relation.relname,),)


def returned(exprs: Iterable[pb.Node], target: Target) -> list[pb.Node]:
    """What RETURNING asks for, ``*`` written out: the columns that the person knows of."""
    found: list[pb.Node] = []
    for item in exprs:
        ref = item.res_target.val.column_ref
        if not ref.fields or ref.fields[-1].WhichOneof("node") != "a_star":
            found.append(item)
        elif tree.names(ref.fields[:-1]) in {(), (SELF,)}:
            found += [_plain(name) for name in target.columns]
        else:
            raise WriteRefused("a name before .* that is not the table written")
    return found


def _plain(name: str) -> pb.Node:
    item = pb.Node()
    item.CopyFrom(tree.target(f"{SELF}.{tree.quoted(name)}", name))
    item.res_target.name = ""
    return item


def is_default(node: pb.Node) -> bool:
    return bool(node.WhichOneof("node") == "set_to_default")


def probe_of(
    target: Target,
    values: Sequence[pb.Node],
    returning: Sequence[pb.Node],
    stmt: Any,
    views: Views,
    read: Read,
) -> Probe:
    """The expressions rewritten as a SELECT over the raw target."""
    raw = replace(
        target.view,
        table=replace(target.view.table, name=TableName(TARGET_SCHEMA, TARGET_SCHEMA)),
        # (5) never without a predicate: only then does the rewriter say what is not safe
        row_predicate="true",
        columns=tuple(
            ColumnView(c.name, f"this.{tree.quoted(c.name)}", "full", clear=True, full_when=None)
            for c in target.view.columns
        ),
        patient=None,
    )
    node = pb.Node()
    select = node.select_stmt
    select.CopyFrom(
        tree.select(
            f"SELECT 1 FROM {tree.quoted(TARGET_SCHEMA)}.{tree.quoted(TARGET_SCHEMA)} AS {SELF}"
        )
    )
    del select.target_list[:]
    for value in values:
        select.target_list.append(tree.target("NULL", "x"))
        select.target_list[-1].res_target.val.CopyFrom(value)
    select.target_list.extend(returned(returning, target))
    if stmt is not None and stmt.HasField("where_clause"):
        select.where_clause.CopyFrom(stmt.where_clause)
    if stmt is not None and stmt.HasField("with_clause"):
        select.with_clause.CopyFrom(stmt.with_clause)
    done = read(node, cast(Views, _TargetViews(views, raw)))
    if TARGET_SCHEMA in (done.companion or ""):
        raise WriteRefused("a sub-select that refers to the row being written is not allowed")
    answer = parsed_select(done.sql)
    if done.hidden_columns:  # pragma: no cover - the raw target carries none
        raise WriteRefused("a write that would list patients of another table is not allowed")
    used = {c for read_ in done.tables if read_.table == raw.table.name for c in read_.columns}
    parts: list[Message] = [*answer.target_list]
    if answer.HasField("where_clause"):
        parts.append(answer.where_clause)
    for part in parts:
        used |= _columns(part, target)
    return Probe(
        answer,
        frozenset(used),
        done.barrier,
        tuple(read_ for read_ in done.tables if read_.table != raw.table.name),
        done.companion,
        done.sought,
        tuple(text for text in done.limited if TARGET_SCHEMA not in text),
    )


def _columns(message: Message, target: Target) -> set[str]:
    """Columns of the target below, outside sub-selects; anything else by name is refused."""
    if isinstance(message, pb.SelectStmt):
        return set()  # what it uses of the target, the rewriter has counted
    if isinstance(message, pb.ColumnRef):
        parts = tree.names(message.fields)
        # (6) ctid, a dropped view column or a whole row: the rewriter refuses them too
        if parts[-1] not in target.columns or parts[:-1] not in ((), (SELF,)):  # pragma: no cover
            raise WriteRefused(f"a name that is no column of {target.name}")
        return {parts[-1]}
    return set().union(*(_columns(child, target) for child in tree.children(message)))


def add_returning(new: Any, target: Target, exprs: Sequence[pb.Node]) -> None:
    """RETURNING: what the person asked for, then the key of the patient written."""
    del new.returning_clause.exprs[:]
    new.returning_clause.exprs.extend(exprs)
    if target.view.patient is not None:
        new.returning_clause.exprs.append(tree.target(target.view.patient, _KEY))
    if not new.returning_clause.exprs:
        new.ClearField("returning_clause")


def result(
    frame: pb.Node,
    target: Target,
    columns: Sequence[str],
    probes: Sequence[Probe],
    returning: Sequence[pb.Node],
    limited: bool,
) -> Rewritten:
    kind = {"create": Kind.INSERT, "update": Kind.UPDATE, "delete": Kind.DELETE}[target.action]
    keyed = target.view.patient is not None
    own = (
        # An INSERT writes all its rows or none: there is nothing that it passes over.
        (f"{target.name.name}: only the rows you may {target.action}",)
        if limited and target.action != "create"
        else ()
    )
    return Rewritten(
        kind=kind,
        sql=deparsed(frame),
        read_only=False,
        tables=(
            TableRead(target.name, tuple(dict.fromkeys(columns)), target.view, target.action),
            *(table for probe in probes for table in probe.tables),
        ),
        hidden_columns=int(keyed),
        companion=union([probe.companion for probe in probes]),
        scope_only=False,
        written_hidden=keyed,
        returning_added=keyed and not returning,
        sought=tuple(sought for probe in probes for sought in probe.sought),
        limited=tuple(dict.fromkeys((*own, *(text for p in probes for text in p.limited)))),
        statement_class="",
        barrier=False,
    )


def union(queries: Sequence[str | None]) -> str | None:
    found = [query for query in queries if query is not None]
    if len(found) < 2:
        return found[0] if found else None
    text = " UNION ".join(f"SELECT * FROM ({query}) AS q{n}" for n, query in enumerate(found))
    node = pb.Node()
    node.select_stmt.CopyFrom(parsed_select(text))
    return deparsed(node)


def emitted(target: Target) -> str:
    return f"{tree.quoted(target.name.schema)}.{tree.quoted(target.name.name)}"


def frame_of(text: str) -> pb.Node:
    parsed = postgast.parse(text)
    tree.strip(parsed)
    return parsed.stmts[0].stmt


def parsed_select(text: str) -> pb.SelectStmt:
    parsed = postgast.parse(text)
    tree.strip(parsed)
    return parsed.stmts[0].stmt.select_stmt
