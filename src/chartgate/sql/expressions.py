"""The walk over expressions: every name resolved, every sub-query rewritten, every risk noted.

Rule kept: no expression is passed on unread. What cannot be judged *safe* outside the top-level
target list puts every filtered table of the statement behind a barrier.
"""

from typing import Final, Protocol

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql import system_functions
from chartgate.sql.admit import restores_jit
from chartgate.sql.allow import AGGREGATES
from chartgate.sql.safe import comparable, family, is_safe, kind_of
from chartgate.sql.scope import CannotCarry, Col, Env, Relation, Scope
from chartgate.sql.seeking import sought_in
from chartgate.sql.statement import Sought
from chartgate.sql.system_objects import Scene
from chartgate.sql.tree import branches, children, names

_FIELDS: Final = frozenset({"n", "x", "key", "value"})
"""Fields of records that listed functions return; no function of ``pg_catalog`` has these names,
so ``(record).name`` can mean nothing but the field."""

_COMPARES: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})


class Queries(Protocol):
    """What the walk needs when it meets a sub-query."""

    def query(
        self,
        stmt: pb.SelectStmt,
        parent: Scope | None,
        env: Env,
        *,
        carry: bool,
        top: bool,
        shown: bool = True,
    ) -> "Output":
        """Rewrite the sub-query in place; ``shown``: see ``Expressions.walk``."""


class Output:
    """What a rewritten query gives to the query around it."""

    __slots__ = ("cols", "correlated", "keys")

    def __init__(self, cols: list[Col], keys: list[str], *, correlated: bool) -> None:
        self.cols = cols
        self.keys = keys
        self.correlated = correlated


