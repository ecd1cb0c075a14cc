"""A formula about a row, as a Python function: for rows that come from elsewhere than SQL.

The rule kept is the formula's: an atom that cannot be evaluated is not true, and nothing negates.
A row maps attributes to Cedar values; an absent attribute is absent from the mapping (a null is no
value), and so is one of another type than the policy schema says. The function is made once per
formula and asked of many rows; it looks nothing up but the row.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from chartgate.cedar.evaluate import matches
from chartgate.cedar.values import (
    CedarSet,
    DateTime,
    Decimal,
    Duration,
    Value,
    is_i64,
    key,
)
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    All,
    Any,
    Beside,
    Compares,
    Formula,
    HasEvery,
    HasHeld,
    HasMember,
    HasOther,
    Held,
    IsOneOf,
    Labelled,
    Matches,
    Number,
    Present,
    Reckons,
    RelationOp,
    Scalar,
    Step,
    calculate,
)

Row: TypeAlias = Mapping[str, Value]
Labels: TypeAlias = Mapping[str, bool | None]
"""Which further labels the row carries; a label that is not listed, or None, is unknown."""
Predicate: TypeAlias = Callable[[Row, Labels], bool]

NO_LABELS: Final[Labels] = {}


def compile_predicate(formula: Formula) -> Callable[[Row], bool]:
    """The condition on rows of which no further label is known: each counts as carried."""
    ask = compile_labelled(formula)
    return lambda row: ask(row, NO_LABELS)


def compile_labelled(formula: Formula) -> Predicate:
    """The condition on a row and the labels it carries."""
    match formula:
        case All(parts):
            return _every([compile_labelled(part) for part in _cheap_first(parts)])
        case Any(parts):
            return _some([compile_labelled(part) for part in _cheap_first(parts)])
        case Labelled(label, negated):
            # What is unknown counts as carried.
            return lambda _, labels: (labels.get(label) is False) == negated
    ask = _atom(formula)
    return lambda row, _: ask(row)


def _cheap_first(parts: Iterable[Formula]) -> list[Formula]:
    return sorted(parts, key=lambda part: (isinstance(part, All | Any), repr(part)))


def _every(parts: list[Predicate]) -> Predicate:
    if len(parts) == 2:
        one, other = parts
        return lambda row, labels: one(row, labels) and other(row, labels)
    return lambda row, labels: all(part(row, labels) for part in parts)


def _some(parts: list[Predicate]) -> Predicate:
    if len(parts) == 2:
        one, other = parts
        return lambda row, labels: one(row, labels) or other(row, labels)
    return lambda row, labels: any(part(row, labels) for part in parts)


def _atom(formula: Formula) -> Callable[[Row], bool]:
    match formula:
        case Present(attribute, negated):
            return lambda row: (attribute in row) != negated
        case IsOneOf(attribute, values, negated):
            return _is_one_of(attribute, values, negated)
        case Compares(attribute, op, bound):
            return _compares(attribute, _COMPARE[op], bound)
        case Matches(attribute, pattern, negated):
            return lambda row: (
                isinstance(text := row.get(attribute), str) and matches(pattern, text) != negated
            )
        case Beside(left, op, right):
            return _beside(left, op, right)
        case Reckons(left, op, right):
            return _reckons(left, _COMPARE[op], right)
        case HasMember(attribute, values, negated):
            keys = _keys(values)
            return _of_set(attribute, lambda members: members.isdisjoint(keys) == negated)
        case HasEvery(attribute, values, negated):
            keys = _keys(values)
            return _of_set(attribute, lambda members: (members >= keys) != negated)
        case HasOther(attribute, values, negated):
            keys = _keys(values)
            return _of_set(attribute, lambda members: (members <= keys) == negated)
        case HasHeld(attribute, other, negated):
            return _has_held(attribute, other, negated)
    raise AssertionError("every atom has its case above")


_COMPARE: Final[Mapping[RelationOp, Callable[[int, int], bool]]] = {
    "==": int.__eq__, "!=": int.__ne__, "<": int.__lt__, "<=": int.__le__, ">": int.__gt__,
    ">=": int.__ge__,
}  # fmt: skip


def _keys(values: Iterable[Scalar]) -> frozenset[object]:
    return frozenset(key(value) for value in values)


def _is_one_of(attribute: str, values: frozenset[Scalar], negated: bool) -> Callable[[Row], bool]:
    keys = _keys(values)
    kinds = {_kind(value) for value in values}

    def ask(row: Row) -> bool:
        value = row.get(attribute)
        if value is None or (kinds and _kind(value) not in kinds):
            return False
        return (key(value) in keys) != negated

    return ask


def _kind(value: Value) -> object:
    """Type or entity type: what has another is no value of the attribute."""
    return value.type if isinstance(value, EntityUid) else type(value)


def _number_of(value: Value | None) -> int | None:
    """The number in an ordered value."""
    match value:
        case bool() | None:
            return None
        case int():
            return value
        case DateTime(ms) | Duration(ms):
            return ms
        case Decimal(units):
            return units
    return None


def _compares(
    attribute: str, compare: Callable[[int, int], bool], bound: int | DateTime | Decimal
) -> Callable[[Row], bool]:
    kind, number = type(bound), _number_of(bound)
    assert number is not None

    def ask(row: Row) -> bool:
        value = row.get(attribute)
        held = _number_of(value)
        return held is not None and type(value) is kind and compare(held, number)

    return ask


def _beside(left: str, op: RelationOp, right: str) -> Callable[[Row], bool]:
    compare = _COMPARE[op]

    def ask(row: Row) -> bool:
        one, other = row.get(left), row.get(right)
        if one is None or other is None or _kind(one) != _kind(other):
            return False
        if op in {"==", "!="}:
            return (key(one) == key(other)) == (op == "==")
        first, second = _number_of(one), _number_of(other)
        return first is not None and second is not None and compare(first, second)

    return ask


def _reckons(
    left: Number, compare: Callable[[int, int], bool], right: Number
) -> Callable[[Row], bool]:
    def ask(row: Row) -> bool:
        one, other = _reckoned(left, row), _reckoned(right, row)
        return one is not None and other is not None and compare(one, other)

    return ask


def _reckoned(number: Number, row: Row) -> int | None:
    match number:
        case Held(attribute):
            held = _number_of(row.get(attribute))
            return held if held is not None and is_i64(held) else None
        case Step(op, left, right):
            one, other = _reckoned(left, row), _reckoned(right, row)
            return None if one is None or other is None else calculate(op, one, other)
    return number


def _of_set(attribute: str, ask: Callable[[frozenset[object]], bool]) -> Callable[[Row], bool]:
    def of_row(row: Row) -> bool:
        members = row.get(attribute)
        return isinstance(members, CedarSet) and ask(members.keys)

    return of_row


def _has_held(attribute: str, other: str, negated: bool) -> Callable[[Row], bool]:
    def ask(row: Row) -> bool:
        members, value = row.get(attribute), row.get(other)
        if value is None or not isinstance(members, CedarSet):
            return False
        return (value in members) != negated

    return ask
