"""What an operand of a condition over rows can be: known, or held by the row.

The outcome of a condition is a pair of formulas: where it is true and where it is false; where
neither holds, it errs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from chartgate.cedar.values import DateTime, Decimal, Duration, Value
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import ALWAYS, NEVER, Formula, Number, Present, Reckons, Scalar


@dataclass(frozen=True, slots=True)
class Outcome:
    """When a condition is true and when it is false; on any other row it errs."""

    true: Formula
    false: Formula


TRUE: Final = Outcome(ALWAYS, NEVER)
FALSE: Final = Outcome(NEVER, ALWAYS)
ERROR: Final = Outcome(NEVER, NEVER)


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
    """What an attribute, or a set's member, is by the schema: ``String``, ``Long``, ``Bool``,
    ``datetime``, ``decimal`` or an entity type. A value of another kind equals none."""
    families: Mapping[str, frozenset[EntityUid]] = field(default_factory=dict, compare=False)
    """Of the entity types that form a hierarchy: all entities there are."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value known before the query runs."""

    value: Value


@dataclass(frozen=True, slots=True)
class Cell:
    """A scalar attribute of the row."""

    attribute: str
    kind: str


@dataclass(frozen=True, slots=True)
class Members:
    """A set attribute of the row; ``empty``: this table has no such relation."""

    attribute: str
    kind: str
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Reckoned:
    """A Long, datetime or duration reckoned from the row."""

    number: Number
    kind: str


Term: TypeAlias = Constant | Cell | Members | Reckoned


def there(term: Term) -> Formula:
    """Where the term has a value."""
    match term:
        case Cell(attribute, _):
            return Present(attribute)
        case Reckoned(number, _):
            # Every step fits, and what is there equals itself.
            return Reckons(number, "==", number)
    return ALWAYS


def kind_of(term: Term) -> str:
    """The kind of the term's value; the empty string for sets and records."""
    if isinstance(term, Constant):
        return kind_of_value(term.value)
    return "" if isinstance(term, Members) else term.kind


def of_kind(values: Iterable[Value], kind: str) -> frozenset[Scalar]:
    """The values that a column of the kind can hold. To Cedar ``1 == true`` and ``"x" ==
    User::"x"`` are false; SQL would have to be trusted to know."""
    return frozenset(
        v
        for v in values
        if isinstance(v, EntityUid | str | int | DateTime | Decimal) and kind_of_value(v) == kind
    )


def kind_of_value(value: Value) -> str:
    """The kind of a value; the empty string for sets, records and addresses."""
    match value:
        case EntityUid():
            return value.type
        case bool():
            return "Bool"
        case int():
            return "Long"
        case str():
            return "String"
        case DateTime():
            return "datetime"
        case Duration():
            return "duration"
        case Decimal():
            return "decimal"
    return ""
