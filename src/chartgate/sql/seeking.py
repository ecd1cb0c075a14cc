"""Whom a statement looks for: comparisons of a patient's identifier with a value.

Rule kept: a search is recorded whether or not it found anybody, so the value is taken from the
statement and not from the answer.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from postgast import pg_query_pb2 as pb

from chartgate.sql.statement import Sought
from chartgate.sql.tree import names, walk

DomainOf = Callable[[pb.ColumnRef], str | None]
"""The identifier domain of a column, ``None`` for a column that identifies nobody."""

_LISTS: Final = frozenset({pb.AEXPR_IN, pb.AEXPR_BETWEEN, pb.AEXPR_BETWEEN_SYM})
_COMPARES: Final = frozenset({"=", "<", "<=", ">", ">=", "~~", "~~*"})


def sought_in(expr: pb.A_Expr, domain_of: DomainOf) -> Iterator[Sought]:
    """The identifiers that one comparison names."""
    if expr.kind not in _LISTS and names(expr.name)[-1] not in _COMPARES:
        return
    for left, right in ((expr.lexpr, expr.rexpr), (expr.rexpr, expr.lexpr)):
        if left.WhichOneof("node") == "row_expr" and right.WhichOneof("node") == "row_expr":
            if left is expr.lexpr:
                for one, other in zip(left.row_expr.args, right.row_expr.args, strict=False):
                    yield from _pair(one, other, domain_of)
                    yield from _pair(other, one, domain_of)
        else:
            yield from _pair(left, right, domain_of)


def sought_by_name(node: pb.Node, domains: Mapping[str, str]) -> Iterator[Sought]:
    """Whom a statement that was refused looks for: by the names of columns, whatever they mean.

    Its names were not resolved, so a column of that name in any table counts; too much is better.
    """

    def domain_of(ref: pb.ColumnRef) -> str | None:
        return domains.get(ref.fields[-1].string.sval)

    for message in walk(node):
        if isinstance(message, pb.A_Expr):
            yield from sought_in(message, domain_of)


def _pair(side: pb.Node, value: pb.Node, domain_of: DomainOf) -> Iterator[Sought]:
    side = _bare(side)
    if side.WhichOneof("node") != "column_ref":
        return
    if side.column_ref.fields[-1].WhichOneof("node") != "string":
        return
    domain = domain_of(side.column_ref)
    if domain is not None:
        yield from _values(value, domain)


def _values(node: pb.Node, domain: str) -> Iterator[Sought]:
    node = _bare(node)
    match node.WhichOneof("node"):
        case "param_ref":
            yield Sought(domain, None, node.param_ref.number)
        case "a_const":
            text = constant_text(node.a_const)
            if text is not None:
                yield Sought(domain, text, None)
        case "list":
            for item in node.list.items:
                yield from _values(item, domain)
        case "a_array_expr":
            for item in node.a_array_expr.elements:
                yield from _values(item, domain)
        case "row_expr":
            for item in node.row_expr.args:
                yield from _values(item, domain)


def _bare(node: pb.Node) -> pb.Node:
    """The value below casts and collations."""
    while True:
        match node.WhichOneof("node"):
            case "type_cast":
                node = node.type_cast.arg
            case "collate_clause":
                node = node.collate_clause.arg
            case _:
                return node


def constant_text(const: pb.A_Const) -> str | None:
    """A constant as the text of its value, ``None`` for NULL."""
    match const.WhichOneof("val"):
        case "sval":
            return str(const.sval.sval)
        case "ival":
            return str(const.ival.ival)
        case "fval":
            return str(const.fval.fval)
        case "boolval":
            return "true" if const.boolval.boolval else "false"
        case "bsval":
            return str(const.bsval.bsval)
        case _:
            return None
