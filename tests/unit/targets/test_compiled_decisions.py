"""Compiled policies: what the tree may not lose, what the generated code may not contain."""

import re
from types import CodeType
from typing import Any

import pytest

from chartgate.cedar.ast import And, Binary, Condition, Expr, GetAttr, Literal, Not, Policy, Var
from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import CompiledPolicies, compile_policies
from chartgate.targets.compiled_runtime import NAMES
from chartgate.targets.compiled_source import Writer
from chartgate.targets.compiled_tree import ARGUMENTS
from chartgate.targets.entity_store import EntityStore

ANN = EntityUid("User", "ann")
VIEW = EntityUid("Action", "view")
CHART = EntityUid("Chart", "7")
NURSE = EntityUid("Role", "nurse")


def category(name: str) -> EntityUid:
    return EntityUid("Category", name)


def compiled(*texts: str) -> CompiledPolicies:
    return compile_policies(parse_policies({"p": "\n".join(texts)}, ids="order"))


def both(policies: CompiledPolicies, *asked: Any, hardened: bool = True) -> Answer:
    """The compiled answer, once it has been found equal to the reference."""
    env = Env(*asked)
    expected = authorize(policies.policies, env, forbid_error_denies=hardened)
    assert policies.decide(*asked, forbid_error_denies=hardened) == expected
    return expected


MANY = [
    f'permit (principal in Role::"r{n % 3}", action, resource) '
    f'when {{ resource.category == Category::"c{n}" }};'
    for n in range(40)
]


def test_a_policy_behind_a_split_still_reports_that_the_attribute_is_missing() -> None:
    people = Entities([Entity(ANN, {}, frozenset({EntityUid("Role", "r1")})), Entity(CHART)])
    answer = both(compiled(*MANY), ANN, VIEW, CHART, {}, people)
    assert [i for i, _ in answer.errors] == [f"policy{n}" for n in range(40) if n % 3 == 1]
    assert all(words == "missing_attribute: no attribute 'category'" for _, words in answer.errors)


def test_a_policy_behind_a_split_still_reports_that_the_entity_is_missing() -> None:
    people = Entities([Entity(ANN, {}, frozenset({EntityUid("Role", "r2")}))])
    answer = both(compiled(*MANY), ANN, VIEW, CHART, {}, people)
    assert len(answer.errors) == 13
    assert answer.errors[0] == ("policy2", "missing_entity: no data about this Chart")


def test_a_condition_before_the_split_that_fails_is_reported_whatever_the_attribute_is() -> None:
    texts = [
        f'permit (principal, action, resource) when {{ context.purpose in Purpose::"p" }} '
        f'when {{ resource.category == Category::"c{n}" }};'
        for n in range(20)
    ]
    policies = compiled(*texts)
    chart = Entities([Entity(CHART, {"category": category("c3")})])
    assert len(both(policies, ANN, VIEW, CHART, {}, chart).errors) == 20
    assert len(both(policies, ANN, VIEW, CHART, {"purpose": "p"}, chart).errors) == 20
    answer = both(policies, ANN, VIEW, CHART, {"purpose": EntityUid("Purpose", "p")}, chart)
    assert answer == Answer(True, ("policy3",), ())


@pytest.mark.parametrize(
    "value",
    [{"a": 1}, RecordValue({"a": {"b": 1}}), CedarSet.of([1, True]), 1, True, "c3", CHART],
)
def test_an_attribute_of_any_kind_can_be_split_on(value: Any) -> None:
    chart = Entities([Entity(CHART, {"category": value}), Entity(ANN)])
    assert both(compiled(*MANY), ANN, VIEW, CHART, {}, chart) == Answer(False, (), ())


def test_several_policies_are_named_in_file_order_however_they_were_found() -> None:
    texts = [
        'permit (principal in Role::"nurse", action, resource);',
        'permit (principal, action, resource) when { resource.category == Category::"a" };',
        'permit (principal, action, resource in Ward::"w");',
        'permit (principal in Role::"staff", action, resource);',
        'permit (principal, action, resource) when { resource.category == Category::"b" };',
        'permit (principal in Role::"x", action, resource) when { resource.category == Category::"a" };',
        'permit (principal == User::"ann", action, resource == Chart::"7");',
        "permit (principal, action, resource);",
        'permit (principal, action, resource) when { principal in [Role::"nurse", Role::"staff"] };',
    ]
    people = Entities(
        [
            Entity(ANN, {}, frozenset({NURSE})),
            Entity(NURSE, {}, frozenset({EntityUid("Role", "staff")})),
            Entity(CHART, {"category": category("a")}, frozenset({EntityUid("Ward", "w")})),
        ]
    )
    answer = both(compiled(*texts), ANN, VIEW, CHART, {}, people)
    assert answer.determining == tuple(f"policy{n}" for n in (0, 1, 2, 3, 6, 7, 8))


