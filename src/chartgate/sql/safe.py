"""Which expressions may run on rows that policy hides.

Rule kept: an expression is *safe* when it can neither raise nor otherwise tell what it saw:
comparisons whose operators PostgreSQL marks leakproof, on types listed here, joined by AND, OR,
NOT, CASE and COALESCE. Everything else keeps the derived tables behind a barrier.
"""

import re
from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.sql.allow import AGGREGATES, WINDOW_FUNCTIONS
from chartgate.sql.tree import branches, names

TypeOf = Callable[[pb.ColumnRef], str | None]
"""The declared type of a column, ``None`` if it is not known."""

_FAMILIES: Final = {
    "smallint": "int", "integer": "int", "bigint": "int", "int2": "int", "int4": "int",
    "int8": "int", "text": "text", "character varying": "text", "varchar": "text",
    "character": "bpchar", "bpchar": "bpchar", "date": "time", "timestamp": "time",
    "timestamptz": "time", "timestamp without time zone": "time",
    "timestamp with time zone": "time", "uuid": "uuid", "boolean": "bool", "bool": "bool",
    "double precision": "float", "float8": "float",
}  # fmt: skip
_FOLDED: Final = frozenset({"int", "text", "bpchar", "uuid", "bool", "float"})
_SUMS: Final = frozenset({"sum", "avg"})
_NEVER_RAISE: Final = frozenset(
    {
        "any_value", "array_agg", "bool_and", "bool_or", "count", "cume_dist", "dense_rank",
        "every", "first_value", "lag", "last_value", "lead", "max", "min", "percent_rank", "rank",
        "row_number", "string_agg",
    }
)  # fmt: skip
_PARTS: Final = frozenset(
    ["year", "quarter", "month", "week", "day", "dow", "isodow", "doy", "epoch"]
)
_OF_TIME: Final = {
    "date_trunc": frozenset(["year", "quarter", "month", "week", "day", "hour", "minute"]),
    "extract": _PARTS,
    "date_part": _PARTS,
}
_COMPARES: Final = frozenset({"=", "<>", "!=", "<", "<=", ">", ">="})
_LIKES: Final = frozenset({"~~", "!~~"})
_CONSTANT: Final = "constant"
_NUMERIC: Final = "numeric constant"
_CLOCK: Final = frozenset({"now", "statement_timestamp", "transaction_timestamp"})
_CLOCK_OPS: Final = frozenset(
    {pb.SVFOP_CURRENT_DATE, pb.SVFOP_CURRENT_TIMESTAMP, pb.SVFOP_LOCALTIMESTAMP}
)
_SPAN: Final = re.compile(
    r"[0-9]{1,3} ?(?:seconds?|minutes?|hours?|days?|weeks?|mons?|months?|years?)", re.ASCII
)
"""No more than three digits: 9,999 years ago is before the first timestamp, which raises."""


def family(type_sql: str | None) -> str | None:
    """The group of types that compare without raising, or ``None``."""
    if type_sql is None:
        return None
    return _FAMILIES.get(re.sub(r" ?\([0-9, ]*\)", "", type_sql).lower())


def is_safe(node: pb.Node, type_of: TypeOf) -> bool:
    """Whether evaluating it on a hidden row can tell nothing."""
    match node.WhichOneof("node"):
        case "a_const" | "param_ref" | "column_ref" | "sub_link" | None:
            # (1) a sub-link's own parts, and its comparison, are judged where it is rewritten
            return True
        case "bool_expr":
            return all(is_safe(arg, type_of) for arg in node.bool_expr.args)
        case "a_array_expr":
            kinds = [kind_of(item, type_of) for item in node.a_array_expr.elements]
            safe = all(is_safe(item, type_of) for item in node.a_array_expr.elements)
            return safe and bool(kinds) and _alike(kinds)
        case "null_test":
            return is_safe(node.null_test.arg, type_of)
        case "boolean_test":
            return is_safe(node.boolean_test.arg, type_of)
        case "coalesce_expr":
            kinds = [kind_of(arg, type_of) for arg in node.coalesce_expr.args]
            return _alike(kinds) and all(is_safe(arg, type_of) for arg in node.coalesce_expr.args)
        case "case_expr":
            return _case(node.case_expr, type_of)
        case "a_expr":
            return _comparison(node.a_expr, type_of) or _clock(node)
        case "type_cast":
            return _cast(node.type_cast, type_of)
        case "sqlvalue_function" | "func_call":
            return _clock(node) or _aggregate(node, type_of) or _is_total(node, type_of)
        case _:
            return False


