"""Rule kept: what we do not know, we refuse, at every node and every field of it.

One pass over a copy of the statement. Functions, types, collations and qualified operators come
out in ``pg_catalog``, so no object of the database's own can stand in for them.
"""

from functools import lru_cache
from typing import Any

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql import allow
from chartgate.sql.system_functions import check_setting_call
from chartgate.sql.tree import HIDDEN, names, set_names

CATALOG = "pg_catalog"

_CONSTANT = frozenset({"Float", "BitString"})


class NotAllowed(Refused):
    """A construct, function, type or operator that is on no allow-list."""

    code = "not_allowed"


@lru_cache(maxsize=512)
def _plan(descriptor: Any) -> tuple[frozenset[str] | None, dict[str, str]]:
    kinds = {
        field.name: (
            "message"
            if field.message_type is not None
            else "text"
            if field.type == field.TYPE_STRING
            else "value"
        )
        + ("*" if field.is_repeated else "")
        for field in descriptor.fields
    }
    return allow.NODES.get(descriptor.name), kinds


def admit(message: Message) -> None:
    """Check the tree, in place: refuse what is unknown, qualify what is known."""
    name = message.DESCRIPTOR.name
    if name == "Node":
        which = message.WhichOneof("node")
        if which is None:
            return  # an absent list element, as the grammar leaves them
        admit(getattr(message, which))
        return
    known, kinds = _plan(message.DESCRIPTOR)
    if known is None:
        raise NotAllowed(f"{spoken(name)} is not allowed")
    for field, value in message.ListFields():
        if field.name not in known:
            raise NotAllowed(f"{spoken(name)} with {spoken(field.name)} is not allowed")
        kind = kinds[field.name]
        if kind == "message":
            if name != "A_Const":
                admit(value)
        elif kind == "message*":
            for item in value:
                admit(item)
        elif kind == "text" and name not in _CONSTANT and value.lower().startswith(HIDDEN):
            raise NotAllowed(f"names that begin with {HIDDEN} are kept for the gateway")
    check = _CHECKS.get(name)
    if check is not None:
        check(message)


def spoken(name: str) -> str:
    """A message or field name of the parser's, in words."""
    out = "".join(f" {c.lower()}" if c.isupper() else c for c in name).replace("_", " ")
    return " ".join(out.split()).removesuffix(" stmt")


def _function(call: Any) -> None:
    parts = names(call.funcname)
    own = parts[-1]
    if len(parts) == 2 and parts in allow.QUALIFIED_FUNCTIONS:
        return
    if len(parts) > 1 and parts[:-1] != (CATALOG,):
        raise NotAllowed("functions of the database's own schemas are not allowed")
    if own in allow.SETTING_FUNCTIONS:
        if not restores_jit(call):
            check_setting_call(call)
    elif call.HasField("over"):
        if own not in allow.AGGREGATES and own not in allow.WINDOW_FUNCTIONS:
            raise NotAllowed(f"window function {_safe_name(own)} is not allowed")
    elif own in allow.WINDOW_FUNCTIONS:
        if not call.agg_within_group:
            raise NotAllowed(f"window function {own} needs OVER")
    elif own not in allow.FUNCTIONS and own not in allow.AGGREGATES:
        raise NotAllowed(f"function {_safe_name(own)} is not allowed")
    set_names(call.funcname, (CATALOG, own))


def restores_jit(call: pb.FuncCall) -> bool:
    """``set_config('jit', $1, false)``: how asyncpg restores what it turned off; speed only."""
    return (
        names(call.funcname)[-1] == "set_config"
        and len(call.args) == 3
        and call.args[0].a_const.sval.sval == "jit"
        and call.args[1].WhichOneof("node") == "param_ref"
    )


def _safe_name(name: str) -> str:
    """A function's name if it looks like one; anything else may be a value in the wrong place."""
    return (
        f"{name}()" if name.isascii() and name.isidentifier() and name.islower() else "of that name"
    )


def _type(node: Any) -> None:
    parts = names(node.names)
    if len(parts) > 1 and parts[:-1] != (CATALOG,):
        raise NotAllowed("types of the database's own schemas are not allowed")
    if parts[-1] not in allow.TYPES:
        raise NotAllowed(f"type {_safe_name(parts[-1]).removesuffix('()')} is not allowed")
    if any(item.a_const.WhichOneof("val") != "ival" for item in node.typmods):
        raise NotAllowed("the length of a type must be a number")
    set_names(node.names, (CATALOG, parts[-1]))


def _column_definition(node: Any) -> None:
    # (1) JSON text read as an object's name would tell whether the object exists
    if names(node.type_name.names)[-1].startswith("reg"):
        raise NotAllowed("a column of this type cannot be read from JSON")


def _operator(parts: tuple[str, ...]) -> None:
    if len(parts) > 1 and parts[:-1] != (CATALOG,):
        raise NotAllowed("operators of the database's own schemas are not allowed")
    if parts[-1] not in allow.OPERATORS:
        raise NotAllowed("an operator that is not allowed")


_WORDED = frozenset(
    {pb.AEXPR_BETWEEN, pb.AEXPR_NOT_BETWEEN, pb.AEXPR_BETWEEN_SYM, pb.AEXPR_NOT_BETWEEN_SYM}
)


def _a_expr(node: Any) -> None:
    if node.kind not in _WORDED:
        _operator(names(node.name))


def _sub_link(node: Any) -> None:
    if node.oper_name:
        _operator(names(node.oper_name))


def _collation(node: Any) -> None:
    parts = names(node.collname)
    if len(parts) > 1 and parts[:-1] != (CATALOG,):
        raise NotAllowed("collations of the database's own schemas are not allowed")
    set_names(node.collname, (CATALOG, parts[-1]))


def _range_var(node: Any) -> None:
    if node.relpersistence != "p":
        raise NotAllowed("temporary tables are not allowed")


_CHECKS = {
    "ColumnDef": _column_definition,
    "FuncCall": _function,
    "TypeName": _type,
    "A_Expr": _a_expr,
    "SubLink": _sub_link,
    "CollateClause": _collation,
    "RangeVar": _range_var,
}
