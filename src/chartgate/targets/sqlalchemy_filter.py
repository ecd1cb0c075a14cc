"""A formula about a row, as an SQLAlchemy expression for PostgreSQL: for ``select(…).where(…)``.

What holds of ``targets.sql`` holds here: nothing is negated but EXISTS and atoms that have an
opposite of their own, texts are compared by character, and a long list is one array parameter.
SQLAlchemy is an optional dependency (``pip install chartgate[sqlalchemy]``); nothing else imports
this module. ``COLLATE "C"`` and the functions used are PostgreSQL's: another database refuses the
statement.
"""

import decimal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any as Anything
from typing import Final, TypeAlias, assert_never

try:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql as pg
except ImportError as exc:  # pragma: no cover - the optional extra is installed for tests
    raise ImportError("the SQLAlchemy target needs SQLAlchemy: chartgate[sqlalchemy]") from exc

from chartgate.cedar.ast import Pattern, Wildcard
from chartgate.cedar.extensions import DAY
from chartgate.cedar.values import I64_MAX, I64_MIN, DateTime, Decimal
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    All,
    Any,
    Beside,
    Bound,
    CompareOp,
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
    held_by,
)
from chartgate.targets.sql import is_held, like_text, steps_of
from chartgate.targets.sql_values import (
    AFTER_LAST_INSTANT,
    FIRST_INSTANT,
    MANY_DAYS,
    instant_text,
    is_text,
)

Column: TypeAlias = sa.ColumnElement[Anything]
Condition: TypeAlias = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class RelationColumns:
    """A set-valued attribute: the rows of ``source`` for which ``where`` holds have the members."""

    source: sa.FromClause
    where: Condition
    value: Column


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Where a row's attributes are found; as ``targets.sql.RowSql``."""

    scalars: Mapping[str, Column]
    relations: Mapping[str, RelationColumns] = field(default_factory=dict)
    labels: Mapping[str, Condition] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


_PLAIN: Final = frozenset({"Long", "Bool"})


def to_expression(formula: Formula, row: RowColumns) -> Condition:
    """The condition as an expression over the row's columns."""
    match formula:
        case All(parts):
            return sa.and_(sa.true(), *(to_expression(p, row) for p in _sorted(parts)))
        case Any(parts):
            return sa.or_(sa.false(), *(to_expression(p, row) for p in _sorted(parts)))
        case Present(attribute, negated):
            return _present(row.scalars[attribute], row.kinds.get(attribute, ""), negated)
        case IsOneOf(attribute, values, negated):
            return _one_of(row.scalars[attribute], values, negated)
        case Compares(attribute, op, bound):
            return _compares(row.scalars[attribute], op, bound)
        case Matches(attribute, pattern, negated):
            return _matches(row.scalars[attribute], pattern, negated)
        case Beside(left, op, right):
            return _beside(left, op, right, row)
        case Reckons(left, op, right):
            return _reckons(left, op, right, row)
        case HasMember(attribute, values, negated):
            return _exists(row.relations[attribute], values, negated, other=False)
        case HasOther(attribute, values, negated):
            return _exists(row.relations[attribute], values, negated, other=True)
        case HasEvery(attribute, values, negated):
            return _every(row.relations[attribute], values, negated)
        case HasHeld(attribute, other, negated):
            return _held(row, attribute, other, negated)
        case Labelled(label, negated):
            when = row.labels[label]
            return when.is_(sa.false()) if negated else when.is_not(sa.false())
    assert_never(formula)  # pragma: no cover - every formula has its case above


def _sorted(parts: Iterable[Formula]) -> list[Formula]:
    # One formula, one statement: SQLAlchemy and the server keep compiled ones.
    return sorted(parts, key=repr)


def _text(column: Column) -> Column:
    return sa.cast(column, sa.Text).collate("C")


def _related(op: RelationOp, left: Column, right: Column) -> Condition:
    match op:
        case "==":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
    return left >= right


# ── scalars ───────────────────────────────────────────────────────────────────────────────────


