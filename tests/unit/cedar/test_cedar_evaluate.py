"""The evaluator, rule by rule, on conditions written as Cedar text."""

import pytest

from chartgate.cedar.ast import (
    TRUE,
    And,
    Binary,
    Condition,
    Expr,
    Literal,
    Not,
    Origin,
    Policy,
    Scope,
    Slot,
    Unary,
    Var,
)
from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.evaluate import Env, evaluate
from chartgate.cedar.parse import parse_policies, policy_set
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.model.principal import EntityUid

ANNA = EntityUid("Staff", "anna")
WARD = EntityUid("Team", "ward")
CHART = EntityUid("Chart", "7")
VIEW = EntityUid("Action", "view")

STORE = Entities(
    [
        Entity(ANNA, RecordValue({"level": 3}), frozenset([WARD]), RecordValue({"shift": "day"})),
        Entity(CHART, RecordValue({"team": WARD})),
    ]
)
CONTEXT = RecordValue({"n": 1, "flag": True, "deep": RecordValue({"x": RecordValue({"y": 1})})})
ENV = Env(ANNA, VIEW, CHART, CONTEXT, STORE)


def condition(text: str) -> Expr:
    [policy] = parse_policies(
        {"t": f"permit(principal, action, resource) when {{ {text} }};"}, ids="order"
    ).policies
    return policy.conditions[0].body


