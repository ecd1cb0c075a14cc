"""A formula about a row, as SQL text over ``this``.

Only AND and OR join the atoms, and an atom's SQL is true exactly where the atom holds, NULL or
false elsewhere: in WHERE and CASE WHEN that is one and the same. Parts are sorted, so that one
formula has one text, which the audit log can hash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

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
    ``entity_types``: the entity type of each attribute whose values are entities.
    """

    scalars: Mapping[str, str]
    relations: Mapping[str, Relation]
    entity_types: Mapping[str, str]


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
            return _one_of(row.scalars[attribute], _texts(attribute, values, row), negated)
        case Compares(attribute, op, number):
            return f"(({row.scalars[attribute]}) {op} {number:d})"
        case HasMember(attribute, values, negated):
            return _member(row.relations[attribute], _texts(attribute, values, row), negated)
        case Labelled(when, negated):
            return f"(({when}) {'IS FALSE' if negated else 'IS NOT FALSE'})"


def _joined(word: str, parts: Iterable[str], *, empty: str) -> str:
    texts = sorted(parts)
    return f"({word.join(texts)})" if texts else empty


def _one_of(column: str, texts: list[str], negated: bool) -> str:
    if not texts:
        return f"(({column}) IS NOT NULL)" if negated else FALSE_SQL
    if len(texts) == 1:
        return f"(({column}) {'<>' if negated else '='} {texts[0]})"
    return f"(({column}) {'NOT IN' if negated else 'IN'} ({', '.join(texts)}))"


def _member(relation: Relation, texts: list[str], negated: bool) -> str:
    if not texts:
        return "true" if negated else FALSE_SQL
    among = _one_of(relation.value, texts, negated=False)
    found = f"EXISTS (SELECT 1 FROM {relation.source} WHERE ({relation.where}) AND {among})"
    return f"(NOT {found})" if negated else f"({found})"


def _texts(attribute: str, values: frozenset[Scalar], row: RowSql) -> list[str]:
    """The values as literals. An entity of another type than the attribute's equals no row's."""
    wanted = row.entity_types.get(attribute)
    texts = []
    for value in values:
        if isinstance(value, EntityUid):
            if value.type == wanted:
                texts.append(literal(value.id))
        elif isinstance(value, bool):
            texts.append("true" if value else FALSE_SQL)
        elif isinstance(value, int):
            texts.append(f"{value:d}")
        else:
            texts.append(literal(value))
    return sorted(texts)
