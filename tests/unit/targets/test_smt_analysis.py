"""Formulas mean what the evaluator means, construct by construct; and what is not translated."""

import pytest

from chartgate.cedar.ast import Policy
from chartgate.cedar.parse import parse_policies, parse_schema, validate
from chartgate.cedar.schema import Schema
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.analysis import Analysis, Proved, Refuted
from chartgate.targets.smt.requests import RequestKind, request_kinds
from chartgate.targets.smt.solve import Unknown

SCHEMA = parse_schema(
    """
    entity Team in Team;
    entity Colour enum ["red", "blue"];
    entity Person in Team {
      name: String, grade: Long, alias?: String, best?: Person, likes: Set<Colour>,
      lines: Set<{ code: String, note?: String }>, piles: Set<Set<Long>>, home: ipaddr,
    } tags String;
    entity Thing { owner: Person, at: datetime, price: decimal, colour: Colour };
    action get appliesTo { principal: [Person], resource: [Thing], context: {
      now: datetime, wait: duration, text: String, more?: { depth: Long, sure: Bool },
      piles: Set<Set<Long>>,
    } };
    action put appliesTo { principal: [Person, Team], resource: [Thing] };
    """,
    "s",
)
KIND = RequestKind("Person", EntityUid("Action", "get"), "Thing")


def policy(condition: str, schema: Schema = SCHEMA) -> Policy:
    scope = (
        f'permit (principal is Person, action == Action::"get", resource) when {{ {condition} }};'
    )
    found = parse_policies({"p": scope}, ids="order")
    validate(found, schema)
    return found.policies[0]


def analysis(timeout_ms: int = 10_000) -> Analysis:
    return Analysis(SCHEMA, KIND, timeout_ms=timeout_ms)


ALWAYS = [
    "1 + 1 == 2 && -(3) == 0 - 3 && 2 * 3 > 5 && 4 >= 4 && 4 <= 4 && 3 < 4",
    "if principal.grade > 3 then principal.grade > 2 else principal.grade <= 3",
    "principal has alias || !(principal has alias)",
    'principal.likes.contains(Colour::"red") || !principal.likes.containsAll([Colour::"red"])',
    'principal.likes == [Colour::"red"] || principal.likes != [Colour::"red"]',
    "!principal.likes.isEmpty() || !principal.likes.contains(resource.colour)",
    "[1, 2].containsAny([2, 3]) && ![1].containsAny([2]) && [1, 2] == [2, 1, 2] && ![1].isEmpty()",
    '{ a: 1, b: "x" } == { b: "x", a: 1 } && { a: 1 }.a == 1 && !({ a: 1 } has b)',
    "[[1, 2], [3]].contains([2, 1])",
    '[{ code: "a" }].contains({ code: "a" })',
    "principal is Person && !(principal is Team) && principal in [principal]",
    '!(Team::"a" in Team::"b" && Team::"b" in Team::"a") || Team::"a" == Team::"b"',
    '!(principal is Person in Team::"x") || principal in Team::"x"',
    'Action::"get" in [Action::"get", Action::"put"] && action == Action::"get"',
    'datetime("2026-11-22").toDate() == datetime("2026-11-22T23:59:59Z").toDate()',
    'context.now.toTime() < duration("24h")',
    'duration("-90s").toMinutes() == -1 && duration("36h").toDays() == 1',
    'context.wait.toHours() <= 2562047788015 && duration("2s").toMilliseconds() == 2000',
    'resource.price.greaterThan(decimal("0.5")) || resource.price.lessThanOrEqual(decimal("0.5"))',
    'resource.colour == Colour::"red" || resource.colour == Colour::"blue"',
    "principal.home.isIpv4() != principal.home.isIpv6()",
    '!(context.text like "a*") || context.text != "b"',
    '"a\\0b\\u{e9}\\\\u{41}" like "a*\\u{e9}*"',
    'principal.hasTag("a") || !principal.hasTag("a")',
    "if context has more then context.more.depth == context.more.depth else true",
    "false || true && !(true && false)",
    'if true then true else principal.getTag("no") == "x"',
]
SOMETIMES = [
    "principal.grade * principal.grade == 49",
    "principal has alias && principal.alias == principal.name",
    'principal has best && principal.best.grade > principal.grade && principal.best in Team::"t"',
    "principal has best && principal.best.lines != principal.lines",
    "if principal has best then !principal.best.lines.containsAll(principal.lines) else false",
    "principal has best && principal.best.lines.containsAny(principal.lines)",
    "resource.owner.lines == principal.lines && resource.owner != principal",
    'principal.home.isInRange(ip("10.0.0.0/8")) && !principal.home.isInRange(ip("10.0.0.0/9"))',
    'context.text like "*\\*é*" && context.text != "*é"',
    'context.now.offset(context.wait) == datetime("2026-11-22") && context.wait != duration("0ms")',
    'context.now.durationSince(resource.at) > duration("1h")',
    'principal.hasTag("t") && principal.getTag("t") == context.text',
    "context has more && context.more.sure && context.more == { depth: 7, sure: true }",
    '(if principal has best then principal.best else principal).likes.contains(Colour::"red")',
    '(if principal.grade > 1 then principal.likes else [Colour::"red"]).containsAny([Colour::"blue"])',
    '(if principal.grade > 1 then principal.home else ip("::1")).isLoopback()',
    '(if principal.grade > 1 then { a: 1, b: "x" } else { a: 2, b: "y" }).a == 2',
    '(if principal.grade > 1 then resource.price else decimal("1.0")) == decimal("2.0")',
    '(if principal.grade > 1 then context.text else "z") == "y"',
    "resource.owner == principal && resource.owner.likes.containsAll(principal.likes)",
    '!principal.likes.isEmpty() && principal.likes != [Colour::"red", Colour::"blue"]',
]
NEVER = [
    "principal.grade > 3 && principal.grade < 4",
    'principal.likes.isEmpty() && principal.likes.contains(Colour::"red")',
    "resource.owner == principal && resource.owner.name != principal.name",
    'context.text like "a*" && context.text like "b*"',
    'Team::"a" in Team::"b" && Team::"b" in Team::"c" && !(Team::"a" in Team::"c")',
    'Team::"a" in Team::"b" && Team::"b" in Team::"a"',
]
FAILING = [
    "principal.grade + 1 > 0",
    "-principal.grade > 0",
    "principal.grade * 2 > 0",
    "principal.grade - 1 > 0",
    'context.now.offset(duration("1ms")) > resource.at',
    "context.now.durationSince(resource.at) == context.wait",
    "context.now.toDate() == resource.at",
]


