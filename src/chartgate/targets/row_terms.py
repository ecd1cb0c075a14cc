"""Operands and what may be asked between them: a value that is known, or one that the row holds.

A condition over rows compares *terms*. The outcome of a comparison is a pair of formulas: where it
is true and where it is false; where neither holds, evaluation errs, as ``chartgate.cedar.evaluate``
would. What equals what, and which types may be ordered, is Cedar's: across types ``==`` is false
and ``<`` an error.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

from chartgate.cedar.ast import Pattern
from chartgate.cedar.calls import call
from chartgate.cedar.entities import Entities
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.evaluate import binary, matches
from chartgate.cedar.values import CedarSet, DateTime, Decimal, Duration, Value, equal
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    ALWAYS,
    MIRRORED,
    NEVER,
    OPPOSITE,
    Beside,
    CompareOp,
    Compares,
    Formula,
    HasEvery,
    HasHeld,
    HasMember,
    HasOther,
    Held,
    IsOneOf,
    Matches,
    Number,
    Present,
    Reckons,
    RelationOp,
    Scalar,
    Step,
    StepOp,
    calculate,
    conjunction,
    disjunction,
)
from chartgate.targets.row_values import (
    ERROR,
    FALSE,
    TRUE,
    Cell,
    Constant,
    Members,
    Outcome,
    Reckoned,
    RowShape,
    Term,
    kind_of,
    of_kind,
    there,
)

ORDERED: Final = frozenset({"Long", "datetime", "duration"})
"""What ``<`` may compare; decimals have methods."""
NOT_ENTITIES: Final = frozenset({"String", "Long", "Bool", "datetime", "decimal"})
DECIMAL_ORDER: Final[Mapping[str, RelationOp]] = {
    "lessThan": "<", "lessThanOrEqual": "<=", "greaterThan": ">", "greaterThanOrEqual": ">=",
}  # fmt: skip


def negated(outcome: Outcome) -> Outcome:
    """The outcome of ``!``: what errs still errs."""
    return Outcome(outcome.false, outcome.true)


def guarded(cases: Iterable[tuple[Formula, Outcome]]) -> Outcome:
    """Each outcome where its guard holds; guards exclude each other."""
    given = tuple(cases)
    if len(given) == 1 and given[0][0] == ALWAYS:
        return given[0][1]
    return Outcome(
        disjunction(conjunction((guard, outcome.true)) for guard, outcome in given),
        disjunction(conjunction((guard, outcome.false)) for guard, outcome in given),
    )


def condition(term: Term) -> Outcome:
    """The term as a condition by itself: a Bool, or an error."""
    match term:
        case Constant(True):
            return TRUE
        case Constant(False):
            return FALSE
        case Cell(attribute, "Bool"):
            return _one_of(attribute, "Bool", (True,))
    return ERROR


def like(term: Term, pattern: Pattern) -> Outcome:
    """``term like pattern``."""
    match term:
        case Cell(attribute, "String"):
            return Outcome(Matches(attribute, pattern), Matches(attribute, pattern, negated=True))
        case Constant(str() as text):
            return TRUE if matches(pattern, text) else FALSE
    return ERROR


def is_type(term: Term, type_name: str) -> Outcome:
    """``term is type_name``; every entity attribute is of one type."""
    match term:
        case Cell(_, kind) if kind not in NOT_ENTITIES:
            given = there(term)
            return Outcome(given, NEVER) if kind == type_name else Outcome(NEVER, given)
        case Constant(EntityUid() as uid):
            return TRUE if uid.type == type_name else FALSE
    return ERROR


def is_empty(term: Term) -> Outcome:
    """``term.isEmpty()``."""
    match term:
        case Members(attribute, _, empty):
            none: frozenset[Scalar] = frozenset()
            if empty:
                return TRUE
            return Outcome(HasOther(attribute, none, negated=True), HasOther(attribute, none))
        case Constant(CedarSet() as members):
            return FALSE if len(members) else TRUE
    return ERROR


def stepped(op: StepOp, left: Term, right: Term, kind: str) -> Term | None:
    """One step of arithmetic on terms of the right kinds; None where it has no result."""
    first, second = _number(left), _number(right)
    if isinstance(first, int) and isinstance(second, int):
        result = calculate(op, first, second)
        return None if result is None else Constant(_OF_NUMBER[kind](result))
    return Reckoned(Step(op, first, second), kind)


_OF_NUMBER: Final[Mapping[str, Callable[[int], Value]]] = {
    "Long": int, "datetime": DateTime, "duration": Duration,
}  # fmt: skip


def relation(op: str, left: Term, right: Term, shape: RowShape, entities: Entities) -> Outcome:
    """What an operator or method says of two terms. Only admissible pairs may come here."""
    if isinstance(left, Constant) and isinstance(right, Constant):
        return _known(op, left.value, right.value, entities)
    if op == "!=":
        return negated(relation("==", left, right, shape, entities))
    if op == "==":
        return _equal(left, right)
    if op in MIRRORED:
        return _ordered(op, left, right, ORDERED)
    if op in DECIMAL_ORDER:
        return _ordered(DECIMAL_ORDER[op], left, right, frozenset({"decimal"}))
    if op == "in":
        return _in(left, right, shape, entities)
    return _contains(op, left, right)


def _known(op: str, left: Value, right: Value, entities: Entities) -> Outcome:
    try:
        if op in DECIMAL_ORDER:
            value = call(op, (left, right))
        else:
            value = binary(op, left, right, entities)
    except EvaluationError:
        return ERROR
    return condition(Constant(value))


def _equal(left: Term, right: Term) -> Outcome:
    if isinstance(left, Members) or isinstance(right, Members):
        members, other = (left, right) if isinstance(left, Members) else (right, left)
        assert isinstance(members, Members)
        return _same_set(members, other)
    if isinstance(left, Constant):
        left, right = right, left
    if isinstance(left, Cell) and isinstance(right, Constant):
        return _one_of(left.attribute, left.kind, (right.value,))
    if kind_of(left) != kind_of(right):
        return Outcome(NEVER, conjunction((there(left), there(right))))
    if isinstance(left, Cell) and isinstance(right, Cell):
        return _beside("==", left.attribute, right.attribute)
    return _reckons("==", left, right)


def _ordered(op: RelationOp, left: Term, right: Term, kinds: frozenset[str]) -> Outcome:
    if kind_of(left) != kind_of(right) or kind_of(left) not in kinds:
        return ERROR
    if isinstance(left, Constant):
        left, op, right = right, MIRRORED[op], left
    if isinstance(left, Cell) and isinstance(right, Constant):
        attribute, bound = left.attribute, right.value
        assert isinstance(bound, int | DateTime | Decimal)
        return Outcome(
            Compares(attribute, cast(CompareOp, op), bound),
            Compares(attribute, cast(CompareOp, OPPOSITE[op]), bound),
        )
    if isinstance(left, Cell) and isinstance(right, Cell):
        return _beside(op, left.attribute, right.attribute)
    return _reckons(op, left, right)


def _beside(op: RelationOp, left: str, right: str) -> Outcome:
    if left == right:
        given = Present(left)
        return Outcome(given, NEVER) if op in {"==", "<=", ">="} else Outcome(NEVER, given)
    if left > right:
        # One order, so that the same question has one text.
        left, op, right = right, MIRRORED[op], left
    return Outcome(Beside(left, op, right), Beside(left, OPPOSITE[op], right))


def _reckons(op: RelationOp, left: Term, right: Term) -> Outcome:
    first, second = _number(left), _number(right)
    return Outcome(Reckons(first, op, second), Reckons(first, OPPOSITE[op], second))


def _number(term: Term) -> Number:
    match term:
        case Reckoned(number, _):
            return number
        case Cell(attribute, _):
            return Held(attribute)
        case Constant(DateTime(ms) | Duration(ms)):
            return ms
        case Constant(int() as number):
            return number
    raise AssertionError("not a number; kinds are looked at first")


def _one_of(attribute: str, kind: str, values: Iterable[Value]) -> Outcome:
    """``attribute`` equals one of the values. A value of another kind equals no column's."""
    scalars = of_kind(values, kind)
    return Outcome(
        IsOneOf(attribute, scalars) if scalars else NEVER,
        IsOneOf(attribute, scalars, negated=True) if scalars else Present(attribute),
    )


