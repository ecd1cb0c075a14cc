"""What must be so about a row: a formula of atoms joined by *all* and *any*, without negation.

Every atom is true or not true of a row; one that cannot be evaluated (an absent attribute) is not
true. Since nothing negates, SQL's NULL can only ever mean "not true", and three-valued logic has
no way to turn a missing value into access. The opposite of an atom is an atom of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from chartgate.model.principal import EntityUid

Scalar: TypeAlias = EntityUid | str | int | bool
CompareOp: TypeAlias = Literal["<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Present:
    """The row has the attribute (SQL: is not NULL)."""

    attribute: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsOneOf:
    """The attribute is there and is one of these; ``negated``: is there and is none of them."""

    attribute: str
    values: frozenset[Scalar]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Compares:
    """The attribute, a Long, is there and compares so with a number."""

    attribute: str
    op: CompareOp
    number: int


@dataclass(frozen=True, slots=True)
class HasMember:
    """The set attribute has at least one of these members; ``negated``: has none of them."""

    attribute: str
    values: frozenset[Scalar]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Labelled:
    """The row carries the label, or that is unknown; ``negated``: it surely does not."""

    label: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; no parts = always."""

    parts: frozenset["Formula"]


@dataclass(frozen=True, slots=True)
class Any:
    """Some part holds; no parts = never."""

    parts: frozenset["Formula"]


Atom: TypeAlias = Present | IsOneOf | Compares | HasMember | Labelled
Formula: TypeAlias = Atom | All | Any

ALWAYS: Final = All(frozenset())
NEVER: Final = Any(frozenset())


def conjunction(formulas: Iterable[Formula]) -> Formula:
    """All of them, flattened; ``NEVER`` when one is, and without what another one implies."""
    parts: set[Formula] = set()
    for formula in formulas:
        if formula == NEVER:
            return NEVER
        parts |= formula.parts if isinstance(formula, All) else {formula}
    return _joined(parts, lambda part, other: _implies(other, part), All)


def disjunction(formulas: Iterable[Formula]) -> Formula:
    """Any of them, flattened; ``ALWAYS`` when one is, and without what implies another one."""
    parts: set[Formula] = set()
    for formula in formulas:
        if formula == ALWAYS:
            return ALWAYS
        parts |= formula.parts if isinstance(formula, Any) else {formula}
    return _joined(parts, implies, Any)


def _joined(
    parts: set[Formula],
    is_redundant_beside: Callable[[Formula, Formula], bool],
    join: type[All] | type[Any],
) -> Formula:
    if len(parts) == 1:
        return next(iter(parts))

    def is_redundant(part: Formula) -> bool:
        return any(other != part and is_redundant_beside(part, other) for other in parts)

    # One at a time: of two that imply each other, one must stay.
    for part in sorted(filter(is_redundant, parts), key=repr):
        if is_redundant(part):
            parts.remove(part)
    return next(iter(parts)) if len(parts) == 1 else join(frozenset(parts))


def conjuncts(formula: Formula) -> frozenset[Formula]:
    """The parts of a conjunction; anything else is its own only part."""
    return formula.parts if isinstance(formula, All) else frozenset({formula})


def implies(premise: Formula, conclusion: Formula) -> bool:
    """Whether the conclusion surely holds where the premise does. False may mean "not seen"."""
    if premise is conclusion or premise == NEVER:
        return True
    known = conjuncts(premise)
    return all(any(_implies(k, c) for k in known) for c in conjuncts(conclusion))


def _implies(one: Formula, other: Formula) -> bool:
    """``implies`` for a single conjunct on each side."""
    if one is other or one == other:
        return True
    if isinstance(one, Any):
        return all(implies(part, other) for part in one.parts)
    if isinstance(other, Any):
        return any(implies(one, part) for part in other.parts)
    if isinstance(one, IsOneOf) and isinstance(other, IsOneOf):
        if one.attribute != other.attribute or one.negated != other.negated:
            return False
        if one.negated:
            return one.values >= other.values
        return one.values <= other.values
    if isinstance(one, HasMember) and isinstance(other, HasMember):
        if one.attribute != other.attribute or one.negated != other.negated:
            return False
        if one.negated:
            return one.values >= other.values
        return one.values <= other.values
    if isinstance(other, Present) and not other.negated:
        return isinstance(one, IsOneOf | Compares) and one.attribute == other.attribute
    return False