def test_a_forbid_that_fails_denies_only_where_decisions_are_enforced() -> None:
    policies = compiled(
        "permit (principal, action, resource);",
        "forbid (principal, action, resource) when { context.risk > 3 };",
    )
    asked = (ANN, VIEW, CHART, {}, Entities())
    assert both(policies, *asked, hardened=False).allowed
    hardened = both(policies, *asked)
    assert not hardened.allowed
    assert hardened.determining == ("policy1",)
    assert both(policies, ANN, VIEW, CHART, {"risk": 1}, Entities()).allowed


def test_true_is_not_one_in_any_place() -> None:
    policies = compiled(
        "permit (principal, action, resource) when { context.n == 1 };",
        "permit (principal, action, resource) when { context.n == true };",
        "permit (principal, action, resource) when { 0 == context.n };",
        "permit (principal, action, resource) when { [1, 2].contains(context.n) };",
        "permit (principal, action, resource) when { [true].contains(context.n) };",
        "permit (principal, action, resource) when { {a: context.n} == {a: 1} };",
        "permit (principal, action, resource) when { context.n };",
        "permit (principal, action, resource) when { !context.n };",
    )
    for value in (1, True, 0, False, "1"):
        for held in (value, CedarSet.of([value]), RecordValue({"a": value})):
            both(policies, ANN, VIEW, CHART, {"n": held}, Entities())


def nested(depth: int, wrap: Any) -> Expr:
    found: Expr = GetAttr(Var("context"), "flag")
    for _ in range(depth):
        found = wrap(found)
    return found


def by_hand(condition: Expr) -> CompiledPolicies:
    return compile_policies([Policy("deep", "permit", conditions=(Condition("when", condition),))])


@pytest.mark.parametrize("depth", [10, 49, 50, 51, 100, 250])
def test_a_deep_condition_is_decided_like_any_other(depth: int) -> None:
    for wrap in (Not, lambda e: Binary("==", e, Literal(True)), lambda e: And(Literal(True), e)):
        policies = by_hand(nested(depth, wrap))
        for context in ({"flag": True}, {"flag": False}, {}, {"flag": 3}):
            both(policies, ANN, VIEW, CHART, context, Entities())


def test_brackets_beyond_pythons_limit_are_decided_like_any_other() -> None:
    flag = GetAttr(Var("context"), "flag")
    for depth in (30, 37, 38, 40, 45, 49):
        policies = by_hand(nested(depth, lambda e: Binary("containsAny", flag, e)))
        for value in (CedarSet.of([1]), True):
            both(policies, ANN, VIEW, CHART, {"flag": value}, Entities())


def test_long_lists_of_values_do_not_multiply() -> None:
    cats = ", ".join(f'Category::"c{n}"' for n in range(60))
    wards = ", ".join(f'Ward::"w{n}"' for n in range(60))
    policies = compiled(
        *(
            f"permit (principal, action, resource) when {{ [{cats}].contains(resource.category) }} "
            f"when {{ [{wards}].contains(resource.ward) }};"
            for _ in range(8)
        )
    )
    steps = sum(1 for _ in policies.warm([(VIEW, "User", "Chart")]))
    assert steps < 100
    chart = Entities([Entity(CHART, {"category": category("c7"), "ward": EntityUid("Ward", "w9")})])
    assert len(both(policies, ANN, VIEW, CHART, {}, chart).determining) == 8


@pytest.mark.parametrize("operator", ["&&", "||", "=="])
def test_two_hundred_and_forty_operators_in_a_row_are_decided(operator: str) -> None:
    text = "context.flag"
    for _ in range(240):
        text = (
            f"{text} {operator} context.flag"
            if operator != "=="
            else f"{text} && true == {text[:12]}"
        )
    policies = compiled(f"permit (principal, action, resource) when {{ {text} }};")
    for context in ({"flag": True}, {"flag": False}, {}, {"flag": 1}):
        both(policies, ANN, VIEW, CHART, context, Entities())