def _in(left: Term, right: Term, shape: RowShape, entities: Entities) -> Outcome:
    if _is_no_entity(left) or _is_no_entity(right):
        return ERROR
    if isinstance(left, Constant):
        if not isinstance(left.value, EntityUid):
            return ERROR
        # What a known entity is in is known as well.
        above = entities.ancestors(left.value)
        if isinstance(right, Cell):
            return _one_of(right.attribute, right.kind, above)
        assert isinstance(right, Members)
        return _has_member(right, above)
    assert isinstance(left, Cell)
    # Between two of the row's own entities it is equality: the loader saw to it.
    if isinstance(right, Cell):
        return _equal(left, right)
    if isinstance(right, Members):
        return _has_held(right, left)
    assert isinstance(right, Constant)
    targets = tuple(right.value) if isinstance(right.value, CedarSet) else (right.value,)
    groups = frozenset(target for target in targets if isinstance(target, EntityUid))
    if len(groups) < len(targets):
        return ERROR
    family = shape.families.get(left.kind, ())
    below = (uid for uid in family if not entities.ancestors(uid).isdisjoint(groups))
    return _one_of(left.attribute, left.kind, (*groups, *below))


def _is_no_entity(term: Term) -> bool:
    match term:
        case Cell(_, kind) | Members(_, kind, _):
            return kind in NOT_ENTITIES
        case Constant(value):
            return not isinstance(value, EntityUid | CedarSet)
    return True