def kind_of(node: pb.Node, type_of: TypeOf) -> str | None:
    """The family of a value, ``constant`` for what takes the other side's type, or ``None``."""
    match node.WhichOneof("node"):
        case "column_ref":
            return family(type_of(node.column_ref))
        case "param_ref":
            return _CONSTANT
        case "a_const":
            return _NUMERIC if node.a_const.WhichOneof("val") == "fval" else _CONSTANT
        case "type_cast":
            return None if node.type_cast.type_name.array_bounds else _named(node.type_cast)
        case "coalesce_expr":
            for arg in node.coalesce_expr.args:
                found = kind_of(arg, type_of)
                if found != _CONSTANT:
                    return found
            return _CONSTANT
        case "func_call":
            # Says nothing of whether it is safe: asking both ways at each level would double the
            # work of every level below it.
            return "time" if _clock(node) or _is_cut_short(node.func_call, type_of) else None
        case _:
            return "time" if _clock(node) else None


def comparable(left: str | None, right: str | None) -> bool:
    """Whether values of the two kinds compare without raising."""
    if left is None or right is None:
        return False
    if _NUMERIC in (left, right):
        return {left, right} <= {_NUMERIC, _CONSTANT, "float"}
    return left == right or _CONSTANT in (left, right)


def _alike(kinds: list[str | None]) -> bool:
    return all(comparable(kinds[0], kind) for kind in kinds)


def _named(cast: pb.TypeCast) -> str | None:
    return family(names(cast.type_name.names)[-1])


def _comparison(expr: pb.A_Expr, type_of: TypeOf) -> bool:
    left = kind_of(expr.lexpr, type_of)
    if not is_safe(expr.lexpr, type_of):
        return False
    operator = names(expr.name)[-1]
    match expr.kind:
        case pb.AEXPR_OP | pb.AEXPR_DISTINCT | pb.AEXPR_NOT_DISTINCT | pb.AEXPR_NULLIF:
            return (
                expr.HasField("lexpr")
                and operator in _COMPARES
                and is_safe(expr.rexpr, type_of)
                and comparable(left, kind_of(expr.rexpr, type_of))
            )
        case pb.AEXPR_IN | pb.AEXPR_BETWEEN | pb.AEXPR_NOT_BETWEEN:
            items = expr.rexpr.list.items
            return all(
                is_safe(item, type_of) and comparable(left, kind_of(item, type_of))
                for item in items
            )
        case pb.AEXPR_OP_ANY | pb.AEXPR_OP_ALL:
            return operator in _COMPARES and left is not None and _array(expr.rexpr, left)
        case pb.AEXPR_LIKE:
            pattern = expr.rexpr.a_const
            return (
                operator in _LIKES
                and left in ("text", "bpchar")
                and expr.rexpr.WhichOneof("node") == "a_const"
                and pattern.WhichOneof("val") == "sval"
                # (2) a pattern that ends in its escape character raises on some rows only
                and not pattern.sval.sval.endswith("\\")
            )
        case _:
            return False


def _array(node: pb.Node, left: str) -> bool:
    """An array given with the statement: ``$1``, ``'{…}'``, ``ARRAY[1, 2]``, cast or not."""
    which = node.WhichOneof("node")
    if which == "type_cast":
        if node.type_cast.arg.WhichOneof("node") == "param_ref":
            return False  # casting an array is STABLE: made when a row is met, see (4)
        return comparable(left, _named(node.type_cast)) and _array(node.type_cast.arg, left)
    if which == "a_array_expr":
        return all(
            item.WhichOneof("node") in ("a_const", "param_ref")
            and comparable(left, kind_of(item, lambda _: None))
            for item in node.a_array_expr.elements
        )
    return which in ("a_const", "param_ref")


def _cast(cast: pb.TypeCast, type_of: TypeOf) -> bool:
    which = cast.arg.WhichOneof("node")
    if which == "a_const":
        return True  # read by the grammar's own caster, before any row
    if which == "param_ref":
        # (4) a parameter declared as text is cast when the plan is made, unless the cast is only
        # STABLE, as those of dates are: then it is made when a row is met
        return not cast.type_name.array_bounds and _named(cast) in _FOLDED
    return (
        _named(cast) == "text"
        and not cast.type_name.array_bounds
        and kind_of(cast.arg, type_of) is not None
        and is_safe(cast.arg, type_of)
    )