def test_thousands_of_operators_and_members_are_decided() -> None:
    wide: list[Expr] = [Binary("==", GetAttr(Var("context"), "n"), Literal(n)) for n in range(2000)]
    while len(wide) > 1:
        wide = [
            And(Not(And(Not(a), Not(b))), Literal(True))
            for a, b in zip(wide[::2], wide[1::2], strict=False)
        ] + (wide[-1:] if len(wide) % 2 else [])
    policies = by_hand(wide[0])
    members = ", ".join(f'Category::"c{n}"' for n in range(3000))
    large = compiled(
        *(
            f"permit (principal, action, resource) when {{ [{members}].contains(resource.category) }};"
            for _ in range(3)
        )
    )
    chart = Entities([Entity(CHART, {"category": category("c2999")})])
    assert both(policies, ANN, VIEW, CHART, {"n": 1999}, Entities()).allowed
    assert not both(policies, ANN, VIEW, CHART, {"n": 2000}, Entities()).allowed
    assert len(both(large, ANN, VIEW, CHART, {}, chart).determining) == 3


def test_a_condition_beyond_pythons_depth_fails_as_the_reference_says() -> None:
    answer = both(by_hand(nested(5000, Not)), ANN, VIEW, CHART, {"flag": True}, Entities())
    assert answer.errors == (("deep", "depth: the expression is nested too deeply"),)


def test_a_thousand_policies_without_anything_to_split_on_are_decided() -> None:
    texts = [
        f'permit (principal, action, resource) when {{ context.name like "*{n}*" }};'
        for n in range(300)
    ]
    answer = both(compiled(*texts), ANN, VIEW, CHART, {"name": "a299z"}, Entities())
    assert "policy299" in answer.determining


HOSTILE = (
    'x"]; import os #', "'; raise SystemExit; '", "\\", "\n X_fail() \n", "L[0]", "t1", "X_uid",
    "__import__('os')", "{0}", "%s",
)  # fmt: skip


def test_text_of_a_policy_never_enters_the_generated_code() -> None:
    quoted = [
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for text in HOSTILE
    ]
    policies = compiled(
        *(
            f'permit (principal == User::"{q}", action == Action::"{q}", resource in Chart::"{q}") '
            f'when {{ resource["{q}"] == "{q}" && context["{q}"].contains("{q}") && '
            f'{{"{q}": "{q}"}}["{q}"] like "{q}*" && principal.getTag("{q}") == "{q}" }};'
            for q in quoted
        )
    )
    for text in HOSTILE:
        who, doing, what = (
            EntityUid("User", text),
            EntityUid("Action", text),
            EntityUid("Chart", text),
        )
        held = Entities([Entity(who, tags={text: text}), Entity(what, {text: text})])
        context = {text: CedarSet.of([text])}
        assert both(policies, who, doing, what, context, held).allowed
    sources = policies._builder._codes
    assert sources
    for source in sources:
        assert re.fullmatch(r"[A-Za-z0-9_ \n\[\](){},.:=<>!~+*\"-]*", source)
        assert set(re.findall(r'"([^"]*)"', source)) <= {"entity"}


def test_names_of_generated_code_never_meet_those_of_the_runtime() -> None:
    policies = compiled(
        *MANY, "forbid (principal, action, resource) when { context.a.b == context.c };"
    )
    both(policies, ANN, VIEW, CHART, {}, Entities())
    arguments = set(ARGUMENTS.split(", ")) | {"L"}
    for code in policies._builder._codes.values():
        assert isinstance(code, CodeType)
        own = set(code.co_varnames) - arguments
        assert all(re.fullmatch(r"[fgx]|t[0-9]+a?", name) for name in own)
        globals_ = {name for name in code.co_names if name.startswith("X_")}
        assert globals_ <= set(NAMES)
        assert not globals_ & (own | arguments)
    assert NAMES["__builtins__"] == {}
    assert Writer({}).local().startswith("t")


def test_made_up_names_do_not_fill_the_memory() -> None:
    policies = compiled(*MANY, 'permit (principal is User, action == Action::"edit", resource);')
    for number in range(5000):
        action = EntityUid("Action", f"made up {number}")
        policies.decide(ANN, action, CHART, {}, Entities(), forbid_error_denies=True)
    assert len(policies._roots) <= 4096
    assert len({id(node) for node in policies._roots.values()}) <= 2


