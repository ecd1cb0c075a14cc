"""A formula as a Python function: rows that come from elsewhere, ill-typed ones included."""

from typing import Any

import pytest

from chartgate.cedar.ast import WILDCARD
from chartgate.cedar.values import CedarSet, DateTime, Decimal, Duration
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import (
    ALWAYS,
    NEVER,
    All,
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
)
from chartgate.targets.formula import (
    Any as Some,
)
from chartgate.targets.predicate import compile_labelled, compile_predicate

ANN = EntityUid("User", "ann")


def holds(formula: Formula, **row: Any) -> bool:
    return compile_predicate(formula)(row)


def test_the_ends_hold_always_and_never() -> None:
    assert holds(ALWAYS)
    assert not holds(NEVER)


def test_parts_are_joined() -> None:
    a, b, c = Present("a"), Present("b"), Present("c")
    assert holds(All(frozenset({a, b})), a=1, b=1)
    assert not holds(All(frozenset({a, b, c})), a=1, b=1)
    assert holds(Some(frozenset({a, b})), b=1)
    assert holds(Some(frozenset({a, b, c})), c=1)


def test_a_label_that_is_not_known_counts_as_carried() -> None:
    for label, carried in ((True, True), (None, True), (False, False)):
        assert compile_labelled(Labelled("vip"))({}, {"vip": label}) is carried
        assert compile_labelled(Labelled("vip", negated=True))({}, {"vip": label}) is not carried
    assert holds(Labelled("vip"))


@pytest.mark.parametrize(
    "formula",
    [
        IsOneOf("x", frozenset({1})), IsOneOf("x", frozenset({1}), negated=True),
        IsOneOf("x", frozenset({ANN})), IsOneOf("x", frozenset({ANN}), negated=True),
        Compares("x", "<", 5), Compares("x", ">=", 0), Compares("x", "<", DateTime(5)),
        Compares("x", "<", Decimal(5)), Matches("x", (WILDCARD,)),
        Matches("x", ("a",), negated=True), Beside("x", "==", "number"),
        Beside("x", "!=", "number"), Beside("x", "<=", "number"),
        Reckons(Step("+", Held("x"), 1), ">", -1), HasMember("x", frozenset({1}), negated=True),
        HasEvery("x", frozenset({1}), negated=True), HasOther("x", frozenset({1}), negated=True),
        HasHeld("x", "number", negated=True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [True, {"a": 1}, None])
def test_a_value_of_another_type_makes_no_atom_true(formula: Formula, value: Any) -> None:
    row = {"number": 1} if value is None else {"number": 1, "x": value}
    assert not compile_predicate(formula)(row)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        (IsOneOf("x", frozenset({True})), True), (Compares("x", ">", DateTime(1)), DateTime(2)),
        (Compares("x", ">", Decimal(1)), Decimal(2)), (Beside("x", "<", "y"), DateTime(0)),
        (Reckons(Held("x"), "==", 0), DateTime(0)), (Reckons(Held("x"), "==", 5), Duration(5)),
        (Reckons(Step("rest of day", Held("x"), 86_400_000), "==", 86_399_999), DateTime(-1)),
        (Reckons(Step("day", Held("x"), 86_400_000), "==", -86_400_000), DateTime(-1)),
        (Reckons(Step("quotient", Held("x"), 1000), "==", -1), Duration(-1999)),
        (HasHeld("set", "x"), "a"), (HasOther("set", frozenset()), "a"),
    ],
)  # fmt: skip
def test_a_value_of_the_right_type_is_compared(formula: Formula, value: Any) -> None:
    assert holds(formula, x=value, y=DateTime(1), set=CedarSet.of(["a"]))


def test_arithmetic_beyond_64_bits_has_no_result() -> None:
    doubled = Step("*", Held("x"), 2)
    assert holds(Reckons(doubled, ">", 0), x=2**61)
    assert not holds(Reckons(doubled, ">", 0), x=2**62)
    assert not holds(Reckons(doubled, "<=", 0), x=2**62)
    assert not holds(Reckons(Held("x"), ">", 0), x=2**63)


def test_entities_of_two_types_are_never_beside_each_other() -> None:
    assert holds(Beside("x", "!=", "y"), x=ANN, y=EntityUid("User", "bob"))
    assert not holds(Beside("x", "!=", "y"), x=ANN, y=EntityUid("Ward", "ann"))
