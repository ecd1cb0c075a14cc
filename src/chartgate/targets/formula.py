"""What must be so about a row: a formula of atoms joined by *all* and *any*, without negation.

Every atom is true or not true of a row; one that cannot be evaluated (an absent attribute, a sum
beyond 64 bits) is not true. Since nothing negates, SQL's NULL can only ever mean "not true", and
three-valued logic has no way to turn a missing value into access. The opposite of an atom is an
atom of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from chartgate.cedar.ast import Pattern
from chartgate.cedar.evaluate import matches
from chartgate.cedar.values import DateTime, Decimal, is_i64
from chartgate.model.principal import EntityUid

Scalar: TypeAlias = EntityUid | str | int | bool | DateTime | Decimal
Bound: TypeAlias = int | DateTime | Decimal
CompareOp: TypeAlias = Literal["<", "<=", ">", ">="]
RelationOp: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
StepOp: TypeAlias = Literal["+", "-", "*", "quotient", "day", "rest of day"]

MIRRORED: Final[dict[RelationOp, RelationOp]] = {
    "==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<=",
}  # fmt: skip
OPPOSITE: Final[dict[RelationOp, RelationOp]] = {
    "==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<",
}  # fmt: skip


# ── atoms ─────────────────────────────────────────────────────────────────────────────────────


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
    """The attribute (a Long, a datetime, a decimal) is there and compares so with a bound."""

    attribute: str
    op: CompareOp
    bound: Bound


@dataclass(frozen=True, slots=True)
class Matches:
    """The attribute, a String, is there and is like the pattern; ``negated``: is there, is not."""

    attribute: str
    pattern: Pattern
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Beside:
    """Two attributes of one kind are both there and compare so."""

    left: str
    op: RelationOp
    right: str


@dataclass(frozen=True, slots=True)
class Held:
    """The number that an attribute holds: a Long itself, a datetime's milliseconds."""

    attribute: str


@dataclass(frozen=True, slots=True)
class Step:
    """One checked step of arithmetic: without a result where that does not fit 64 bits.

    ``quotient`` truncates toward zero; ``day`` is the beginning of the day, ``rest of day`` what
    is left (a modulo that is never negative). Their right side is a positive number.
    """

    op: StepOp
    left: "Number"
    right: "Number"


Number: TypeAlias = int | Held | Step


def calculate(op: StepOp, left: int, right: int) -> int | None:
    """The result of a step, or None where it does not fit 64 bits."""
    match op:
        case "+":
            result = left + right
        case "-":
            result = left - right
        case "*":
            result = left * right
        case "quotient":
            result = left // right if left >= 0 else -(-left // right)
        case "day":
            result = left // right * right
        case "rest of day":
            result = left % right
    return result if is_i64(result) else None


@dataclass(frozen=True, slots=True)
class Reckons:
    """Everything reckoned with is there, every step fits 64 bits, and the results compare so."""

    left: Number
    op: RelationOp
    right: Number


@dataclass(frozen=True, slots=True)
class HasMember:
    """The set attribute has at least one of these members; ``negated``: has none of them."""

    attribute: str
    values: frozenset[Scalar]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class HasEvery:
    """The set attribute has all of these members; ``negated``: lacks at least one."""

    attribute: str
    values: frozenset[Scalar]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class HasOther:
    """The set attribute has a member that is none of these; ``negated``: has no other."""

    attribute: str
    values: frozenset[Scalar]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class HasHeld:
    """The other attribute is there and the set has its value; ``negated``: is there, has not."""

    attribute: str
    other: str
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


Atom: TypeAlias = (
    Present | IsOneOf | Compares | Matches | Beside | Reckons
    | HasMember | HasEvery | HasOther | HasHeld | Labelled
)  # fmt: skip
Formula: TypeAlias = Atom | All | Any

ALWAYS: Final = All(frozenset())
NEVER: Final = Any(frozenset())


# ── joining ───────────────────────────────────────────────────────────────────────────────────


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


_WORTH_COMPARING: Final = 64
"""Parts of parts up to which redundant ones are looked for: the effort grows with the square, and
more of them come from a policy that lists alternatives, of which none is redundant."""


def _joined(
    parts: set[Formula],
    is_redundant_beside: Callable[[Formula, Formula], bool],
    join: type[All] | type[Any],
) -> Formula:
    if len(parts) == 1:
        return next(iter(parts))
    if sum(len(p.parts) if isinstance(p, All | Any) else 1 for p in parts) > _WORTH_COMPARING:
        return join(frozenset(parts))

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


def atoms(formula: Formula) -> Iterator[Atom]:
    """Every atom of the formula."""
    if isinstance(formula, All | Any):
        for part in formula.parts:
            yield from atoms(part)
    else:
        yield formula


# ── what follows from what ────────────────────────────────────────────────────────────────────


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
    if isinstance(other, Present):
        return not other.negated and not isinstance(one, All) and other.attribute in _needs(one)
    if isinstance(other, Matches):
        return isinstance(one, IsOneOf) and not one.negated and _all_match(one, other)
    if isinstance(other, IsOneOf):
        if not isinstance(one, IsOneOf) or one.attribute != other.attribute:
            return False
        if one.negated != other.negated:
            return False
        return one.values >= other.values if one.negated else one.values <= other.values
    if isinstance(one, HasMember | HasEvery | HasOther) and isinstance(
        other, HasMember | HasEvery | HasOther
    ):
        return one.attribute == other.attribute and _members_imply(one, other)
    return False


def _needs(atom: Atom) -> frozenset[str]:
    """The attributes that are there wherever the atom holds."""
    match atom:
        case IsOneOf(attribute) | Compares(attribute) | Matches(attribute):
            return frozenset({attribute})
        case Present(attribute, negated):
            return frozenset() if negated else frozenset({attribute})
        case Beside(left, _, right):
            return frozenset({left, right})
        case Reckons(left, _, right):
            return held_by(left) | held_by(right)
        case HasHeld(_, other, _):
            return frozenset({other})
    return frozenset()


def held_by(number: Number) -> frozenset[str]:
    """The attributes that a number is reckoned from."""
    match number:
        case Held(attribute):
            return frozenset({attribute})
        case Step(_, left, right):
            return held_by(left) | held_by(right)
    return frozenset()


def _all_match(one: IsOneOf, other: Matches) -> bool:
    return one.attribute == other.attribute and all(
        isinstance(value, str) and matches(other.pattern, value) != other.negated
        for value in one.values
    )


def _members_imply(
    one: HasMember | HasEvery | HasOther, other: HasMember | HasEvery | HasOther
) -> bool:
    if one.negated != other.negated:
        return False
    if one.negated:
        # "Has not" follows as "has" does, the other way round.
        return _having(other, one)
    return _having(one, other)


def _having(one: HasMember | HasEvery | HasOther, other: HasMember | HasEvery | HasOther) -> bool:
    """Whether having what one says includes having what the other says."""
    if isinstance(one, HasMember) and isinstance(other, HasMember):
        return one.values <= other.values
    if isinstance(one, HasOther) and isinstance(other, HasOther):
        return one.values >= other.values
    if isinstance(one, HasEvery) and isinstance(other, HasEvery):
        return one.values >= other.values
    if isinstance(one, HasEvery) and isinstance(other, HasMember):
        return not one.values.isdisjoint(other.values)
    return False