def test_an_action_is_in_its_groups_by_the_entities_or_by_the_schema() -> None:
    texts = [
        'permit (principal, action in Action::"reading", resource);',
        'permit (principal, action in [Action::"view", Action::"other"], resource);',
        'forbid (principal, action, resource) when { action in Action::"closed" };',
    ]
    reading, closed = EntityUid("Action", "reading"), EntityUid("Action", "closed")
    policies = compiled(*texts)
    grouped = Entities([Entity(VIEW, {}, frozenset({reading}))])
    assert both(policies, ANN, VIEW, CHART, {}, grouped).determining == ("policy0", "policy1")
    assert both(policies, ANN, VIEW, CHART, {}, Entities()).determining == ("policy1",)
    assert both(policies, ANN, VIEW, CHART, {}, EntityStore(grouped_list(grouped)).view).allowed
    shut = Entities([Entity(VIEW, {}, frozenset({closed}))])
    assert both(policies, ANN, VIEW, CHART, {}, shut).determining == ("policy2",)
    fixed = compile_policies(policies.policies, actions={VIEW: frozenset({VIEW, reading})})
    answer = fixed.decide(ANN, VIEW, CHART, {}, grouped, forbid_error_denies=True)
    assert answer.determining == ("policy0", "policy1")


def grouped_list(entities: Entities) -> list[Entity]:
    found = entities.get(VIEW)
    assert found is not None
    return [found]


def test_after_the_warm_up_nothing_is_left_to_build() -> None:
    policies = compiled(*MANY)
    steps = list(policies.warm([(VIEW, "User", "Chart")]))
    assert len(steps) > 3
    assert all(left > 0 for left in policies.warm())
    codes = len(policies._builder._codes)
    people = EntityStore([Entity(ANN, {}, frozenset({EntityUid("Role", "r1")}))]).view
    own = Entity(CHART, {"category": category("c4")})
    answer = policies.decide(ANN, VIEW, CHART, {}, people, own, forbid_error_denies=True)
    assert answer.determining == ("policy4",)
    assert len(policies._builder._codes) == codes


def test_a_tree_answers_whole_at_every_step_of_its_warm_up() -> None:
    policies = compiled(*MANY, *MANY, "forbid (principal, action, resource) when { context.shut };")
    people = EntityStore([Entity(ANN, {}, frozenset({EntityUid("Role", "r1")}))]).view
    steps = 0
    for number, _ in enumerate(policies.warm([(VIEW, "User", "Chart")])):
        own = Entity(CHART, {"category": category(f"c{number % 40}")})
        context = RecordValue({"shut": number % 7 == 0})
        both(policies, ANN, VIEW, CHART, context, people.with_(own))
        steps += 1
    assert steps > 20


def test_the_first_node_of_many_policies_is_built_in_many_steps() -> None:
    policies = compiled(*(MANY * 20))
    steps = policies._rooted(VIEW, "User", "Chart", None)
    assert sum(1 for _ in steps) > 800 // 16 * 2


def test_unlinked_templates_decide_nothing_and_linked_ones_do() -> None:
    text = "permit (principal == ?principal, action, resource);"
    [template] = parse_policies({"p": text}, ids="order", templates=True).policies
    linked = template.link("linked", {"?principal": ANN})
    policies = compile_policies([template, linked])
    asked = (ANN, VIEW, CHART, {}, Entities())
    assert policies.decide(*asked, forbid_error_denies=True).determining == ("linked",)


def test_a_requests_own_entity_is_laid_over_every_other_reading_of_it() -> None:
    policies = compiled(
        "permit (principal, action, resource) when { principal.chart.open };",
        'permit (principal in Ward::"w", action, resource);',
        'permit (principal, action, resource in Ward::"w");',
        'permit (principal, action, resource) when { principal.chart.hasTag("t") };',
    )
    ward = EntityUid("Ward", "w")
    people = [Entity(ANN, {"chart": CHART}, frozenset({CHART})), Entity(CHART, {"open": False})]
    own = Entity(CHART, {"open": True}, frozenset({ward}), {"t": 1})
    laid = Entities(people).with_(own)
    expected = both(policies, ANN, VIEW, CHART, {}, laid)
    assert expected.determining == ("policy0", "policy1", "policy2", "policy3")
    for held in (EntityStore(people).view, Entities(people)):
        answer = policies.decide(ANN, VIEW, CHART, {}, held, own, forbid_error_denies=True)
        assert answer == expected
    other = EntityUid("Chart", "8")
    for held in (EntityStore(people).view, Entities(people)):
        answer = policies.decide(ANN, VIEW, other, {}, held, own, forbid_error_denies=True)
        assert answer == authorize(
            policies.policies, Env(ANN, VIEW, other, {}, laid), forbid_error_denies=True
        )


def test_the_cache_of_answers_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chartgate.targets.compiled._MOST_ANSWERS", 4)
    policies = compiled(
        *(f"permit (principal, action, resource) when {{ context.n == {n} }};" for n in range(9))
    )
    for n in (*range(9), *range(9)):
        assert both(policies, ANN, VIEW, CHART, {"n": n}, Entities()).determining == (f"policy{n}",)
    assert len(policies._answers) <= 4
