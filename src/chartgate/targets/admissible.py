"""Which policies can be turned into row filters, settled when they are loaded.

About a row a policy may say: ``==  !=  in  contains  containsAny  has  &&  ||  !`` and
comparisons, each between one attribute of the row and something known before the query runs.
Whatever touches a row attribute in another way is refused at load, never at query time.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from chartgate.cedar.ast import (
    And,
    Binary,
    Call,
    Expr,
    GetAttr,
    HasAttr,
    If,
    Is,
    Like,
    Not,
    Or,
    Policy,
    PolicySet,
    RecordExpr,
    SetExpr,
    Unary,
    Var,
)
from chartgate.cedar.schema import Attribute, SetType
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.model.principal import EntityUid

MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SCALAR_LEFT: Final = frozenset({"==", "!=", "in", "<", "<=", ">", ">="})
_SCALAR_RIGHT: Final = frozenset({"==", "!=", "contains", "<", "<=", ">", ">="})
_SET_LEFT: Final = frozenset({"contains", "containsAny"})
ROW_ACTIONS: Final = frozenset({*VIEW_ACTIONS.values(), "create", "update", "delete"})


class NotAFilter(Misconfigured):
    """A policy asks of a row what no row filter can answer; names the policy and its place."""

    code = "not_a_filter"


def check_filters(policies: PolicySet, record: Mapping[str, Attribute]) -> None:
    """Refuse every policy that cannot become a row filter.

    ``record`` are the schema's attributes of a record. Raises ``NotAFilter``.
    """
    sets = frozenset(name for name, a in record.items() if isinstance(a.type, SetType))
    for policy in policies.policies:
        actions = {e.id for e in policy.action.entities if isinstance(e, EntityUid)}
        if policy.action.op == "all" or actions & ROW_ACTIONS:
            _check_policy(policy, sets)


def _check_policy(policy: Policy, sets: frozenset[str]) -> None:
    if policy.effect == "permit" and (
        policy.action.op not in {"==", "in"} or not policy.action.entities
    ):
        raise NotAFilter(
            f"{policy.origin}: policy {policy.id}: a permit names its actions with == or a list"
        )
    for reason in _objections(policy.condition(), sets):
        raise NotAFilter(f"{policy.origin}: policy {policy.id}: {reason}")


def is_resource(expr: Expr) -> bool:
    """Whether the expression is the variable ``resource``."""
    return isinstance(expr, Var) and expr.name == "resource"


def row_attribute(expr: Expr) -> str | None:
    """The attribute name when the expression is ``resource.<attribute>`` of the row."""
    if isinstance(expr, GetAttr) and is_resource(expr.base) and expr.attr != "category":
        return expr.attr
    return None


@lru_cache(maxsize=65536)
def depends_on_row(expr: Expr) -> bool:
    """Whether the value depends on more of the resource than the label asked about."""
    if isinstance(expr, GetAttr) and is_resource(expr.base):
        return expr.attr != "category"
    if isinstance(expr, HasAttr) and is_resource(expr.base):
        return expr.attr != "category"
    if is_resource(expr):
        return True
    return any(depends_on_row(child) for child in children(expr))


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expression's direct parts."""
    match expr:
        case And(left, right) | Or(left, right) | Binary(_, left, right):
            return (left, right)
        case Not(arg) | Unary(_, arg) | Like(arg, _):
            return (arg,)
        case GetAttr(base, _) | HasAttr(base, _):
            return (base,)
        case If(test, then, otherwise):
            return (test, then, otherwise)
        case Is(arg, _, inside):
            return (arg,) if inside is None else (arg, inside)
        case SetExpr(items) | Call(_, items):
            return items
        case RecordExpr(pairs):
            return tuple(item for _, item in pairs)
    return ()


def _objections(expr: Expr, sets: frozenset[str]) -> Iterator[str]:
    if not depends_on_row(expr):
        return
    match expr:
        case And(left, right) | Or(left, right):
            yield from _objections(left, sets)
            yield from _objections(right, sets)
        case Not(arg):
            yield from _objections(arg, sets)
        case If(test, then, otherwise):
            if depends_on_row(test):
                yield "'if' may not test a row attribute; use && and ||"
            yield from _objections(then, sets)
            yield from _objections(otherwise, sets)
        case HasAttr(base, _) if is_resource(base):
            return
        case Is(base, _, None) if is_resource(base):
            return
        case Binary(op, left, right):
            yield from _binary(op, left, right, sets)
        case _:
            yield f"{_construct(expr)} cannot be asked of a row"


def _binary(op: str, left: Expr, right: Expr, sets: frozenset[str]) -> Iterator[str]:
    of_left, of_right = row_attribute(left), row_attribute(right)
    if of_left is not None and not depends_on_row(right):
        allowed = _SET_LEFT if of_left in sets else _SCALAR_LEFT
        if op not in allowed:
            yield f"{op} cannot be asked of the row attribute {of_left}"
    elif of_right is not None and not depends_on_row(left):
        if op not in _SCALAR_RIGHT or of_right in sets:
            yield f"{op} cannot be asked of the row attribute {of_right} on its right"
    else:
        yield f"{op} may compare one row attribute with something known before the query"


def _construct(expr: Expr) -> str:
    if isinstance(expr, Call):
        return f"the function {expr.fn}"
    return type(expr).__name__.lower()
