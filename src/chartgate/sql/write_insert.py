"""INSERT: the new row is judged before it is written; a row policy refuses raises, never vanishes.

``INSERT … SELECT`` over the given values, with policy's conditions over them as ``this``; what is
not given is NULL there, so a column that policy reads and that has a default must be given.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from postgast import pg_query_pb2 as pb

from chartgate.sql import tree
from chartgate.sql.statement import Rewritten
from chartgate.sql.views import Column, Views
from chartgate.sql.write_parts import (
    Read,
    Target,
    WriteRefused,
    add_returning,
    called,
    emitted,
    frame_of,
    is_default,
    parsed_select,
    probe_of,
    rename,
    result,
    target_of,
    union,
)

_SOURCE: Final = f"{tree.HIDDEN}source"
# (1) clock_timestamp is volatile: the planner never computes it, so it is raised for a row or not
# at all; a constant here would be folded and raise always.
_RAISE: Final = (
    "CAST(pg_catalog.concat('row refused by policy ', pg_catalog.clock_timestamp())"
    " AS pg_catalog.bool)"
)


def insert(stmt: pb.InsertStmt, views: Views, read: Read) -> Rewritten:
    target = target_of(stmt.relation, "create", views)
    rename(stmt.returning_clause, called(stmt.relation))
    if stmt.override != pb.OverridingKind.OVERRIDING_NOT_SET:
        raise WriteRefused("insert with OVERRIDING is not allowed")
    if not stmt.HasField("select_stmt"):
        raise WriteRefused("insert of DEFAULT VALUES is not allowed")
    source = stmt.select_stmt.select_stmt
    names = _listed(stmt, target)
    if source.values_lists:
        names = _without_defaults(source, target, names)
    if stmt.HasField("with_clause"):
        if source.HasField("with_clause"):
            raise WriteRefused("insert with two WITH clauses is not allowed")
        source.with_clause.CopyFrom(stmt.with_clause)
    rows = read(stmt.select_stmt, views)
    body = parsed_select(rows.sql)
    width = _width(body) - rows.hidden_columns
    names = names or list(target.declared)[:width]
    if len(names) != width:
        raise WriteRefused("insert: the number of columns and of values differ")
    # (4) policy judges the new row; what it reads must therefore be in the statement
    for name in sorted(target.write.policy_columns - set(names)):
        if name in target.declared and target.declared[name].has_default:
            raise WriteRefused(
                f"column {name} of {target.name} decides who may see the row: give it"
            )
    conditions = target.writable(names)
    if target.write.row_predicate is not None:
        conditions.append(target.write.row_predicate)
    returning = list(stmt.returning_clause.exprs)
    probes = []
    if returning:
        probes.append(probe_of(target, [], returning, None, views, read))
        conditions += target.full(probes[0].columns)
        if target.view.row_predicate is not None:
            conditions.append(target.view.row_predicate)
    _check_not_never(target, conditions)
    frame = frame_of(_insert_text(target, names, rows.hidden_columns, conditions))
    new = frame.insert_stmt
    derived = new.select_stmt.select_stmt.from_clause[0].range_subselect.subquery.select_stmt
    inner = derived.from_clause[0].range_subselect.subquery
    _cast_cells(body, [_plain_type(target.declared[name]) for name in names])
    inner.select_stmt.CopyFrom(body)
    add_returning(new, target, list(probes[0].select.target_list) if probes else [])
    referred = (*names, *sorted(probes[0].columns if probes else ()))
    done = result(frame, target, referred, probes, returning, bool(conditions))
    return replace(
        done,
        tables=(done.tables[0], *rows.tables, *done.tables[1:]),
        companion=union([_seen(rows), done.companion]),
        scope_only=rows.scope_only,
        sought=(*rows.sought, *done.sought),
        limited=tuple(dict.fromkeys((*rows.limited, *done.limited))),
    )


def _check_not_never(target: Target, conditions: Sequence[str]) -> None:
    if "false" in conditions:
        raise WriteRefused(f"{target.action} on {target.name} is not allowed with RETURNING")


def _listed(stmt: pb.InsertStmt, target: Target) -> list[str]:
    names = [item.res_target.name for item in stmt.cols]
    for item in stmt.cols:
        if item.res_target.indirection:
            raise WriteRefused("insert of a part of a column is not allowed")
        if item.res_target.name not in target.declared:
            raise WriteRefused(f"a name that is no column of {target.name}")
    if len(set(names)) != len(names):
        raise WriteRefused("insert of a column twice is not allowed")
    return names


def _without_defaults(source: pb.SelectStmt, target: Target, listed: list[str]) -> list[str]:
    """Columns that are DEFAULT in every row are left out of the statement."""
    names = listed or list(target.declared)
    rows = [row.list.items for row in source.values_lists]
    width = len(rows[0])
    if (
        any(len(row) != width for row in rows)
        or width > len(names)
        or (listed and width < len(names))
    ):
        raise WriteRefused("insert: the number of columns and of values differ")
    kept = []
    for at in range(width):
        defaults = [is_default(row[at]) for row in rows]
        if any(defaults) and not all(defaults):
            raise WriteRefused("DEFAULT in some rows of an insert only is not allowed")
        if not any(defaults):
            kept.append(at)
    if not kept:
        raise WriteRefused("insert of nothing but DEFAULT is not allowed")
    for row in rows:
        cells = [pb.Node() for _ in kept]
        for cell, at in zip(cells, kept, strict=True):
            cell.CopyFrom(row[at])
        del row[:]
        row.extend(cells)
    return [names[at] for at in kept]


def _insert_text(
    target: Target, names: Sequence[str], hidden: int, conditions: Sequence[str]
) -> str:
    """The frame; its innermost sub-select is a place for the source."""
    given = ", ".join(
        f"CAST({_SOURCE}.{tree.quoted(name)} AS {_plain_type(target.declared[name])})"
        f" AS {tree.quoted(name)}"
        for name in names
    )
    missing = "".join(
        f", CAST(NULL AS {column.type_sql}) AS {tree.quoted(name)}"
        for name, column in target.declared.items()
        if name not in names
    )
    columns = ", ".join(map(tree.quoted, names))
    aliases = ", ".join([*map(tree.quoted, names), *(f"{tree.HIDDEN}k{n}" for n in range(hidden))])
    checks = " AND ".join(f"({condition})" for condition in dict.fromkeys(conditions))
    where = f" WHERE CASE WHEN {checks} THEN true ELSE {_RAISE} END" if checks else ""
    return (
        f"INSERT INTO {emitted(target)} AS this ({columns})"
        f" SELECT {', '.join(f'this.{tree.quoted(name)}' for name in names)}"
        f" FROM (SELECT {given}{missing} FROM (SELECT) AS {_SOURCE}({aliases})) AS this{where}"
        " RETURNING 1"
    )


def _plain_type(column: Column) -> str:
    """The type without its length: an explicit cast would cut a text that assignment refuses."""
    node = tree.expression(f"CAST(NULL AS {column.type_sql})")
    name = node.type_cast.type_name
    if name.array_bounds:
        return column.type_sql
    match tree.names(name.names)[-1]:
        case "varchar" | "bpchar":
            return "pg_catalog.text"
        case "numeric":
            return "pg_catalog.numeric"
        case _:
            return column.type_sql


def _cast_cells(source: pb.SelectStmt, types: Sequence[str]) -> None:
    """Give constants and parameters the column's type, as a plain INSERT would."""
    if source.values_lists:
        rows = [[*row.list.items] for row in source.values_lists]
    elif source.op == pb.SetOperation.SETOP_NONE:
        rows = [[item.res_target.val for item in source.target_list]]
    else:
        rows = []
    for row in rows:
        for cell, type_sql in zip(row, types, strict=False):
            if cell.WhichOneof("node") in {"a_const", "param_ref"}:
                typed = pb.Node()
                typed.CopyFrom(tree.expression(f"CAST(NULL AS {type_sql})"))
                typed.type_cast.arg.CopyFrom(cell)
                cell.CopyFrom(typed)


def _width(select: pb.SelectStmt) -> int:
    while select.op != pb.SetOperation.SETOP_NONE:
        select = select.larg
    if select.values_lists:
        return len(select.values_lists[0].list.items)
    if any(_is_star(item) for item in select.target_list):
        raise WriteRefused("insert from SELECT * is not allowed: name its columns")
    return len(select.target_list)


def _is_star(item: pb.Node) -> bool:
    ref = item.res_target.val.column_ref
    return bool(ref.fields and ref.fields[-1].WhichOneof("node") == "a_star")


def _seen(rows: Rewritten) -> str | None:
    """Patients seen by an INSERT's source: its hidden keys cannot leave through the INSERT."""
    keys = [f"{tree.HIDDEN}k{n}" for n in range(rows.hidden_columns)]
    if not keys:
        return rows.companion
    width = _width(parsed_select(rows.sql)) - len(keys)
    aliases = ", ".join([*(f"{tree.HIDDEN}c{n}" for n in range(width)), *keys])
    hidden = [f"SELECT k.{key} FROM ({rows.sql}) AS k({aliases})" for key in keys]
    return union([*hidden, rows.companion])