@pytest.mark.parametrize(
    "text",
    [
        "true && !false",
        "true || 5",
        "!(false && 5)",
        "!(false && context.absent) && (true || context.absent)",
        'principal == Staff::"anna" && !(principal == Team::"anna")',
        '!(Team::"absent" has level) && !Team::"absent".hasTag("x")',
        'Team::"absent" in [Team::"x", Team::"absent"]',
        "[1, 1, true, 1] == [true, 1] && {a: [1, 2]} == {a: [2, 1, 2]}",
        'ip("127.0.0.1").isLoopback() && !ip("127.0.0.1/7").isLoopback()',
        'datetime("0000-01-01") < datetime("1969-12-31T23:59:59.999Z")',
        'datetime("1969-12-31T12:00:00Z").toDate() == datetime("1969-12-31")',
        'datetime("2024-01-01T00:00:00+2359") == datetime("2023-12-31T00:01:00Z")',
        'duration("-1d1h").toDays() == -1 && duration("-23h").toDays() == 0',
        "if true then true else 5",
        "if context.flag then true else context.absent",
        '1 != true && 1 != "1" && !(principal == "anna")',
        "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3",
        "1 + 2 * 3 - 7 == -context.n + 1",
        "-9223372036854775808 < 9223372036854775807",
        'principal in Team::"ward" && principal in principal && principal in [Team::"x", Team::"ward"]',
        "!(principal in [])",
        'Team::"absent" in Team::"absent" && !(Team::"absent" in Team::"ward")',
        "principal in resource.team",
        'principal is Staff && principal is Staff in Team::"ward" && !(principal is Chart)',
        "!(principal is Chart in 5)",
        'principal has level && !(principal has other) && !(Team::"absent" has level)',
        "context has deep.x.y && !(context has deep.z.y) && context.deep.x.y == 1",
        'principal.hasTag("shift") && principal.getTag("shift") == "day"',
        '!principal.hasTag("no") && !Team::"absent".hasTag("shift")',
        "[1, [2]].contains([2, 2]) && [1, 2].containsAll([2]) && [1].containsAny([1, 2])",
        "[].isEmpty() && ![1].isEmpty() && [1].containsAll([]) && ![].containsAny([])",
        '{a: 1, "b c": 2}["b c"] == 2 && {a: 1} != {a: true}',
        'datetime("2026-01-01") < datetime("2026-01-02") && duration("1h") >= duration("60m")',
        'ip("10.0.0.1").isInRange(ip("10.0.0.0/8"))',
    ],
)  # fmt: skip
def test_the_condition_is_true(text: str) -> None:
    assert evaluate(condition(text), ENV) is True


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("true && 5", "type"),
        ("5 && false", "type"),
        ("context.absent && false", "missing_attribute"),
        ("context.absent || true", "missing_attribute"),
        ('ip("::ffff:1.2.3.4") == 1', "extension"),
        ('datetime("2024-01-01T00:00:00+2400") == 1', "extension"),
        ('decimal("1.00001") == 1', "extension"),
        ("false || 5", "type"),
        ("!5", "type"),
        ("if 1 then true else true", "type"),
        ("1 < true", "type"),
        ('"a" < "b"', "type"),
        ('duration("1h") < datetime("2026-01-01")', "type"),
        ('decimal("1.0") < decimal("2.0")', "type"),
        ('1 + "a" == 2', "type"),
        ("true + 1 == 2", "type"),
        ("9223372036854775807 + 1 > 0", "overflow"),
        ("-9223372036854775808 - 1 < 0", "overflow"),
        ("9223372036854775807 * 2 > 0", "overflow"),
        ("-(-9223372036854775808) > 0", "overflow"),
        ("-principal == 1", "type"),
        ("1 in principal", "type"),
        ('principal in "Team"', "type"),
        ("principal in [principal, 1]", "type"),
        ("1 is Staff", "type"),
        ("principal is Staff in 5", "type"),
        ("principal.absent", "missing_attribute"),
        ("context.absent", "missing_attribute"),
        ('Team::"absent".level == 1', "missing_entity"),
        ('principal.getTag("no") == 1', "missing_tag"),
        ('Team::"absent".getTag("no") == 1', "missing_entity"),
        ("principal.hasTag(1)", "type"),
        ('principal["level"].x == 1', "type"),
        ("1 has a", "type"),
        ('1 like "a"', "type"),
        ('"abc".contains("a")', "type"),
        ("[1].containsAll(1)", "type"),
        ('"".isEmpty()', "type"),
        ("ip(1) == 1", "type"),
        ('ip("1.1.1.1", "x") == 1', "arity"),
        ('datetime("tomorrow") == 1', "extension"),
    ],
)  # fmt: skip
def test_the_condition_is_an_error_of_its_kind(text: str, kind: str) -> None:
    with pytest.raises(EvaluationError) as error:
        evaluate(condition(text), ENV)
    assert error.value.kind == kind
    assert str(error.value).startswith(f"{kind}: ")


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("", "", True),
        ("", "*", True),
        ("a", "", False),
        ("abc", "a*c", True),
        ("abc", "a*c*", True),
        ("abc", "*b", False),
        ("a\\nb", "a*b", True),
        ("aab", "*ab", True),
        ("ab", "*ab*ab", False),
        ("ab", "a*ab", False),
        ("aXbXc", "a*b*c", True),
        ("a*c", "a\\*c", True),
        ("abc", "a\\*c", False),
        ("a%_c", "a%_c", True),
        ("abbc", "a%c", False),
        ("Abc", "abc", False),
        ("xb", "a*b", False),
        ("abcd", "*b*x*d", False),
    ],
)
def test_only_the_star_is_a_wildcard(text: str, pattern: str, expected: bool) -> None:
    assert evaluate(condition(f'"{text}" like "{pattern}"'), ENV) is expected


def test_a_slot_has_no_value() -> None:
    with pytest.raises(EvaluationError) as error:
        evaluate(Slot("?principal"), ENV)
    assert error.value.kind == "slot"


def test_operators_nobody_knows_are_errors() -> None:
    for strange in (Unary("abs", TRUE), Binary("xor", TRUE, TRUE)):  # type: ignore[arg-type]
        with pytest.raises(EvaluationError):
            evaluate(strange, ENV)


