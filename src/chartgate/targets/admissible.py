"""Which policies can be turned into row filters, settled when they are loaded.

About a row a policy may say: ``==  !=  in  contains  containsAny  has  &&  ||  !`` and
comparisons, each between one attribute of the row and something known before the query runs.
Whatever touches a row attribute in another way is refused at load, never at query time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from chartgate.cedar.schema import Attribute, EntityRef, PrimitiveType, Schema, SetType
from chartgate.errors import Misconfigured
from chartgate.model.disclosure import VIEW_ACTIONS
from chartgate.model.principal import EntityUid

MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SCALAR_LEFT: Final = frozenset({"==", "!=", "in", "<", "<=", ">", ">="})
_SCALAR_RIGHT: Final = frozenset({"==", "!=", "contains", "<", "<=", ">", ">="})
_SET_LEFT: Final = frozenset({"contains", "containsAny"})
_ORDERED: Final = frozenset({"<", "<=", ">", ">="})
RECORD: Final = "Record"
ROW_ACTIONS: Final = frozenset({*VIEW_ACTIONS.values(), "create", "update", "delete"})


class NotAFilter(Misconfigured):
    """A policy asks of a row what no row filter can answer; names the policy and its place."""

    code = "not_a_filter"


@dataclass(frozen=True, slots=True)
class _Row:
    """The schema's record: what each attribute (or a set's member) is, which are sets, and which
    are entities that are in others."""

    kinds: Mapping[str, str]
    sets: frozenset[str]
    nested: frozenset[str]


def set_attributes(schema: Schema) -> frozenset[str]:
    """The set-valued attributes of a record."""
    return frozenset(
        name for name, a in record_attributes(schema).items() if isinstance(a.type, SetType)
    )


def record_attributes(schema: Schema) -> Mapping[str, Attribute]:
    """What the schema says a record has. Raises ``NotAFilter`` when there is no record."""
    if RECORD not in schema.entities:
        raise NotAFilter(f"{schema.file}: the schema declares no entity {RECORD}")
    return schema.entities[RECORD].attributes


def attribute_kinds(schema: Schema) -> Mapping[str, str]:
    """What a column may hold for an attribute, or for a member of a set: ``String``, ``Long``,
    ``Bool`` or an entity type. What is left out no column can hold."""
    kinds = {}
    for name, attribute in record_attributes(schema).items():
        held = attribute.type.element if isinstance(attribute.type, SetType) else attribute.type
        if isinstance(held, EntityRef | PrimitiveType):
            kinds[name] = held.name
    return kinds


def check_filters(policies: PolicySet, schema: Schema) -> None:
    """Refuse every policy that cannot become a row filter. Raises ``NotAFilter``."""
    kinds = attribute_kinds(schema)
    row = _Row(
        kinds=kinds,
        sets=set_attributes(schema),
        nested=frozenset(
            name
            for name, kind in kinds.items()
            if kind in schema.entities and schema.entities[kind].parents
        ),
    )
    groups = frozenset(parent for action in schema.actions.values() for parent in action.parents)
    for policy in policies.policies:
        named = {e for e in policy.action.entities if isinstance(e, EntityUid)}
        if group := sorted(str(e) for e in named & groups):
            # Filters are made action by action: a group would have to be taken apart first, and a
            # forbid that was overlooked would fail open.
            raise _refused(policy, f"{group[0]} is a group; name its actions one by one")
        if policy.action.op == "all" or {e.id for e in named} & ROW_ACTIONS:
            _check_policy(policy, row)


def _refused(policy: Policy, reason: str) -> NotAFilter:
    return NotAFilter(f"{policy.origin}: policy {policy.id}: {reason}")


def _check_policy(policy: Policy, row: _Row) -> None:
    if policy.is_template:
        raise _refused(policy, "a template decides nothing until its slots are filled")
    if policy.effect == "permit" and (
        policy.action.op not in {"==", "in"} or not policy.action.entities
    ):
        raise _refused(policy, "a permit names its actions with == or a list")
    for reason in _objections(policy.condition(), row):
        raise _refused(policy, reason)


def is_resource(expr: Expr) -> bool:
    """Whether the expression is the variable ``resource``."""
    return isinstance(expr, Var) and expr.name == "resource"


def row_attribute(expr: Expr) -> str | None:
    """The attribute name when the expression is ``resource.<attribute>`` of the row."""
    if isinstance(expr, GetAttr) and is_resource(expr.base) and expr.attr != "category":
        return expr.attr
    return None


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


def _objections(expr: Expr, row: _Row) -> Iterator[str]:
    if not depends_on_row(expr):
        return
    match expr:
        case And(left, right) | Or(left, right):
            yield from _objections(left, row)
            yield from _objections(right, row)
        case Not(arg):
            yield from _objections(arg, row)
        case If(test, then, otherwise):
            if depends_on_row(test):
                yield "'if' may not test a row attribute; use && and ||"
            yield from _objections(then, row)
            yield from _objections(otherwise, row)
        case HasAttr(base, _) if is_resource(base):
            return
        case Is(base, _, None) if is_resource(base):
            return
        case Binary(op, left, right):
            yield from _binary(op, left, right, row)
        case _:
            yield f"{_construct(expr)} cannot be asked of a row"


def _binary(op: str, left: Expr, right: Expr, row: _Row) -> Iterator[str]:
    of_left, of_right = row_attribute(left), row_attribute(right)
    if of_left is not None and not depends_on_row(right):
        allowed = _SET_LEFT if of_left in row.sets else _SCALAR_LEFT
        if op not in allowed or (op == "in" and of_left in row.nested) or _misfit(op, of_left, row):
            yield f"{op} cannot be asked of the row attribute {of_left}"
    elif of_right is not None and not depends_on_row(left):
        if op not in _SCALAR_RIGHT or of_right in row.sets or _misfit(op, of_right, row):
            yield f"{op} cannot be asked of the row attribute {of_right} on its right"
    else:
        yield f"{op} may compare one row attribute with something known before the query"


def _misfit(op: str, attribute: str, row: _Row) -> bool:
    """Whether no column can hold the attribute, or none that could be ordered so."""
    kind = row.kinds.get(attribute)
    return kind is None or (op in _ORDERED and kind != "Long")


def _construct(expr: Expr) -> str:
    if isinstance(expr, Call):
        return f"the function {expr.fn}"
    return type(expr).__name__.lower()
