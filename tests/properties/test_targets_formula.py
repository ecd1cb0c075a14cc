"""Simplifying a formula never changes which rows it holds for: a lost condition would be access."""

from collections.abc import Iterable
from itertools import product
from typing import Any as Anything

from hypothesis import given
from hypothesis import strategies as st

from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
    All,
    Any,
    Compares,
    Formula,
    HasMember,
    IsOneOf,
    Labelled,
    Present,
    conjunction,
    conjuncts,
    disjunction,
    implies,
)

NAMES = [EntityUid("User", name) for name in "abc"]
ROWS = [
    {"owner": owner, "size": size, "team": frozenset(team), "label": label}
    for owner, size, team, label in product(
        [None, *NAMES], [None, 1, 2, 3], [(), NAMES[:1], NAMES[1:], NAMES], [True, False, None]
    )
]

_some_names = st.frozensets(st.sampled_from(NAMES), max_size=3)
_atoms: st.SearchStrategy[Formula] = st.one_of(
    st.builds(Present, st.sampled_from(["owner", "size"]), st.booleans()),
    st.builds(IsOneOf, st.just("owner"), _some_names, st.booleans()),
    st.builds(IsOneOf, st.just("size"), st.frozensets(st.integers(1, 3)), st.booleans()),
    st.builds(
        Compares, st.just("size"), st.sampled_from(["<", "<=", ">", ">="]), st.integers(0, 4)
    ),
    st.builds(HasMember, st.just("team"), _some_names, st.booleans()),
    st.builds(Labelled, st.just("label"), st.booleans()),
)


def _joined(parts: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
    several = st.frozensets(parts, max_size=4)
    return st.one_of(st.builds(All, several), st.builds(Any, several))


formulas = st.recursive(_atoms, _joined, max_leaves=12)


def holds(formula: Formula, row: dict[str, Anything]) -> bool:
    """The plain meaning: what is absent makes no atom true but absence itself."""
    match formula:
        case All(parts):
            return all(holds(part, row) for part in parts)
        case Any(parts):
            return any(holds(part, row) for part in parts)
        case Present(attribute, negated):
            return (row[attribute] is None) == negated
        case IsOneOf(attribute, values, negated):
            return row[attribute] is not None and (row[attribute] in values) != negated
        case Compares(attribute, op, number):
            value = row[attribute]
            if value is None:
                return False
            return {"<": value < number, "<=": value <= number,
                    ">": value > number, ">=": value >= number}[op]  # fmt: skip
        case HasMember(attribute, values, negated):
            return bool(row[attribute] & values) != negated
        case Labelled(label, negated):
            return (row[label] is False) == negated
    raise AssertionError(formula)


def rows_of(formula: Formula) -> list[bool]:
    return [holds(formula, row) for row in ROWS]


def simplified(formula: Formula) -> Formula:
    if isinstance(formula, All):
        return conjunction(map(simplified, formula.parts))
    if isinstance(formula, Any):
        return disjunction(map(simplified, formula.parts))
    return formula


@given(formulas)
def test_a_simplified_formula_holds_for_the_same_rows(formula: Formula) -> None:
    assert rows_of(simplified(formula)) == rows_of(formula)


@given(st.lists(formulas, max_size=4))
def test_a_conjunction_is_all_and_a_disjunction_is_any(parts: list[Formula]) -> None:
    assert rows_of(conjunction(parts)) == rows_of(All(frozenset(parts)))
    assert rows_of(disjunction(parts)) == rows_of(Any(frozenset(parts)))


@given(formulas, formulas)
def test_what_is_said_to_follow_does_follow(one: Formula, other: Formula) -> None:
    for premise, conclusion in ((one, other), (simplified(one), simplified(other))):
        if implies(premise, conclusion):
            for row in ROWS:
                assert holds(conclusion, row) or not holds(premise, row)


@given(formulas)
def test_the_order_of_parts_does_not_matter(formula: Formula) -> None:
    def both(parts: Iterable[Formula]) -> tuple[Formula, Formula]:
        given = tuple(parts)
        return conjunction(given), disjunction(given)

    parts = sorted(conjuncts(formula), key=repr)
    assert [rows_of(f) for f in both(parts)] == [rows_of(f) for f in both(reversed(parts))]


@given(formulas)
def test_never_and_always_are_the_ends(formula: Formula) -> None:
    assert implies(NEVER, formula)
    assert implies(formula, ALWAYS)
    assert implies(formula, formula)
    assert conjunction([formula, NEVER]) == NEVER
    assert disjunction([formula, ALWAYS]) == ALWAYS
