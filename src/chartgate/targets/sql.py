"""A formula about a row, as SQL text over ``this`` (PostgreSQL 14 and later).

Only AND and OR join the atoms, and an atom's SQL is true exactly where the atom holds, NULL or
false elsewhere: in WHERE and CASE WHEN that is one and the same. Parts are sorted, so that one
formula has one text, which the audit log can hash.

Texts are equal when their characters are, whatever the column's type and collation. An instant
counts in milliseconds, so a column's finer fraction is cut off; ``infinity`` and ``NaN`` are no
values of Cedar's, so there the attribute is absent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

from chartgate.cedar.ast import Pattern, Wildcard
from chartgate.cedar.extensions import DAY
from chartgate.cedar.values import I64_MAX, I64_MIN, DateTime, Decimal
from chartgate.datamap.model import Relation
from chartgate.datamap.read import literal
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
    Step,
    held_by,
)
from chartgate.targets.sql_values import (
    AFTER_LAST_INSTANT,
    FIRST_INSTANT,
    GREATEST_DECIMAL,
    LEAST_DECIMAL,
    MANY_DAYS,
    decimal_sql,
    instant_sql,
    is_instant,
    is_text,
    long_sql,
)


@dataclass(frozen=True, slots=True)
class RowSql:
    """Where one table's row attributes are found.

    ``scalars``: SQL over ``this``. ``relations``: with ``{patient}`` already put in place.
    ``labels``: the condition of each row label; NULL counts as true. ``kinds``: what each attribute
    is to Cedar; one that is not listed is text.
    """

    scalars: Mapping[str, str]
    relations: Mapping[str, Relation]
    labels: Mapping[str, str]
    kinds: Mapping[str, str] = field(default_factory=dict)


TRUE_SQL: Final = "true"
FALSE_SQL: Final = "false"
_PLAIN: Final = frozenset({"Long", "Bool"})
_OPS: Final[dict[RelationOp, str]] = {"==": "=", "!=": "<>"}


def to_sql(formula: Formula, row: RowSql) -> str:
    """The SQL condition; ``true`` for always and ``false`` for never."""
    match formula:
        case All(parts):
            return _joined(" AND ", (to_sql(p, row) for p in parts), empty=TRUE_SQL)
        case Any(parts):
            return _joined(" OR ", (to_sql(p, row) for p in parts), empty=FALSE_SQL)
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
            return f"(({row.labels[label]}) {'IS FALSE' if negated else 'IS NOT FALSE'})"
    assert_never(formula)  # pragma: no cover - every formula has its case above


def _joined(word: str, parts: Iterable[str], *, empty: str) -> str:
    texts = sorted(parts)
    return f"({word.join(texts)})" if texts else empty


def _text(column: str) -> str:
    return f'({column}::pg_catalog.text COLLATE pg_catalog."C")'


# ── scalars ───────────────────────────────────────────────────────────────────────────────────


def _present(column: str, kind: str, negated: bool) -> str:
    if kind in {"datetime", "decimal"}:
        return f"({_finite(column, kind)} IS NOT TRUE)" if negated else f"({_finite(column, kind)})"
    return f"(({column}) IS {'' if negated else 'NOT '}NULL)"


def _finite(column: str, kind: str) -> str:
    if kind == "datetime":
        return f"pg_catalog.isfinite({column})"
    return f"(({column}) BETWEEN {LEAST_DECIMAL} AND {GREATEST_DECIMAL})"


def _one_of(column: str, values: frozenset[Scalar], negated: bool) -> str:
    held = [value for value in values if is_held(value)]
    kind = _kind(next(iter(values), ""))
    if not held:
        return _present(column, kind, negated=False) if negated else FALSE_SQL
    texts = sorted(_scalar(value) for value in held)
    compared = f"({column})"
    if kind == "datetime":
        # Two values are equal when they are to the millisecond.
        compared = f"pg_catalog.date_trunc('milliseconds', {column})"
    elif kind == "text":
        compared = _text(f"({column})")
    if len(texts) == 1:
        found = f"({compared} {'<>' if negated else '='} {texts[0]})"
    else:
        found = f"({compared} {'NOT IN' if negated else 'IN'} ({', '.join(texts)}))"
    if negated and kind in {"datetime", "decimal"}:
        return f"({found} AND {_finite(column, kind)})"
    return found


def _compares(column: str, op: CompareOp, bound: Bound) -> str:
    match bound:
        case DateTime(ms):
            return _instants(column, op, ms)
        case Decimal():
            # The other end is closed as well: NaN is greater than all, -Infinity less.
            end = f">= {LEAST_DECIMAL}" if op in {"<", "<="} else f"<= {GREATEST_DECIMAL}"
            return f"((({column}) {op} {decimal_sql(bound)}) AND (({column}) {end}))"
    return f"(({column}) {op} {long_sql(bound)})"


def _instants(column: str, op: CompareOp, ms: int) -> str:
    if op in {"<=", ">"}:
        # Up to the end of the millisecond: the column may hold a finer fraction.
        ms += 1
    before = op in {"<", "<="}
    if not FIRST_INSTANT < ms < AFTER_LAST_INSTANT:
        beyond = before if ms >= AFTER_LAST_INSTANT else not before
        return f"({_finite(column, 'datetime')})" if beyond else FALSE_SQL
    if before:
        return f"((({column}) < {instant_sql(ms)}) AND (({column}) > '-infinity'))"
    return f"((({column}) >= {instant_sql(ms)}) AND (({column}) < 'infinity'))"


def _matches(column: str, pattern: Pattern, negated: bool) -> str:
    if not all(isinstance(part, Wildcard) or is_text(part) for part in pattern):
        return f"(({column}) IS NOT NULL)" if negated else FALSE_SQL
    like = literal(like_text(pattern))
    return f"({_text(f'({column})')} {'NOT LIKE' if negated else 'LIKE'} {like})"


def like_text(pattern: Pattern) -> str:
    """The pattern as LIKE reads it, with its escape left as it is: a backslash."""
    return "".join("%" if isinstance(part, Wildcard) else _escaped(part) for part in pattern)


def _escaped(chunk: str) -> str:
    """A chunk of a LIKE pattern that stands for itself."""
    for special in ("\\", "%", "_"):
        chunk = chunk.replace(special, "\\" + special)
    return chunk


def _beside(left: str, op: RelationOp, right: str, row: RowSql) -> str:
    kind = row.kinds.get(left, "")
    columns = (row.scalars[left], row.scalars[right])
    shown = [f"({column})" for column in columns]
    if kind == "datetime":
        shown = [f"pg_catalog.date_trunc('milliseconds', {column})" for column in columns]
    elif kind not in _PLAIN and kind != "decimal":
        shown = [_text(column) for column in shown]
    compared = f"({shown[0]} {_OPS.get(op, op)} {shown[1]})"
    if kind in {"datetime", "decimal"}:
        return f"({' AND '.join((compared, *(_finite(column, kind) for column in columns)))})"
    return compared


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────


def _reckons(left: Number, op: RelationOp, right: Number, row: RowSql) -> str:
    def shown(number: Number) -> str:
        return _number(number, row)

    # numeric holds any of these numbers, so no step fails; each is looked at by itself.
    steps = sorted({shown(step) for side in (left, right) for step in steps_of(side)})
    held = sorted(
        _finite(row.scalars[name], "datetime")
        for name in held_by(left) | held_by(right)
        if row.kinds.get(name) == "datetime"
    )
    fits = [f"({step} BETWEEN {long_sql(I64_MIN)} AND {long_sql(I64_MAX)})" for step in steps]
    compared = f"({shown(left)} {_OPS.get(op, op)} {shown(right)})"
    return f"({' AND '.join((*held, *fits, compared))})"


def steps_of(number: Number) -> Iterator[Step]:
    """Every step that leads to the number, each to be looked at by itself."""
    if isinstance(number, Step):
        yield number
        yield from steps_of(number.left)
        yield from steps_of(number.right)


def _number(number: Number, row: RowSql) -> str:
    match number:
        case Held(attribute):
            column = row.scalars[attribute]
            if row.kinds.get(attribute) == "datetime":
                return _milliseconds(column)
            return f"({column})::pg_catalog.numeric"
        case Step(op, left, right):
            return _STEP_SQL[op](_number(left, row), _number(right, row))
    return long_sql(number)


def _milliseconds(column: str) -> str:
    # Second and fraction apart: far from 1970, the epoch of a finer instant is a rounded float.
    second = f"EXTRACT(epoch FROM pg_catalog.date_trunc('second', {column}))"
    fraction = f"pg_catalog.mod(pg_catalog.floor(EXTRACT(milliseconds FROM ({column}))), 1000)"
    return f"({second} * 1000 + {fraction})"


_STEP_SQL: Final[Mapping[str, Callable[[str, str], str]]] = {
    "+": "({} + {})".format,
    "-": "({} - {})".format,
    "*": "({} * {})".format,
    "quotient": "pg_catalog.div({}, {})".format,
    "day": (f"((pg_catalog.div({{}} + {MANY_DAYS * DAY}, {{}}) - {MANY_DAYS}) * {DAY})".format),
    "rest of day": f"pg_catalog.mod({{}} + {MANY_DAYS * DAY}, {{}})".format,
}


# ── sets ──────────────────────────────────────────────────────────────────────────────────────


def _exists(relation: Relation, values: frozenset[Scalar], negated: bool, *, other: bool) -> str:
    """Whether a member is among the values, or (``other``) is none of them. A NULL is no member."""
    if not other and not any(is_held(value) for value in values):
        return TRUE_SQL if negated else FALSE_SQL
    among = _one_of(relation.value, values, negated=other)
    found = f"EXISTS (SELECT 1 FROM {relation.source} WHERE ({relation.where}) AND {among})"
    return f"(NOT {found})" if negated else f"({found})"


def _every(relation: Relation, values: frozenset[Scalar], negated: bool) -> str:
    if not all(is_held(value) for value in values):
        return TRUE_SQL if negated else FALSE_SQL
    value, kind = f"({relation.value})", _kind(next(iter(values)))
    distinct = _text(value) if kind == "text" else value
    among = _one_of(relation.value, values, negated=False)
    return (
        f"((SELECT pg_catalog.count(DISTINCT {distinct}) FROM {relation.source} "
        f"WHERE ({relation.where}) AND {among}) {'<>' if negated else '='} {len(values)})"
    )


def _held(row: RowSql, attribute: str, other: str, negated: bool) -> str:
    relation, column = row.relations[attribute], f"({row.scalars[other]})"
    value = f"({relation.value})"
    if row.kinds.get(other, "") not in _PLAIN:
        column, value = _text(column), _text(value)
    # The row's column stands outside of the subquery, where no name of the relation reaches it.
    members = (
        f"(SELECT {value} FROM {relation.source} "
        f"WHERE ({relation.where}) AND ({relation.value}) IS NOT NULL)"
    )
    if negated:
        # NULL NOT IN (no rows) is true, not NULL.
        return f"((({row.scalars[other]}) IS NOT NULL) AND ({column} NOT IN {members}))"
    return f"({column} IN {members})"


# ── values ────────────────────────────────────────────────────────────────────────────────────


def _kind(value: Scalar) -> str:
    match value:
        case DateTime():
            return "datetime"
        case Decimal():
            return "decimal"
        case int():
            return "plain"
    return "text"


def is_held(value: Scalar) -> bool:
    """Whether a column could hold the value at all."""
    match value:
        case EntityUid():
            return is_text(value.id)
        case str():
            return is_text(value)
        case DateTime(ms):
            return is_instant(ms)
    return True


def _scalar(value: Scalar) -> str:
    match value:
        case EntityUid():
            return literal(value.id)
        case DateTime(ms):
            return instant_sql(ms)
        case Decimal():
            return decimal_sql(value)
        case bool():
            return TRUE_SQL if value else FALSE_SQL
        case int():
            return long_sql(value)
    return literal(value)
