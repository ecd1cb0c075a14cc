"""Simplifying a formula never changes which rows it holds for: a lost condition would be access."""

from collections.abc import Iterable
from itertools import product
from typing import Any as Anything

from hypothesis import given
from hypothesis import strategies as st

from chartgate.cedar.ast import WILDCARD
from chartgate.cedar.values import CedarSet, is_i64
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
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
    Present,
    Reckons,
    Step,
    conjunction,
    conjuncts,
    disjunction,
    implies,
)
from chartgate.targets.predicate import compile_labelled

NAMES = [EntityUid("User", name) for name in "abc"]
TEXTS = ["", "a", "ab"]
ROWS: list[dict[str, Anything]] = [
    {"owner": owner, "size": size, "most": most, "text": text, "team": frozenset(team),
     "label": label}
    for owner, (size, most), text, team, label in product(
        [None, *NAMES],
        [(None, 1), (1, None), (2, 2), (3, 2**63 - 1)],
        [None, *TEXTS],
        [(), NAMES[:1], NAMES[1:], NAMES],
        [True, False, None],
    )
]  # fmt: skip

_some_names = st.frozensets(st.sampled_from(NAMES), max_size=3)
_atoms: st.SearchStrategy[Formula] = st.one_of(
    st.builds(Present, st.sampled_from(["owner", "size"]), st.booleans()),
    st.builds(IsOneOf, st.just("owner"), _some_names, st.booleans()),
    st.builds(IsOneOf, st.just("size"), st.frozensets(st.integers(1, 3)), st.booleans()),
    st.builds(
        Compares, st.just("size"), st.sampled_from(["<", "<=", ">", ">="]), st.integers(0, 4)
    ),
    st.builds(
        Matches,
        st.just("text"),
        st.sampled_from([("a", WILDCARD), (WILDCARD, "b"), (WILDCARD,), ("a",)]),
        st.booleans(),
    ),
    st.builds(IsOneOf, st.just("text"), st.frozensets(st.sampled_from(TEXTS)), st.booleans()),
    st.builds(Beside, st.just("most"), st.sampled_from(["==", "!=", "<", ">="]), st.just("size")),
    st.builds(
        Reckons,
        st.builds(Step, st.sampled_from(["+", "-", "*"]), st.just(Held("most")), st.integers(1, 2)),
        st.sampled_from(["==", "!=", "<", ">="]),
        st.sampled_from([1, 4, Held("size")]),
    ),
    st.builds(
        lambda kind, values, negated: kind("team", values, negated),
        st.sampled_from([HasMember, HasEvery, HasOther]),
        _some_names,
        st.booleans(),
    ),
    st.builds(HasHeld, st.just("team"), st.just("owner"), st.booleans()),
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
            return compared(row[attribute], op, number)
        case Matches(attribute, pattern, negated):
            text = row[attribute]
            liked = {
                ("a", WILDCARD): text in ("a", "ab"), (WILDCARD, "b"): text == "ab",
                (WILDCARD,): True, ("a",): text == "a",
            }[pattern]  # fmt: skip
            return text is not None and liked != negated
        case Beside(left, op, right):
            return compared(row[left], op, row[right])
        case Reckons(Step(op, Held(name), second), relation, right):
            if row[name] is None:
                return False
            result = {"+": row[name] + second, "-": row[name] - second, "*": row[name] * second}[op]
            other = row["size"] if isinstance(right, Held) else right
            return is_i64(result) and compared(result, relation, other)
        case HasEvery(attribute, values, negated):
            return (values <= row[attribute]) != negated
        case HasOther(attribute, values, negated):
            return bool(row[attribute] - values) != negated
        case HasHeld(attribute, other, negated):
            return row[other] is not None and (row[other] in row[attribute]) != negated
        case HasMember(attribute, values, negated):
            return bool(row[attribute] & values) != negated
        case Labelled(label, negated):
            return (row[label] is False) == negated
    raise AssertionError(formula)


def compared(left: Anything, op: str, right: Anything) -> bool:
    if left is None or right is None:
        return False
    return {
        "==": left == right, "!=": left != right, "<": left < right, "<=": left <= right,
        ">": left > right, ">=": left >= right,
    }[op]  # fmt: skip


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
def test_the_python_function_holds_for_the_same_rows(formula: Formula) -> None:
    ask = compile_labelled(formula)
    for row in ROWS:
        attributes = {n: row[n] for n in ("owner", "size", "most", "text") if row[n] is not None}
        attributes["team"] = CedarSet.of(row["team"])
        assert ask(attributes, {"label": row["label"]}) == holds(formula, row)


@given(formulas)
def test_never_and_always_are_the_ends(formula: Formula) -> None:
    assert implies(NEVER, formula)
    assert implies(formula, ALWAYS)
    assert implies(formula, formula)
    assert conjunction([formula, NEVER]) == NEVER
    assert disjunction([formula, ALWAYS]) == ALWAYS