@pytest.mark.parametrize("condition", ALWAYS)
def test_what_holds_of_every_request_is_proved(condition: str) -> None:
    assert isinstance(analysis().always_matches(policy(condition)), Proved)


@pytest.mark.parametrize("condition", SOMETIMES)
def test_what_holds_of_some_requests_has_an_example_of_either_kind(condition: str) -> None:
    assert isinstance(analysis().never_matches(policy(condition)), Refuted)
    assert isinstance(analysis().always_matches(policy(condition)), Refuted)


@pytest.mark.parametrize("condition", NEVER)
def test_what_holds_of_no_request_is_proved_not_to(condition: str) -> None:
    assert isinstance(analysis().never_matches(policy(condition)), Proved)


@pytest.mark.parametrize("condition", FAILING)
def test_arithmetic_that_can_overflow_fails_for_a_request_that_is_shown(condition: str) -> None:
    assert isinstance(analysis().never_errors(policy(condition)), Refuted)


@pytest.mark.parametrize("condition", [c for c in ALWAYS + NEVER if "getTag" not in c])
def test_conditions_without_arithmetic_on_data_never_fail(condition: str) -> None:
    assert isinstance(analysis().never_errors(policy(condition)), Proved)


def test_a_hierarchy_is_not_taken_to_have_cycles() -> None:
    condition = 'Team::"a" in Team::"b" && Team::"b" in Team::"a"'
    assert isinstance(analysis().never_matches(policy(condition)), Proved)


def test_sets_of_sets_that_are_not_written_out_are_not_translated() -> None:
    verdict = analysis().always_matches(policy("context.piles.contains([1])"))
    assert verdict == Unknown("not translated: a set of sets that is not written out")


def test_a_character_the_solver_does_not_have_is_not_translated() -> None:
    verdict = analysis().always_matches(policy('context.text like "\\u{10ffff}*"'))
    assert isinstance(verdict, Unknown)
    assert "U+2FFFF" in verdict.why


def test_a_question_that_takes_too_long_is_unknown() -> None:
    hard = policy(
        "principal.grade * principal.grade * principal.grade + resource.owner.grade *"
        " resource.owner.grade * resource.owner.grade == 33 && principal.grade > 2"
    )
    verdict = analysis(timeout_ms=1).never_matches(hard)
    assert isinstance(verdict, Unknown)
    assert "not decided" in verdict.why or "gave up" in verdict.why


def test_every_kind_of_request_of_a_schema_is_known() -> None:
    assert request_kinds(SCHEMA) == (
        KIND,
        RequestKind("Person", EntityUid("Action", "put"), "Thing"),
        RequestKind("Team", EntityUid("Action", "put"), "Thing"),
    )


def test_two_policy_sets_are_compared_by_what_they_allow() -> None:
    one, other = policy("principal.grade > 3"), policy("principal.grade > 2")
    a = analysis()
    assert isinstance(a.implies([one], [other]), Proved)
    assert isinstance(a.implies([other], [one]), Refuted)
    assert isinstance(a.equivalent([one, other], [other]), Proved)
    assert isinstance(a.disjoint([one], [policy("principal.grade < 3")]), Proved)
    assert isinstance(a.always_allows([one]), Refuted)
    assert isinstance(a.always_denies([one]), Refuted)