def _case(case: pb.CaseExpr, type_of: TypeOf) -> bool:
    parts = [case.arg, case.defresult]
    for when in case.args:
        parts += [when.case_when.expr, when.case_when.result]
        if case.HasField("arg") and not comparable(
            kind_of(case.arg, type_of), kind_of(when.case_when.expr, type_of)
        ):
            return False
    results = [when.case_when.result for when in case.args]
    if case.HasField("defresult"):
        results.append(case.defresult)
    # (3) results of different types are cast to a common one, and a cast may raise
    kinds = [kind_of(result, type_of) for result in results]
    return all(is_safe(part, type_of) for part in parts) and (len(kinds) == 1 or _alike(kinds))


def _clock(node: pb.Node) -> bool:
    """``now()``, ``CURRENT_DATE``, also minus a small constant interval: they cannot raise."""
    which = node.WhichOneof("node")
    if which == "sqlvalue_function":
        return node.sqlvalue_function.op in _CLOCK_OPS
    if which == "func_call":
        return names(node.func_call.funcname)[-1] in _CLOCK and not node.func_call.args
    if which != "a_expr" or node.a_expr.kind != pb.AEXPR_OP:
        return False
    expr = node.a_expr
    if names(expr.name)[-1] not in ("+", "-") or not _clock(expr.lexpr):
        return False
    span = expr.rexpr.type_cast
    return (
        expr.lexpr.WhichOneof("node") != "a_expr"
        and expr.rexpr.WhichOneof("node") == "type_cast"
        and names(span.type_name.names)[-1] == "interval"
        and not span.type_name.typmods
        and _SPAN.fullmatch(span.arg.a_const.sval.sval) is not None
    )


def _is_total(node: pb.Node, type_of: TypeOf) -> bool:
    """A call that gives a value for every argument of its type.

    Not marked leakproof, but without an error to raise: a part of a date, a date cut short.
    """
    call = node.func_call
    if node.WhichOneof("node") != "func_call" or len(call.args) != 2 or call.HasField("over"):
        return False
    name = names(call.funcname)[-1]
    # (5) a unit that the type lacks is an error, so only those that all types have
    return (
        name in _OF_TIME
        and call.args[0].a_const.sval.sval in _OF_TIME[name]
        and kind_of(call.args[1], type_of) == "time"
        and is_safe(call.args[1], type_of)
    )


def _is_cut_short(call: pb.FuncCall, type_of: TypeOf) -> bool:
    """``date_trunc(…)`` of a time is a time."""
    return (
        names(call.funcname)[-1] == "date_trunc"
        and len(call.args) == 2
        and kind_of(call.args[1], type_of) == "time"
    )


def may_raise_late(message: Message) -> bool:
    """Whether a query that is not the outermost may raise by an aggregate, a window or a LIMIT.

    These see visible rows only, but *whether* such a query is asked at all can hang on a row of
    the query around it: ``last_name = 'x' AND (SELECT sum(1e308) FROM t) IS NULL``.
    """
    if isinstance(message, pb.FuncCall) and _raises(message):
        return True
    if isinstance(message, pb.WindowDef) and (
        message.HasField("start_offset") or message.HasField("end_offset")
    ):
        return True
    return any(
        may_raise_late(child)
        for child in branches(message)
        if not isinstance(child, pb.SelectStmt | pb.SubLink)
    )


def is_count(node: pb.Node) -> bool:
    """What LIMIT and OFFSET take without an error: nothing, NULL or a number that is not below 0."""
    constant = node.a_const
    match node.WhichOneof("node"):
        case None:
            return True
        case "a_const":
            return bool(
                constant.isnull
                or (constant.WhichOneof("val") == "ival" and constant.ival.ival >= 0)
            )
        case _:
            return False


def _raises(call: pb.FuncCall) -> bool:
    name = names(call.funcname)[-1]
    if name in _SUMS:
        # (6) a sum of the table's own values may be too large too, but not by the asker's choice
        return any(arg.WhichOneof("node") != "column_ref" for arg in call.args)
    return (name in AGGREGATES or name in WINDOW_FUNCTIONS) and name not in _NEVER_RAISE


def _aggregate(node: pb.Node, type_of: TypeOf) -> bool:
    """An aggregate runs above every filter of its own query, so only its arguments matter."""
    if node.WhichOneof("node") != "func_call":
        return False
    call = node.func_call
    name = names(call.funcname)[-1]
    if name not in AGGREGATES and not (call.HasField("over") and name in WINDOW_FUNCTIONS):
        return False
    parts = [*call.args, *(sort.sort_by.node for sort in call.agg_order)]
    if call.HasField("agg_filter"):
        parts.append(call.agg_filter)
    over = call.over
    parts += [*over.partition_clause, *(sort.sort_by.node for sort in over.order_clause)]
    return all(is_safe(part, type_of) for part in parts)
