"""Partial evaluation: a policy's condition with everything known but the row.

Principal, action, context and label are known; what the row says is not. The outcome is a pair of
formulas over the row: when the condition is *true* and when it is *false*. A row for which neither
holds is one where evaluation errs, as ``chartgate.cedar.evaluate`` would: the same order, the same
short circuits. Permits ask for *true*; forbids must be *false*, so that a forbid which errs on a
row excludes it (the documented hardening of Cedar's "skip on error").
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from chartgate.cedar.ast import And, Binary, Expr, HasAttr, If, Is, Not, Or
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.values import CedarSet, Value
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import (
    MIRRORED,
    depends_on_row,
    is_resource,
    row_attribute,
)
from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
    CompareOp,
    Compares,
    Formula,
    HasMember,
    IsOneOf,
    Present,
    Scalar,
    conjunction,
    disjunction,
)


@dataclass(frozen=True, slots=True)
class RowShape:
    """Which attributes a table's rows have: scalars (each perhaps absent) and sets.

    A scalar that is not listed is absent from every row; a set that is not listed is empty.
    """

    scalars: frozenset[str]
    sets: frozenset[str]
    declared_sets: frozenset[str]
    """Every set-valued attribute of the schema, mapped here or not."""
    kinds: Mapping[str, str] = field(compare=False)
    """What an attribute, or a set's member, is by the schema: ``String``, ``Long``, ``Bool`` or an
    entity type. A value of another kind equals none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """When a condition is true and when it is false; on any other row it errs."""

    true: Formula
    false: Formula


TRUE: Final = Outcome(ALWAYS, NEVER)
FALSE: Final = Outcome(NEVER, ALWAYS)
ERROR: Final = Outcome(NEVER, NEVER)


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known when a statement is decided.

    ``env.resource`` is an entity that carries the label and nothing else.
    """

    env: Env
    shape: RowShape


def specialise(expr: Expr, known: Known) -> Outcome:
    """The outcome of a condition over rows. Only admissible expressions may come here."""
    match expr:
        case And(left, right):
            return _both(specialise(left, known), lambda: specialise(right, known))
        case Or(left, right):
            return _negate(
                _both(_negate(specialise(left, known)), lambda: _negate(specialise(right, known)))
            )
        case Not(arg):
            return _negate(specialise(arg, known))
        case _ if not depends_on_row(expr):
            return _constant(expr, known)
        case If(test, then, otherwise):
            chosen = _constant(test, known)
            if chosen == ERROR:
                return ERROR
            return specialise(then if chosen == TRUE else otherwise, known)
        case HasAttr(base, attribute) if is_resource(base):
            return _has(attribute, known.shape)
        case Is(base, type_name, None) if is_resource(base):
            return TRUE if known.env.resource.type == type_name else FALSE
        case Binary():
            return _relation(expr, known)
    raise AssertionError("not admissible; refused when the policies were loaded")


def _both(left: Outcome, right: Callable[[], Outcome]) -> Outcome:
    """``left && right``: the right side counts only where the left is true."""
    if left in (FALSE, ERROR):
        return left
    second = right()
    if left == TRUE or second == TRUE:
        return second if left == TRUE else left
    return Outcome(
        conjunction((left.true, second.true)),
        disjunction((left.false, conjunction((left.true, second.false)))),
    )


def _negate(outcome: Outcome) -> Outcome:
    return Outcome(outcome.false, outcome.true)


def _constant(expr: Expr, known: Known) -> Outcome:
    value = _value(expr, known)
    if value is True:
        return TRUE
    return FALSE if value is False else ERROR


def _value(expr: Expr, known: Known) -> Value | None:
    """The value of an expression that does not depend on the row; ``None`` when it errs."""
    try:
        return evaluate(expr, known.env)
    except EvaluationError:
        return None


def _has(attribute: str, shape: RowShape) -> Outcome:
    if attribute in shape.declared_sets or attribute == "category":
        return TRUE
    if attribute not in shape.scalars:
        return FALSE
    return Outcome(Present(attribute), Present(attribute, negated=True))


def _relation(expr: Binary, known: Known) -> Outcome:
    left, right = row_attribute(expr.left), row_attribute(expr.right)
    other = _value(expr.right if left is not None else expr.left, known)
    if other is None:
        return ERROR
    if left is not None and left in known.shape.declared_sets:
        return _set_relation(expr.op, left, other, known.shape)
    attribute = left if left is not None else right
    assert attribute is not None
    if attribute not in known.shape.scalars:
        return ERROR
    match expr.op:
        case "==":
            return _one_of(attribute, (other,), known.shape)
        case "!=":
            return _negate(_one_of(attribute, (other,), known.shape))
        case "contains":
            if not isinstance(other, CedarSet):
                return ERROR
            return _one_of(attribute, other, known.shape)
        case "in":
            return _in(attribute, other, known.shape)
        case "<" | "<=" | ">" | ">=":
            if not isinstance(other, int) or isinstance(other, bool):
                return ERROR
            op = expr.op if left is not None else MIRRORED[expr.op]
            return Outcome(
                Compares(attribute, cast(CompareOp, op), other),
                Compares(attribute, _OPPOSITE[op], other),
            )
    raise AssertionError("not admissible; refused when the policies were loaded")


_OPPOSITE: Final[dict[str, CompareOp]] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def _one_of(attribute: str, values: Iterable[Value], shape: RowShape) -> Outcome:
    """``attribute`` equals one of the values. A value of another kind equals no column's."""
    scalars = _of_kind(values, shape.kinds.get(attribute))
    return Outcome(
        IsOneOf(attribute, scalars) if scalars else NEVER,
        IsOneOf(attribute, scalars, negated=True) if scalars else Present(attribute),
    )


def _in(attribute: str, other: Value, shape: RowShape) -> Outcome:
    """``in`` for an entity type that is in nothing (the loader saw to it): plain equality."""
    targets = tuple(other) if isinstance(other, CedarSet) else (other,)
    if not all(isinstance(target, EntityUid) for target in targets):
        return ERROR
    return _one_of(attribute, targets, shape)


def _set_relation(op: str, attribute: str, other: Value, shape: RowShape) -> Outcome:
    if op == "contains":
        values: Iterable[Value] = (other,)
    elif isinstance(other, CedarSet):
        values = other
    else:
        return ERROR
    scalars = _of_kind(values, shape.kinds.get(attribute))
    if not scalars or attribute not in shape.sets:
        return FALSE
    return Outcome(HasMember(attribute, scalars), HasMember(attribute, scalars, negated=True))


def _of_kind(values: Iterable[Value], kind: str | None) -> frozenset[Scalar]:
    """The values that a column of the kind can hold. To Cedar ``1 == true`` and ``"x" ==
    User::"x"`` are false; SQL would have to be trusted to know."""
    return frozenset(v for v in values if isinstance(v, EntityUid | str | int) and _kind(v) == kind)


def _kind(value: Scalar) -> str:
    if isinstance(value, EntityUid):
        return value.type
    if isinstance(value, bool):
        return "Bool"
    return "Long" if isinstance(value, int) else "String"