def test_a_tree_built_too_deep_by_hand_is_an_error_and_not_a_crash() -> None:
    deep: Expr = TRUE
    for _ in range(5_000):
        deep = Not(deep)
    with pytest.raises(EvaluationError) as error:
        evaluate(deep, ENV)
    assert error.value.kind == "depth"


def test_conditions_loaded_at_the_limit_are_evaluated() -> None:
    text = " || ".join(["context.n == 2"] * 240 + ["true"])
    assert evaluate(condition(text), ENV) is True


def test_the_whole_condition_is_scope_and_then_clauses() -> None:
    policy = Policy(
        "p",
        "permit",
        Scope("==", (ANNA,)),
        Scope("in", (VIEW, EntityUid("Action", "read"))),
        Scope("is in", (WARD,), "Chart"),
        (Condition("when", TRUE), Condition("unless", Literal(False))),
    )
    actions = Literal(CedarSet.of([]))
    whole = policy.condition()
    assert isinstance(whole, And)
    assert whole.left == Binary("==", Var("principal"), Literal(ANNA))
    assert isinstance(whole.right, And)
    assert whole.right.left != actions
    assert isinstance(whole.right.right, And)
    assert whole.right.right.right == And(TRUE, Not(Literal(False)))
    assert evaluate(whole, ENV) is False


def test_an_attribute_error_in_a_clause_is_not_met_when_the_scope_is_false() -> None:
    text = 'permit(principal == Staff::"bob", action, resource) when { context.absent };'
    answer = authorize(parse_policies({"t": text}, ids="order"), ENV, forbid_error_denies=True)
    assert answer == Answer(False, (), ())


BROKEN = {
    "p": '@id("all") permit(principal, action, resource);\n'
    '@id("guard") forbid(principal, action, resource) when { context.absent };\n'
    '@id("typo") permit(principal, action, resource) when { context.missing };'
}


def test_a_forbid_that_fails_is_skipped_by_cedar_and_denies_with_us() -> None:
    policies = parse_policies(BROKEN)
    pure = authorize(policies, ENV, forbid_error_denies=False)
    assert pure.allowed
    assert pure.determining == ("all",)
    assert [failed for failed, _ in pure.errors] == ["guard", "typo"]
    hard = authorize(policies.policies, ENV, forbid_error_denies=True)
    assert not hard.allowed
    assert hard.determining == ("guard",)
    assert hard.errors == pure.errors


def test_a_template_decides_nothing_until_it_is_linked() -> None:
    text = '@id("t") permit(principal == ?principal, action, resource in ?resource);'
    [template] = parse_policies({"t": text}, templates=True).policies
    assert template.is_template
    assert authorize([template], ENV, forbid_error_denies=True) == Answer(False, (), ())
    linked = template.link("grant-1", {"?principal": ANNA, "?resource": CHART})
    assert not linked.is_template
    assert linked.origin == Origin("t", 1)
    assert authorize(policy_set([linked]), ENV, forbid_error_denies=True).allowed
    with pytest.raises(KeyError):
        template.link("grant-2", {"?principal": ANNA})


def test_satisfied_forbids_decide_alone_and_every_error_is_told() -> None:
    policies = parse_policies(
        {
            "p": '@id("yes") permit(principal, action, resource);\n'
            '@id("yes2") permit(principal, action, resource);\n'
            '@id("bad") permit(principal, action, resource) when { context.absent };\n'
            '@id("no") forbid(principal, action, resource) when { context.n == 1 };\n'
            '@id("silent") forbid(principal, action, resource) when { context.n == 2 };'
        }
    )
    answer = authorize(policies, ENV, forbid_error_denies=True)
    assert (answer.allowed, answer.determining) == (False, ("no",))
    assert [policy_id for policy_id, _ in answer.errors] == ["bad"]
    without = policy_set([p for p in policies.policies if p.id != "no"])
    answer = authorize(without, ENV, forbid_error_denies=True)
    assert (answer.allowed, answer.determining) == (True, ("yes", "yes2"))