def _contains(op: str, left: Term, right: Term) -> Outcome:
    if op == "contains":
        if isinstance(left, Members):
            if isinstance(right, Constant):
                return _has_member(left, (right.value,))
            assert isinstance(right, Cell)
            return _has_held(left, right)
        if isinstance(left, Constant) and isinstance(left.value, CedarSet):
            assert isinstance(right, Cell)
            return _one_of(right.attribute, right.kind, left.value)
        return ERROR
    members, other = (left, right) if isinstance(left, Members) else (right, left)
    if not (
        isinstance(members, Members)
        and isinstance(other, Constant)
        and isinstance(other.value, CedarSet)
    ):
        return ERROR
    if op == "containsAny":
        return _has_member(members, other.value)
    if members is left:
        return _has_every(members, other.value)
    return negated(_has_other(members, other.value))


def _has_member(members: Members, values: Iterable[Value]) -> Outcome:
    scalars = of_kind(values, members.kind)
    if not scalars or members.empty:
        return FALSE
    return Outcome(
        HasMember(members.attribute, scalars), HasMember(members.attribute, scalars, negated=True)
    )


def _has_every(members: Members, values: CedarSet) -> Outcome:
    scalars = of_kind(values, members.kind)
    if len(scalars) < len(values) or (members.empty and scalars):
        return FALSE
    if len(scalars) <= 1:
        return _has_member(members, values) if scalars else TRUE
    return Outcome(
        HasEvery(members.attribute, scalars), HasEvery(members.attribute, scalars, negated=True)
    )


def _has_other(members: Members, values: CedarSet) -> Outcome:
    if members.empty:
        return FALSE
    scalars = of_kind(values, members.kind)
    return Outcome(
        HasOther(members.attribute, scalars), HasOther(members.attribute, scalars, negated=True)
    )


def _has_held(members: Members, cell: Cell) -> Outcome:
    if members.empty or members.kind != cell.kind:
        return Outcome(NEVER, there(cell))
    return Outcome(
        HasHeld(members.attribute, cell.attribute),
        HasHeld(members.attribute, cell.attribute, negated=True),
    )


def _same_set(members: Members, other: Term) -> Outcome:
    if not isinstance(other, Constant):
        return Outcome(NEVER, there(other))
    if not isinstance(other.value, CedarSet):
        return FALSE
    if members.empty:
        return TRUE if equal(other.value, CedarSet.of(())) else FALSE
    every, more = _has_every(members, other.value), _has_other(members, other.value)
    return Outcome(conjunction((every.true, more.false)), disjunction((every.false, more.true)))
