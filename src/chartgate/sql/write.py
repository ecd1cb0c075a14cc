"""INSERT, UPDATE and DELETE: nobody writes, or learns by writing, what policy does not show.

A write reads the raw row (WHERE, SET, RETURNING), and its row count and errors answer questions.
So a write may refer only to columns that the person sees in full, policy's conditions are joined
to its WHERE, and what could raise on a hidden row is refused. What a write's expressions contain
is rewritten as a SELECT over the target first: one set of rules for names and functions.
"""

from dataclasses import replace
from typing import Any

from postgast import pg_query_pb2 as pb

from chartgate.sql import redact, tree
from chartgate.sql.admit import admit
from chartgate.sql.parse import ParsedStatement
from chartgate.sql.statement import Rewritten, TableRead
from chartgate.sql.views import Views, WriteAction
from chartgate.sql.write_insert import insert
from chartgate.sql.write_parts import (
    SELF,
    TARGET_SCHEMA,
    Read,
    Target,
    WriteRefused,
    add_returning,
    called,
    emitted,
    frame_of,
    is_default,
    probe_of,
    rename,
    result,
    target_of,
)


def rewrite_write(node: pb.Node, views: Views, read: Read) -> Rewritten:
    """The write as it goes upstream; ``read`` rewrites the SELECTs that stand in it."""
    statement = pb.Node()
    statement.CopyFrom(node)
    tree.strip(statement)
    admit(statement)
    _check_names(statement)
    match statement.WhichOneof("node"):
        case "insert_stmt":
            done = insert(statement.insert_stmt, views, read)
        case "update_stmt":
            done = _change(statement.update_stmt, "update", views, read)
        case "delete_stmt":
            done = _change(statement.delete_stmt, "delete", views, read)
        case other:  # pragma: no cover - the dispatcher sends nothing else
            raise WriteRefused(f"{other} is not a write")
    return replace(done, statement_class=_class(node, done.tables))


def _class(node: pb.Node, tables: tuple[TableRead, ...]) -> str:
    known: set[str] = set()
    for read in tables:
        known |= {read.table.schema, read.table.name}
        known |= {column.name for column in read.view.columns}
    return redact.statement_class(ParsedStatement(node, 0), known)


def _change(stmt: Any, action: WriteAction, views: Views, read: Read) -> Rewritten:
    target = target_of(stmt.relation, action, views)
    rename(stmt, called(stmt.relation))
    assigned = _assigned(stmt) if action == "update" else []
    returning = list(stmt.returning_clause.exprs)
    # (2) the whole statement as one SELECT over the raw target
    values = [tree.expression("NULL") if is_default(val) else val for _, val in assigned]
    probe = probe_of(target, values, returning, stmt, views, read)
    conditions = _conditions(target, target.full(probe.columns))
    for name, _ in assigned:
        if name in target.write.policy_columns:
            raise WriteRefused(
                f"column {name} of {target.name} decides who may see the row: not by update"
            )
    conditions += target.writable(name for name, _ in assigned)
    conditions = list(dict.fromkeys(conditions))
    if probe.unsafe and conditions:
        raise WriteRefused(
            f"{action} on {target.name}: a condition that could raise on rows not shown"
        )
    # (3) our own frame, filled with the rewritten parts
    frame = frame_of(
        f"UPDATE {emitted(target)} AS this SET x = 1 WHERE true RETURNING 1"
        if action == "update"
        else f"DELETE FROM {emitted(target)} AS this WHERE true RETURNING 1"
    )
    new: Any = tree.inner(frame)
    if action == "update":
        del new.target_list[:]
        for (name, val), rewritten in zip(assigned, probe.select.target_list, strict=False):
            item = tree.target("NULL", name)
            new.target_list.append(item)
            chosen = val if is_default(val) else rewritten.res_target.val
            new.target_list[-1].res_target.val.CopyFrom(chosen)
    where = [tree.expression(f"({condition})") for condition in conditions]
    if probe.select.HasField("where_clause"):
        where.append(probe.select.where_clause)
    if where:
        new.where_clause.CopyFrom(tree.conjoin(where))
    else:
        new.ClearField("where_clause")
    if probe.select.HasField("with_clause"):
        new.with_clause.CopyFrom(probe.select.with_clause)
    add_returning(new, target, list(probe.select.target_list)[len(assigned) :])
    referred = (*sorted(probe.columns), *(name for name, _ in assigned))
    return result(frame, target, referred, [probe], returning, bool(conditions))


def _conditions(target: Target, full: list[str]) -> list[str]:
    rows = [target.view.row_predicate, target.write.row_predicate]
    return [*dict.fromkeys(row for row in rows if row is not None), *full]


def _check_names(statement: pb.Node) -> None:
    """No name of ours in the statement: the target is ``this`` in what we write."""
    for message in tree.walk(statement):
        taken = False
        if isinstance(message, pb.Alias):
            taken = message.aliasname == SELF
        elif isinstance(message, pb.RangeVar):
            if message.schemaname == TARGET_SCHEMA:
                raise WriteRefused("a schema of that name is not allowed")
            taken = message.relname == SELF and not message.HasField("alias")
        elif isinstance(message, pb.CommonTableExpr):
            taken = message.ctename == SELF
        if taken:
            raise WriteRefused("the alias this is not allowed in a write")


def _assigned(stmt: pb.UpdateStmt) -> list[tuple[str, pb.Node]]:
    found: list[tuple[str, pb.Node]] = []
    for item in stmt.target_list:
        if item.res_target.indirection:
            raise WriteRefused("update of a part of a column is not allowed")
        found.append((item.res_target.name, item.res_target.val))
    if len({name for name, _ in found}) != len(found):
        raise WriteRefused("update of a column twice is not allowed")
    return found