def _present(column: Column, kind: str, negated: bool) -> Condition:
    if kind in {"datetime", "decimal"}:
        finite = _finite(column, kind)
        return finite.is_not(sa.true()) if negated else finite
    return column.is_(None) if negated else column.is_not(None)


def _finite(column: Column, kind: str) -> Condition:
    if kind == "datetime":
        return sa.func.isfinite(column, type_=sa.Boolean)
    return column.between(_decimal(Decimal(I64_MIN)), _decimal(Decimal(I64_MAX)))


def _one_of(column: Column, values: frozenset[Scalar], negated: bool) -> Condition:
    held = [value for value in values if is_held(value)]
    sample = next(iter(values), "")
    kind = {DateTime: "datetime", Decimal: "decimal"}.get(type(sample), "")
    if not held:
        return _present(column, kind, negated=False) if negated else sa.false()
    compared = column
    if kind == "datetime":
        compared = sa.func.date_trunc(sa.literal_column("'milliseconds'"), column)
    elif not isinstance(sample, int | Decimal):
        compared = _text(column)
    shown = sorted(held, key=repr)
    if isinstance(sample, DateTime | Decimal):
        array: Column = pg.array([_constant(value) for value in shown])
    else:
        plain = [value.id if isinstance(value, EntityUid) else value for value in shown]
        array = sa.literal(plain, pg.ARRAY(_type_of(sample)))
    found = compared != sa.all_(array) if negated else compared == sa.any_(array)
    if negated and kind:
        return sa.and_(found, _finite(column, kind))
    return found


def _type_of(sample: Scalar) -> "sa.types.TypeEngine[Anything]":
    if isinstance(sample, bool):
        return sa.Boolean()
    return sa.BigInteger() if isinstance(sample, int) else sa.Text()


def _constant(value: Scalar) -> Column:
    match value:
        case DateTime(ms):
            return _instant(ms)
        case Decimal():
            return _decimal(value)
    raise AssertionError("texts and numbers go into one array")


def _instant(ms: int) -> Column:
    # As text: Python's datetime ends with the year 9999.
    return sa.cast(sa.literal(instant_text(ms), sa.Text), sa.DateTime(timezone=True))


def _decimal(value: Decimal) -> Column:
    return sa.cast(sa.literal(decimal.Decimal(value.units).scaleb(-4), sa.Numeric), sa.Numeric)


def _compares(column: Column, op: CompareOp, bound: Bound) -> Condition:
    match bound:
        case DateTime(ms):
            return _instants(column, op, ms)
        case Decimal():
            # NaN is greater than all and -Infinity less: no values of Cedar's.
            return sa.and_(_related(op, column, _decimal(bound)), _finite(column, "decimal"))
    return _related(op, column, sa.literal(bound, sa.BigInteger))


def _instants(column: Column, op: CompareOp, ms: int) -> Condition:
    if op in {"<=", ">"}:
        # Up to the end of the millisecond: the column may hold a finer fraction.
        ms += 1
    before, finite = op in {"<", "<="}, _finite(column, "datetime")
    if not FIRST_INSTANT < ms < AFTER_LAST_INSTANT:
        beyond = before if ms >= AFTER_LAST_INSTANT else not before
        return finite if beyond else sa.false()
    return sa.and_(column < _instant(ms) if before else column >= _instant(ms), finite)


def _matches(column: Column, pattern: Pattern, negated: bool) -> Condition:
    if not all(isinstance(part, Wildcard) or is_text(part) for part in pattern):
        return column.is_not(None) if negated else sa.false()
    like = sa.literal(like_text(pattern), sa.Text)
    return _text(column).not_like(like) if negated else _text(column).like(like)


def _beside(left: str, op: RelationOp, right: str, row: RowColumns) -> Condition:
    kind = row.kinds.get(left, "")
    columns = [row.scalars[left], row.scalars[right]]
    shown = columns
    if kind == "datetime":
        unit: Column = sa.literal_column("'milliseconds'")
        shown = [sa.func.date_trunc(unit, column) for column in columns]
    elif kind not in _PLAIN and kind != "decimal":
        shown = [_text(column) for column in columns]
    compared = _related(op, shown[0], shown[1])
    if kind in {"datetime", "decimal"}:
        return sa.and_(compared, *(_finite(column, kind) for column in columns))
    return compared


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────


