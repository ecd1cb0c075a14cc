"""A base table becomes a derived table that holds only what policy shows.

Rule kept (reference: the pushdown leak): where an expression that can raise might run on hidden
rows, the derived table ends in ``OFFSET 0``, which keeps the planner from merging it; conditions
that are safe are copied inside, so that indexes still serve.
"""

from functools import lru_cache
from typing import Final

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.sql import tree
from chartgate.sql.scope import Base, Col, Relation
from chartgate.sql.views import TableName, TableView

_LEAVES: Final = frozenset({"column_ref", "a_const", "param_ref", "string"})
MARK: Final = "__cg"
"""Stands as the catalog name of a placeholder until it is known what is used of the table."""


def relation(base: Base, alias: str, *, renamed: tuple[str, ...], unaliased: bool) -> Relation:
    """The FROM item for a base table. ``renamed`` are the column aliases, in order."""
    types = {column.name: column.type_sql for column in base.view.table.columns}
    cols = [
        Col(
            name=renamed[at] if at < len(renamed) else column.name,
            type=types.get(column.name),
            via=alias,
            bases=((base, column.name),),
            direct=True,
            origin=(base.view, column),
        )
        for at, column in enumerate(base.view.columns)
    ]
    keys = [] if base.key is None else [base.key]
    return Relation(alias, cols, keys, base.view.table.name if unaliased else None)


def derived(
    view: TableView,
    columns: tuple[tuple[str, str], ...],
    *,
    key: str | None = None,
    only: bool = False,
    quals: tuple[pb.Node, ...] = (),
    barrier: bool = False,
) -> pb.SelectStmt:
    """``SELECT <expression> AS <name> …, <patient> AS <key> FROM s.t AS this WHERE …``.

    ``columns`` are (column of the view, name it shall have); in the view's order.
    """
    expressions = {column.name: column.expression for column in view.columns}
    targets = [(expressions[name], alias) for name, alias in columns]
    if key is not None and view.patient is not None:
        targets.append((view.patient, key))
    select = pb.SelectStmt()
    select.CopyFrom(
        _derived(view.table.name, tuple(targets), view.row_predicate, only=only, barrier=barrier)
    )
    if quals:
        policy = [select.where_clause] if select.HasField("where_clause") else []
        both = tree.conjoin([*policy, *quals])
        select.where_clause.CopyFrom(both)
    return select


@lru_cache(maxsize=2048)
def _derived(
    table: TableName,
    targets: tuple[tuple[str, str], ...],
    predicate: str | None,
    *,
    only: bool,
    barrier: bool,
) -> pb.SelectStmt:
    """The derived table without copied conditions. Shared: copy it, never change it."""
    select = tree.select(
        f"SELECT FROM {'ONLY ' if only else ''}"
        f"{tree.quoted(table.schema)}.{tree.quoted(table.name)} AS this"
    )
    select.target_list.extend(tree.target(expression, alias) for expression, alias in targets)
    if predicate is not None:
        select.where_clause.CopyFrom(tree.expression(f"({predicate})"))
    if barrier:
        fence = tree.select("SELECT OFFSET 0")
        select.limit_offset.CopyFrom(fence.limit_offset)
        select.limit_option = fence.limit_option
    return select


def placeholder(node: pb.Node, index: int, alias: str) -> None:
    """Put a mark where the derived table will stand."""
    node.CopyFrom(tree.item(f"{MARK}.{MARK}.{tree.quoted(str(index))} AS {tree.quoted(alias)}"))


def fill(message: Message, bases: list[tuple[Base, Relation]], *, unsafe: bool) -> bool:
    """Replace every mark by its derived table; says whether any got a barrier."""
    fenced = False
    for child in tree.children(message):
        if isinstance(child, pb.Node) and child.WhichOneof("node") in _LEAVES:
            continue
        if not isinstance(child, pb.Node) or child.WhichOneof("node") != "range_var":
            fenced = fill(child, bases, unsafe=unsafe) or fenced
        elif child.range_var.catalogname == MARK:
            base, found = bases[int(child.range_var.relname)]
            alias = child.range_var.alias.aliasname
            barrier = unsafe and base.view.row_predicate is not None
            columns = tuple(
                (column.name, col.name)
                for column, col in zip(base.view.columns, found.cols, strict=True)
                if column.name in base.used
            )
            child.CopyFrom(tree.item(f"(SELECT) AS {tree.quoted(alias)}"))
            child.range_subselect.subquery.select_stmt.CopyFrom(
                derived(
                    base.view,
                    columns,
                    key=base.key,
                    only=base.only,
                    quals=tuple(base.quals) if barrier else (),
                    barrier=barrier,
                )
            )
            fenced = fenced or barrier
    return fenced
