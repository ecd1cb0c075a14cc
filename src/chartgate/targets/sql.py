"""A formula about a row, as SQL text over ``this``.

Only AND and OR join the atoms, and an atom's SQL is true exactly where the atom holds, NULL or
false elsewhere: in WHERE and CASE WHEN that is one and the same. Parts are sorted, so that one
formula has one text, which the audit log can hash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from chartgate.datamap.model import Relation
from chartgate.datamap.read import literal
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    All,
    Any,
    Compares,
    Formula,
    HasMember,
    IsOneOf,
    Labelled,
    Present,
    Scalar,
)


@dataclass(frozen=True, slots=True)
class RowSql:
    """Where one table's row attributes are found.

    ``scalars``: SQL over ``this``. ``relations``: with ``{patient}`` already put in place.
    ``labels``: the condition of each row label; NULL counts as true.
    """

    scalars: Mapping[str, str]
    relations: Mapping[str, Relation]
    labels: Mapping[str, str]


FALSE_SQL: Final = "false"


def to_sql(formula: Formula, row: RowSql) -> str:
    """The SQL condition; ``true`` for always and ``false`` for never."""
    match formula:
        case All(parts):
            return _joined(" AND ", (to_sql(p, row) for p in parts), empty="true")
        case Any(parts):
            return _joined(" OR ", (to_sql(p, row) for p in parts), empty=FALSE_SQL)
        case Present(attribute, negated):
            return f"(({row.scalars[attribute]}) IS {'' if negated else 'NOT '}NULL)"
        case IsOneOf(attribute, values, negated):
            return _one_of(row.scalars[attribute], values, negated)
        case Compares(attribute, op, number):
            return f"(({row.scalars[attribute]}) {op} {_number(number)})"
        case HasMember(attribute, values, negated):
            return _member(row.relations[attribute], values, negated)
        case Labelled(label, negated):
            return f"(({row.labels[label]}) {'IS FALSE' if negated else 'IS NOT FALSE'})"
    assert_never(formula)  # pragma: no cover - every formula has its case above


def _joined(word: str, parts: Iterable[str], *, empty: str) -> str:
    texts = sorted(parts)
    return f"({word.join(texts)})" if texts else empty


def _one_of(column: str, values: frozenset[Scalar], negated: bool) -> str:
    if not values:
        return f"(({column}) IS NOT NULL)" if negated else FALSE_SQL
    texts = sorted(_scalar(value) for value in values)
    compared = f"({column})"
    if not all(isinstance(value, int) for value in values):
        # Names are equal when their characters are, whatever the column's type and collation.
        compared = f'({compared}::pg_catalog.text COLLATE pg_catalog."C")'
    if len(texts) == 1:
        return f"({compared} {'<>' if negated else '='} {texts[0]})"
    return f"({compared} {'NOT IN' if negated else 'IN'} ({', '.join(texts)}))"


def _member(relation: Relation, values: frozenset[Scalar], negated: bool) -> str:
    if not values:
        return "true" if negated else FALSE_SQL
    among = _one_of(relation.value, values, negated=False)
    found = f"EXISTS (SELECT 1 FROM {relation.source} WHERE ({relation.where}) AND {among})"
    return f"(NOT {found})" if negated else f"({found})"


def _scalar(value: Scalar) -> str:
    if isinstance(value, EntityUid):
        return literal(value.id)
    if isinstance(value, bool):
        return "true" if value else FALSE_SQL
    return _number(value) if isinstance(value, int) else literal(value)


def _number(number: int) -> str:
    """A Long. In brackets: the smallest one is no literal of PostgreSQL's bigint, and ``- -1``
    would begin a comment without its space."""
    return f"({number:d})" if number < 0 else f"{number:d}"