class Expressions:
    """The walk; ``unsafe`` and ``sought`` are its findings over the whole statement."""

    def __init__(self, queries: Queries, scene: Scene) -> None:
        self._queries = queries
        self.scene = scene
        self.unsafe = False
        self.judging = True
        self.sought: dict[Sought, None] = {}

    def judged(self, node: pb.Node, scope: Scope, env: Env, *, shown: bool = False) -> None:
        """Walk an expression that may run on hidden rows."""
        self.walk(node, scope, env, shown=shown)
        if self.judging and not self.unsafe:
            self.unsafe = not is_safe(node, lambda ref: self.type_of(ref, scope))

    def walk(self, node: pb.Node, scope: Scope, env: Env, *, shown: bool = False) -> None:
        """Rewrite an expression, in place.

        ``shown``: its value is what the person reads, so an object's name is a text and no oid.
        """
        which = node.WhichOneof("node")
        match which:
            case None | "a_const" | "param_ref" | "string":
                return
            case "column_ref":
                found = scope.resolve(node.column_ref)
                if isinstance(found, Relation) and found.keys:
                    raise CannotCarry
                return
            case "a_indirection":
                self._indirection(node, scope, env)
                return
            case "sub_link":
                self._sub_link(node.sub_link, scope, env, shown=shown)
                return
            case "type_cast":
                names_it = system_functions.names_as_text(node.type_cast)
                self.walk(node.type_cast.arg, scope, env, shown=names_it)
            case "case_expr" if shown:
                self._choice(node.case_expr, scope, env)
            case "coalesce_expr" if shown:
                for arg in node.coalesce_expr.args:
                    self.walk(arg, scope, env, shown=True)
            case "set_to_default" | "select_stmt":
                raise Refused("a query or DEFAULT where an expression should stand")
            case "sqlvalue_function":
                pass
            case _:
                self.descend(getattr(node, which), scope, env)
        if which == "a_expr":
            for found_one in sought_in(node.a_expr, lambda ref: self._domain(ref, scope)):
                self.sought[found_one] = None
        elif which in ("func_call", "sqlvalue_function", "type_cast"):
            if which == "func_call" and restores_jit(node.func_call):
                return
            instead = system_functions.substitute(node, self.scene, shown=shown)
            if instead is not None:
                # (1) the answer reads the real catalogs; it is never walked again
                node.CopyFrom(instead)
                self.unsafe = self.unsafe or self.judging

    def descend(self, message: Message, scope: Scope, env: Env) -> None:
        """Walk every expression below a message that is none itself."""
        for child in children(message):
            if isinstance(child, pb.Node):
                self.walk(child, scope, env)
            else:
                self.descend(child, scope, env)

    def _choice(self, case: pb.CaseExpr, scope: Scope, env: Env) -> None:
        """CASE whose result is shown."""
        self.walk(case.arg, scope, env)
        for when in case.args:
            self.walk(when.case_when.expr, scope, env)
            self.walk(when.case_when.result, scope, env, shown=True)
        self.walk(case.defresult, scope, env, shown=True)

    def type_of(self, ref: pb.ColumnRef, scope: Scope) -> str | None:
        """The declared type of the column that a reference means."""
        found = scope.resolve(ref)
        return found.type if isinstance(found, Col) else None

    def _domain(self, ref: pb.ColumnRef, scope: Scope) -> str | None:
        found = scope.resolve(ref)
        if not isinstance(found, Col) or found.origin is None:
            return None
        view, column = found.origin
        return (view.patient_columns or {}).get(column.name)

    def _indirection(self, node: pb.Node, scope: Scope, env: Env) -> None:
        """``(p).c`` of a table is ``p.c``; ``(f(x)).n`` and ``a[1]`` are what they are."""
        parts = node.a_indirection.indirection
        arg = node.a_indirection.arg
        first = parts[0].WhichOneof("node")
        if first in ("string", "a_star") and arg.WhichOneof("node") == "column_ref":
            ref = pb.ColumnRef()
            ref.CopyFrom(arg.column_ref)
            if isinstance(scope.resolve(ref), Relation):
                if (
                    len(parts) > 1
                    or first == "a_star"
                    or ref.fields[-1].WhichOneof("node") != "string"
                ):
                    raise Refused("(table).* and fields of fields: write table.* or table.column")
                # (2) attribute notation: resolve() refuses what is no column of the table
                ref.fields.append(parts[0])
                scope.resolve(ref)
                node.column_ref.CopyFrom(ref)
                return
        self.walk(arg, scope, env)
        for part in parts:
            match part.WhichOneof("node"):
                case "string":
                    if part.string.sval not in _FIELDS:
                        raise Refused("a field of a record is not allowed")
                case "a_indices":
                    self.descend(part.a_indices, scope, env)
                case _:
                    raise Refused("(record).* is not allowed")

    def _sub_link(self, link: pb.SubLink, scope: Scope, env: Env, *, shown: bool) -> None:
        if link.HasField("testexpr"):
            self.walk(link.testexpr, scope, env)
        if link.subselect.WhichOneof("node") != "select_stmt":
            raise Refused("a sub-query that is no SELECT")
        one_row = is_one_row(link.subselect.select_stmt)
        out = self._queries.query(
            link.subselect.select_stmt, scope, env, carry=False, top=False, shown=shown
        )
        if not self.judging or self.unsafe:
            return
        match link.sub_link_type:
            case pb.EXISTS_SUBLINK | pb.ARRAY_SUBLINK:
                safe = True
            case pb.EXPR_SUBLINK:
                # (3) "more than one row" is an error, and tells of the row it was asked for
                safe = one_row
            case pb.ANY_SUBLINK | pb.ALL_SUBLINK:
                operator = names(link.oper_name)[-1] if link.oper_name else "="

                def type_of(ref: pb.ColumnRef) -> str | None:
                    return self.type_of(ref, scope)

                safe = (
                    operator in _COMPARES
                    and len(out.cols) == 1
                    and is_safe(link.testexpr, type_of)
                    and comparable(kind_of(link.testexpr, type_of), family(out.cols[0].type))
                )
            case _:
                safe = False
        self.unsafe = not safe


def has_aggregate(*nodes: Message) -> bool:
    """Whether an aggregate of this query level is in there; sub-links are levels of their own."""
    for node in nodes:
        if isinstance(node, pb.SubLink | pb.SelectStmt):
            continue
        if (
            isinstance(node, pb.FuncCall)
            and not node.HasField("over")
            and (node.agg_within_group or node.agg_star or names(node.funcname)[-1] in AGGREGATES)
        ):
            return True
        if isinstance(node, pb.GroupingFunc) or has_aggregate(*branches(node)):
            return True
    return False


def is_one_row(select: pb.SelectStmt) -> bool:
    """Whether the query cannot give a second row."""
    if select.op != pb.SETOP_NONE or select.values_lists:
        return False
    limit = select.limit_count.a_const
    if limit.WhichOneof("val") == "ival" and limit.ival.ival <= 1:
        return bool(select.limit_option == pb.LIMIT_OPTION_COUNT)
    return not select.group_clause and has_aggregate(*select.target_list)