def _reckons(left: Number, op: RelationOp, right: Number, row: RowColumns) -> Condition:
    least, greatest = _whole(I64_MIN), _whole(I64_MAX)
    held = [
        _finite(row.scalars[name], "datetime")
        for name in sorted(held_by(left) | held_by(right))
        if row.kinds.get(name) == "datetime"
    ]
    steps = sorted({step for side in (left, right) for step in steps_of(side)}, key=repr)
    fits = [_number(step, row).between(least, greatest) for step in steps]
    return sa.and_(*held, *fits, _related(op, _number(left, row), _number(right, row)))


def _whole(number: int) -> Column:
    # Written out, as it comes from no one but us, and numeric each by itself: SQLAlchemy drops the
    # brackets of a * (b * c), and two integers side by side would be multiplied as integers.
    return sa.literal_column(f"({number:d})::numeric", sa.Numeric)


def _milliseconds(column: Column) -> Column:
    # As ``targets.sql``: second and fraction apart, since the epoch may be a rounded float.
    second: Column = sa.func.date_trunc(sa.literal_column("'second'"), column)
    epoch: Column = sa.cast(sa.extract("epoch", second), sa.Numeric)
    fraction: Column = sa.func.floor(sa.extract("milliseconds", column), type_=sa.Numeric)
    return epoch * _whole(1000) + sa.func.mod(fraction, _whole(1000), type_=sa.Numeric)


def _number(number: Number, row: RowColumns) -> Column:
    if isinstance(number, int):
        return _whole(number)
    if isinstance(number, Held):
        column = row.scalars[number.attribute]
        if row.kinds.get(number.attribute) == "datetime":
            return _milliseconds(column)
        return sa.cast(column, sa.Numeric)
    left, right = _number(number.left, row), _number(number.right, row)
    match number.op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "quotient":
            return sa.func.div(left, right, type_=sa.Numeric)
        case "day":
            days = sa.func.div(left + _whole(MANY_DAYS * DAY), right, type_=sa.Numeric)
            return (days - _whole(MANY_DAYS)) * right
        case "rest of day":
            return sa.func.mod(left + _whole(MANY_DAYS * DAY), right, type_=sa.Numeric)
    assert_never(number.op)  # pragma: no cover - every step has its case above


# ── sets ──────────────────────────────────────────────────────────────────────────────────────


def _from(relation: RelationColumns, value: Column, *where: Condition) -> "sa.Select[Anything]":
    return (
        sa.select(value)
        .select_from(relation.source)
        .where(relation.where, *where)
        .correlate_except(relation.source)
    )


def _exists(
    relation: RelationColumns, values: frozenset[Scalar], negated: bool, *, other: bool
) -> Condition:
    if not other and not any(is_held(value) for value in values):
        return sa.true() if negated else sa.false()
    among = _one_of(relation.value, values, negated=other)
    found = _from(relation, sa.literal_column("1"), among).exists()
    return sa.not_(found) if negated else found


def _every(relation: RelationColumns, values: frozenset[Scalar], negated: bool) -> Condition:
    if not all(is_held(value) for value in values):
        return sa.true() if negated else sa.false()
    value = relation.value
    if not isinstance(next(iter(values)), int):
        value = _text(value)
    among = _one_of(relation.value, values, negated=False)
    count = _from(relation, sa.func.count(sa.distinct(value)), among).scalar_subquery()
    return count != len(values) if negated else count == len(values)


def _held(row: RowColumns, attribute: str, other: str, negated: bool) -> Condition:
    relation, column = row.relations[attribute], row.scalars[other]
    value = relation.value
    if row.kinds.get(other, "") not in _PLAIN:
        column, value = _text(column), _text(value)
    members = _from(relation, value, relation.value.is_not(None))
    if negated:
        # NULL NOT IN (no rows) is true, not NULL.
        return sa.and_(row.scalars[other].is_not(None), column.not_in(members))
    return column.in_(members)
