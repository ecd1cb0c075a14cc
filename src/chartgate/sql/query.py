"""SELECT in all its forms, rewritten so that it asks a database that holds only what policy shows.

Rule kept: a base table never reaches the server as itself, only as its derived table
(``relation``); CTE names are resolved as PostgreSQL scopes them and emitted under names of ours.
Where a query can carry the patients' keys to its result, they are appended at its end.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql import tree
from chartgate.sql.expressions import Expressions, Output
from chartgate.sql.joins import FromClause
from chartgate.sql.naming import output_name
from chartgate.sql.parse import TooComplex
from chartgate.sql.relation import MARK
from chartgate.sql.safe import is_count, is_safe, may_raise_late
from chartgate.sql.scope import (
    Base,
    CannotCarry,
    Col,
    Cte,
    Env,
    Level,
    Names,
    Relation,
    Scope,
)
from chartgate.sql.shape import bare_name, is_evaluated_last, is_plain
from chartgate.sql.stability import is_unstable
from chartgate.sql.system_objects import Scene
from chartgate.sql.views import Views

_COPIED: Final = frozenset(
    {pb.AEXPR_OP, pb.AEXPR_IN, pb.AEXPR_BETWEEN, pb.AEXPR_OP_ANY, pb.AEXPR_LIKE}
)

MAX_COLUMNS: Final = 1_664
"""Of one select list, as in the server: what ``*, *`` comes to is not written out beyond it."""


class Pass:
    """One pass over one statement. Works in place on a copy that nobody else holds."""

    def __init__(self, views: Views, scene: Scene) -> None:
        self.views = views
        self.expressions = Expressions(self, scene)
        self.bases: list[tuple[Base, Relation]] = []
        self._from = FromClause(self)
        self._serial = 0

    def fresh(self, kind: str) -> str:
        """A name of ours, unlike every other in the statement."""
        self._serial += 1
        return f"{MARK}_{kind}{self._serial - 1}"

    # -- query levels

    def query(
        self,
        stmt: pb.SelectStmt,
        parent: Scope | None,
        env: Env,
        *,
        carry: bool,
        top: bool,
        shown: bool = True,
    ) -> Output:
        """Rewrite one query level, in place. ``carry``: append the patients' keys if it can."""
        judging, self.expressions.judging = self.expressions.judging, True
        carry = carry and is_plain(stmt, top=top)
        try:
            return self._query(stmt, parent, env, carry=carry, top=top, shown=shown)
        finally:
            self.expressions.judging = judging

    def _query(
        self,
        stmt: pb.SelectStmt,
        parent: Scope | None,
        env: Env,
        *,
        carry: bool,
        top: bool,
        shown: bool,
    ) -> Output:
        level = Level()
        outer = Scope(Names(), parent, level)
        if stmt.HasField("with_clause"):
            env = self.with_list(stmt.with_clause, outer, env, carry=carry)[0]
        if stmt.op != pb.SETOP_NONE:
            left = self.query(stmt.larg, outer, env, carry=False, top=False, shown=shown)
            right = self.query(stmt.rarg, outer, env, carry=False, top=False, shown=shown)
            return self._set_operation(stmt, left, right, outer, env)
        if stmt.values_lists:
            return self._values(stmt, outer, env, shown=shown)
        if not top and any(
            map(may_raise_late, (*stmt.target_list, *stmt.sort_clause, *stmt.window_clause))
        ):
            self.expressions.unsafe = True
        names = self.from_clause(stmt, outer, env, carry=carry)
        scope = Scope(names, parent, level)
        if stmt.HasField("where_clause"):
            self.where(stmt.where_clause, scope, env)
        self.expressions.judging = not (top and is_evaluated_last(stmt))
        cols = self._targets(stmt, scope, env, shown=shown)
        self.expressions.judging = True
        self._rest(stmt, scope, env, cols)
        keys = []
        if carry:
            keys = self._append_keys(stmt, names, count=len(cols))
        return Output(cols, keys, correlated=level.correlated)

    def from_clause(self, stmt: pb.SelectStmt, outer: Scope, env: Env, *, carry: bool) -> Names:
        """The FROM clause, in place, and the names it brings."""
        names = Names()
        for item in stmt.from_clause:
            names = names.joined(self._from.item(item, names, outer, env, carry=carry))
        return names

    def where(self, node: pb.Node, scope: Scope, env: Env) -> None:
        """A WHERE clause; what is simple enough is copied into the tables behind a barrier."""
        self.expressions.judged(node, scope, env)
        for part in tree.conjuncts(node):
            self._copy_inside(part, scope)

    def with_list(
        self, clause: pb.WithClause, outer: Scope, env: Env, *, carry: bool
    ) -> tuple[Env, list[tuple[Env, Cte]]]:
        """WITH: a query sees those before it, the outer ones, and itself if RECURSIVE."""
        env = dict(env)
        bodies: list[tuple[Env, Cte]] = []
        given = [node.common_table_expr.ctename for node in clause.ctes]
        if len(set(given)) != len(given):
            raise Refused("two WITH queries of one name")
        if clause.recursive:
            for name in given:
                # (1) a name of a later WITH query must not mean the table it hides
                env[name] = Cte(name, "", [], [], unstable=False)
        for node in clause.ctes:
            cte = node.common_table_expr
            if cte.ctequery.WhichOneof("node") != "select_stmt":
                raise Refused("WITH holds a statement that is no SELECT")
            select = cte.ctequery.select_stmt
            renamed = tree.names(cte.aliascolnames)
            found = Cte(cte.ctename, self.fresh("w"), [], [], unstable=is_unstable(select, env))
            if clause.recursive and _refers_to(select, cte.ctename):
                body_env = {**env, cte.ctename: found}
                self._recursive(select, outer, body_env, found, renamed)
            else:
                body_env = dict(env)
                out = self.query(select, outer, env, carry=carry, top=False)
                found.cols, found.keys = renamed_cols(out.cols, renamed), out.keys
            bodies.append((body_env, found))
            env[cte.ctename] = found
            cte.ctename = found.emitted
        return env, bodies

    def _recursive(
        self, select: pb.SelectStmt, outer: Scope, env: Env, cte: Cte, renamed: tuple[str, ...]
    ) -> None:
        if select.op != pb.SETOP_UNION or select.HasField("with_clause"):
            raise Refused("a recursive WITH query that is no plain UNION")
        base = self.query(select.larg, outer, env, carry=False, top=False)
        # (2) the types are those of the non-recursive term, the values of both: never "safe"
        cte.cols = [Col(col.name) for col in renamed_cols(base.cols, renamed)]
        right = self.query(select.rarg, outer, env, carry=False, top=False)
        self._set_operation(select, base, right, outer, env)

    def _set_operation(
        self, stmt: pb.SelectStmt, left: Output, right: Output, outer: Scope, env: Env
    ) -> Output:
        cols = [
            Col(one.name, type=one.type if other.type == one.type else None)
            for one, other in zip(left.cols, right.cols, strict=False)
        ]
        scope = Scope(Names(cols=cols), outer.parent, outer.level)
        for sort in stmt.sort_clause:
            self.expressions.judged(sort.sort_by.node, scope, env)
        self._limits(stmt, outer, env)
        return Output(cols, [], correlated=outer.level.correlated)

    def _values(self, stmt: pb.SelectStmt, outer: Scope, env: Env, *, shown: bool) -> Output:
        for row in stmt.values_lists:
            for value in row.list.items:
                self.expressions.judged(value, outer, env, shown=shown)
        width = len(stmt.values_lists[0].list.items)
        cols = [Col(f"column{at}") for at in range(1, width + 1)]
        scope = Scope(Names(cols=cols), outer.parent, outer.level)
        for sort in stmt.sort_clause:
            self.expressions.judged(sort.sort_by.node, scope, env)
        self._limits(stmt, outer, env)
        return Output(cols, [], correlated=outer.level.correlated)

    def _rest(self, stmt: pb.SelectStmt, scope: Scope, env: Env, cols: Sequence[Col]) -> None:
        """Everything after the target list, in no particular order."""
        given = {col.name for col in cols}
        for node in stmt.distinct_clause:
            self._sorted(node, scope, env, given)
        for sort in stmt.sort_clause:
            self._sorted(sort.sort_by.node, scope, env, given)
        for node in stmt.group_clause:
            if bare_name(node) in given and scope.local(bare_name(node)) is None:
                continue  # GROUP BY prefers a column of the tables, then one of the output
            self._grouped(node, scope, env)
        for window in stmt.window_clause:
            self.expressions.descend(window, scope, env)
            self._judge_window(window.window_def, scope)
        if stmt.HasField("having_clause"):
            if scope.parent is not None and may_raise_late(stmt.having_clause):
                self.expressions.unsafe = True
            # (3) a HAVING without aggregates becomes a WHERE in the planner
            self.expressions.judged(stmt.having_clause, scope, env)
        self._limits(stmt, scope, env)

    def _grouped(self, node: pb.Node, scope: Scope, env: Env) -> None:
        match node.WhichOneof("node"):
            case "grouping_set":
                parts = node.grouping_set.content
            case "row_expr":
                parts = node.row_expr.args
            case _:
                self.expressions.judged(node, scope, env, shown=True)
                return
        for part in parts:
            self._grouped(part, scope, env)

    def _judge_window(self, window: pb.WindowDef, scope: Scope) -> None:
        parts = [*window.partition_clause, *(sort.sort_by.node for sort in window.order_clause)]
        for part in parts:
            if not is_safe(part, lambda ref: self.expressions.type_of(ref, scope)):
                self.expressions.unsafe = True

    def _sorted(self, node: pb.Node, scope: Scope, env: Env, given: set[str]) -> None:
        if bare_name(node) not in given:  # ORDER BY prefers a column of the output
            self.expressions.judged(node, scope, env, shown=True)

    def _limits(self, stmt: pb.SelectStmt, scope: Scope, env: Env) -> None:
        around = Scope(Names(), scope.parent, scope.level)
        for node in (stmt.limit_count, stmt.limit_offset):
            if scope.parent is None:
                self.expressions.walk(node, around, env)  # once, whatever rows there are
            else:
                self.expressions.judged(node, around, env)
                # (4) raised when the query is asked, which may hang on a row around it
                self.expressions.unsafe = self.expressions.unsafe or not is_count(node)

    # -- target list

    def _targets(self, stmt: pb.SelectStmt, scope: Scope, env: Env, *, shown: bool) -> list[Col]:
        given = list(stmt.target_list)
        cols: list[Col] = []
        nodes: list[pb.Node] = []
        for node in given:
            target = node.res_target
            if target.indirection:
                raise Refused("an output column with a field or subscript")
            ref = target.val.column_ref
            if (
                target.val.WhichOneof("node") == "column_ref"
                and ref.fields[-1].WhichOneof("node") == "a_star"
            ):
                nodes += self._star(node, scope, cols)
                continue
            name = target.name or output_name(target.val)
            self.expressions.judged(target.val, scope, env, shown=shown)
            if not target.name and output_name(target.val) != name:
                target.name = name  # as the client would see it without us
            cols.append(self._output(target, name, scope))
            nodes.append(node)
        if len(nodes) != len(given) or any(
            new is not old for new, old in zip(nodes, given, strict=True)
        ):
            fresh = pb.SelectStmt()
            fresh.target_list.extend(nodes)
            del stmt.target_list[:]
            stmt.target_list.extend(fresh.target_list)
        return cols

    def _output(self, target: pb.ResTarget, name: str, scope: Scope) -> Col:
        val = target.val
        which = val.WhichOneof("node")
        if which == "column_ref":
            found = scope.resolve(val.column_ref)
            if isinstance(found, Col):
                return Col(name, type=found.type, origin=found.origin)
        if which == "func_call" and val.func_call.agg_star:
            return Col(name, type="bigint")
        return Col(name)

    def _star(self, node: pb.Node, scope: Scope, cols: list[Col]) -> list[pb.Node]:
        """``*`` and ``alias.*``: written out only where hidden keys would show."""
        ref = node.res_target.val.column_ref
        if len(ref.fields) == 1:
            if not scope.names.relations:
                raise Refused("* without a table")
            found, hidden = scope.names.cols, any(rel.keys for rel in scope.names.relations)
            for col in found:
                col.use()
        else:
            relation = scope.resolve(ref)
            if not isinstance(relation, Relation):  # pragma: no cover
                raise Refused("a star after a column")
            found, hidden = relation.cols, bool(relation.keys)
        cols += [Col(col.name, type=col.type, origin=col.origin) for col in found]
        if len(cols) > MAX_COLUMNS:
            raise TooComplex(f"more than {MAX_COLUMNS} columns in a select list")
        if not hidden:
            return [node]
        nodes = []
        for col in found:
            in_same = [other for other in found if other.name == col.name and other.via == col.via]
            if len(in_same) > 1 or (col.via is None and scope.local(col.name) is not col):
                raise CannotCarry  # cannot be named apart
            parts = (col.name,) if col.via is None else (col.via, col.name)
            nodes.append(_target(parts))
        return nodes

    def _append_keys(self, stmt: pb.SelectStmt, names: Names, *, count: int) -> list[str]:
        keys = []
        for sort in stmt.sort_clause if names.keys else ():
            ordinal = sort.sort_by.node.a_const
            if ordinal.WhichOneof("val") == "ival" and ordinal.ival.ival > count:
                raise Refused("ORDER BY position is not in the select list")
        for alias, name in names.keys:
            key = self.fresh("k")
            stmt.target_list.append(_target((alias, name), key))
            keys.append(key)
        return keys

    # -- conditions copied behind the barrier

    def _copy_inside(self, node: pb.Node, scope: Scope) -> None:
        """``column op constant`` on a clear column of a table here: true outside, true inside."""
        expr = node.a_expr
        if node.WhichOneof("node") != "a_expr" or expr.kind not in _COPIED:
            return
        flipped = expr.lexpr.WhichOneof("node") != "column_ref"
        side, value = (expr.rexpr, expr.lexpr) if flipped else (expr.lexpr, expr.rexpr)
        if side.WhichOneof("node") != "column_ref" or not _is_constant(value):
            return
        ref = side.column_ref
        col = scope.resolve(ref)
        if not isinstance(col, Col) or not col.direct or len(col.bases) != 1 or col.origin is None:
            return
        if not any(col is here for rel in scope.names.relations for here in rel.cols):
            return  # of an outer query: its rows are not ours to filter
        if not col.origin[1].clear:
            return
        if not is_safe(node, lambda ref: self.expressions.type_of(ref, scope)):
            return
        copied = _copied(node)
        inside = copied.a_expr.rexpr if flipped else copied.a_expr.lexpr
        base, name = col.bases[0]
        inside.CopyFrom(tree.column("this", name))
        base.quals.append(copied)


def renamed_cols(cols: list[Col], renamed: tuple[str, ...]) -> list[Col]:
    """The columns under the names of an alias list, which may be shorter."""
    return [
        Col(renamed[at] if at < len(renamed) else col.name, type=col.type, origin=col.origin)
        for at, col in enumerate(cols)
    ]


def _is_constant(node: pb.Node) -> bool:
    match node.WhichOneof("node"):
        case "a_const" | "param_ref":
            return True
        case "type_cast":
            return _is_constant(node.type_cast.arg)
        case "list":
            return all(_is_constant(item) for item in node.list.items)
        case "a_array_expr":
            return all(_is_constant(item) for item in node.a_array_expr.elements)
        case _:
            return False


def _refers_to(message: Message, name: str) -> bool:
    return tree.any_node(
        message,
        lambda found: (
            isinstance(found, pb.RangeVar) and found.relname == name and not found.schemaname
        ),
    )


def _copied(node: pb.Node) -> pb.Node:
    copy = pb.Node()
    copy.CopyFrom(node)
    return copy


@lru_cache(maxsize=4096)
def _target(parts: tuple[str, ...], name: str = "") -> pb.Node:
    """``alias.column [AS name]`` of a target list. Shared: copy it, never change it."""
    copy = _copied(tree.target(".".join(tree.quoted(part) for part in parts), "x"))
    copy.res_target.name = name
    return copy
