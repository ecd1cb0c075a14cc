"""From a policy about a row to a formula, and from a formula to SQL, case by case."""

from dataclasses import replace

import pytest

from chartgate.cedar.ast import WILDCARD, Expr, Policy, Scope
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.values import CedarSet, DateTime, Decimal, RecordValue
from chartgate.datamap.model import Relation
from chartgate.model.disclosure import Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.disclosure import Asks, PolicyIndex
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
    disjunction,
    implies,
)
from chartgate.targets.partial import ERROR, FALSE, TRUE, Known, Outcome, RowShape, specialise
from chartgate.targets.sql import RowSql, to_sql

ME, ANN, BOB = (EntityUid("User", name) for name in ("me", "ann", "bob"))
WARD = EntityUid("Ward", "w")
ROW = EntityUid("Record", "row")
SHAPE = RowShape(
    scalars=frozenset({"owner", "name", "size", "ok", "length"}),
    sets=frozenset({"team"}),
    declared_sets=frozenset({"team", "unmapped"}),
    kinds={
        "owner": "User", "name": "String", "size": "Long", "ok": "Bool", "team": "User",
        "length": "Long",
        "unmapped": "User",
    },
)  # fmt: skip
ENTITIES = Entities(
    (
        Entity(ROW, RecordValue({"category": EntityUid("Category", "labs")})),
        Entity(
            ME,
            RecordValue(
                {
                    "friends": CedarSet.of([ANN, BOB]),
                    "mixed": CedarSet.of([1, True, "1", ANN, WARD]),
                    "none": CedarSet.of([]),
                }
            ),
        ),
    )
)
ENV = Env(ME, EntityUid("Action", "view"), ROW, RecordValue(), ENTITIES)
KNOWN = Known(ENV, SHAPE)


def parsed(condition: str) -> Expr:
    text = f'@id("p") permit (principal, action, resource) when {{ {condition} }};'
    return parse_policies({"p.cedar": text}).policies[0].condition()


def outcome(condition: str) -> Outcome:
    return specialise(parsed(condition), KNOWN)


def one_of(attribute: str, *values: EntityUid | str | int, negated: bool = False) -> Formula:
    return IsOneOf(attribute, frozenset(values), negated)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("true", TRUE),
        ("false && resource.name == 1", FALSE),
        ("1 + 1 == 2 && 5", ERROR),
        ("principal.absent == 1", ERROR),
        ('resource.category == Category::"labs"', TRUE),
        ("resource has category", TRUE),
        ("resource has team", TRUE),
        ("resource has other", FALSE),
        ("resource is Record", TRUE),
        ("resource is User", FALSE),
        ('resource.other == "x"', ERROR),
        ("resource.name == principal.absent", ERROR),
        ("if principal.absent then true else resource.ok == true", ERROR),
        ("resource.size < true", ERROR),
        ('resource.size < "1"', ERROR),
        ("principal.contains(resource.name)", ERROR),
        ("resource.owner in 3", ERROR),
        ("resource.owner in [3]", ERROR),
        ("resource.team.containsAny(3)", ERROR),
        ("resource.team.containsAny(principal.none)", FALSE),
        ('resource.team.contains("me")', FALSE),
        ("resource.team.contains(3)", FALSE),
        ("resource.unmapped.contains(principal)", FALSE),
        ("resource.unmapped.isEmpty()", TRUE),
        ("resource.unmapped == []", TRUE),
        ("resource.unmapped == 3", FALSE),
        ("principal.friends.containsAll(resource.unmapped)", TRUE),
        ("resource.unmapped.containsAll([])", TRUE),
        ("resource.unmapped.containsAll(principal.friends)", FALSE),
        ("resource.team.containsAll([])", TRUE),
        ("(if resource is Record then [1] else [2]).isEmpty()", FALSE),
        ("(if resource is User then 1 else 2).isEmpty()", ERROR),
        ("(if resource is User then [1] else []).isEmpty()", TRUE),
        ('(if resource is Record then "ab" else "c") like "a*"', TRUE),
        ('(if resource is Record then "ab" else "c") like "b*"', FALSE),
        ('(if resource is Record then 1 else 2) like "a"', ERROR),
        ("(if resource is Record then principal else principal) is User", TRUE),
        ("(if resource is Record then principal else principal) is Ward", FALSE),
        ("(if resource is Record then 1 else 2) is Ward", ERROR),
        ("(if resource is Record then 1 else 2) + 1 == 2", TRUE),
        ("(if resource is Record then 9223372036854775807 else 2) + 1 == 2", ERROR),
        ("(if resource is Record then 1 else 2) < 2", TRUE),
        ('(if resource is Record then 1 else 2) < "a"', ERROR),
        (
            '(if resource is Record then decimal("1.0") else decimal("2.0")).lessThan(decimal("1.5"))',
            TRUE,
        ),
        ('(if resource is Record then decimal("1.0") else decimal("2.0")).lessThan(3)', ERROR),
        ("(if resource is Record then 1 else 2)", ERROR),
        ("3 in resource.owner", ERROR),
        ("principal in resource.name", ERROR),
        ("resource.name in principal", ERROR),
        ("principal in resource.unmapped", FALSE),
        ("principal.friends in resource.team", ERROR),
        ("resource.owner is User && resource.other == 1", Outcome(NEVER, NEVER)),
        ('resource.owner is Ward in User::"x"', Outcome(NEVER, Present("owner"))),
        ("{a: 1} == resource.other", ERROR),
    ],
)
def test_what_is_the_same_for_every_row(condition: str, expected: Outcome) -> None:
    assert outcome(condition) == expected


def test_presence_is_asked_of_the_row() -> None:
    assert outcome("resource has name") == Outcome(Present("name"), Present("name", negated=True))


def test_an_absent_attribute_makes_neither_equality_nor_its_opposite_true() -> None:
    same, other = one_of("owner", ME), one_of("owner", ME, negated=True)
    assert outcome("resource.owner == principal") == Outcome(same, other)
    assert outcome("principal != resource.owner") == Outcome(other, same)
    assert outcome("!(resource.owner == principal)") == Outcome(other, same)
    assert outcome('resource.owner == "me"') == Outcome(NEVER, Present("owner"))


def test_a_set_of_many_kinds_leaves_those_of_the_attributes_kind() -> None:
    for name, value in (("size", 1), ("ok", True), ("name", "1"), ("owner", ANN)):
        found = outcome(f"principal.mixed.contains(resource.{name})").true
        assert isinstance(found, IsOneOf)
        assert [(type(v), v) for v in found.values] == [(type(value), value)]
    assert outcome("resource.owner in principal.friends").true == one_of("owner", ANN, BOB)
    assert outcome("resource.owner in principal").true == one_of("owner", ME)


def test_comparisons_keep_their_sides() -> None:
    assert outcome("resource.size < 3") == Outcome(
        Compares("size", "<", 3), Compares("size", ">=", 3)
    )
    assert outcome("3 <= resource.size") == Outcome(
        Compares("size", ">=", 3), Compares("size", "<", 3)
    )


def test_members_are_asked_of_the_relation() -> None:
    assert outcome("resource.team.contains(principal)") == Outcome(
        HasMember("team", frozenset({ME})), HasMember("team", frozenset({ME}), negated=True)
    )
    assert outcome("resource.team.containsAny(principal.friends)").true == HasMember(
        "team", frozenset({ANN, BOB})
    )


def test_known_entities_are_found_in_what_the_row_names() -> None:
    assert outcome("principal in resource.owner").true == one_of("owner", ME)
    assert outcome("principal in resource.team").true == HasMember("team", frozenset({ME}))
    assert outcome("resource.owner in resource.owner").true == Present("owner")
    assert outcome("resource.owner in resource.team") == Outcome(
        HasHeld("team", "owner"), HasHeld("team", "owner", negated=True)
    )
    assert outcome("resource.owner is User in principal").true == one_of("owner", ME)


def test_sets_are_equal_when_nothing_lacks_and_nothing_is_more() -> None:
    friends = frozenset({ANN, BOB})
    found = outcome("principal.friends == resource.team")
    assert found.true == All(
        frozenset({HasEvery("team", friends), HasOther("team", friends, negated=True)})
    )
    assert found.false == Any(
        frozenset({HasEvery("team", friends, negated=True), HasOther("team", friends)})
    )
    assert outcome("resource.team == resource.name") == Outcome(NEVER, Present("name"))


def test_values_of_two_kinds_are_unequal_where_both_are_there() -> None:
    assert outcome("resource.name == resource.size") == Outcome(
        NEVER, All(frozenset({Present("name"), Present("size")}))
    )
    sum_ = Step("+", Held("size"), 1)
    assert outcome('resource.size + 1 == "x"') == Outcome(NEVER, Reckons(sum_, "==", sum_))


def test_two_attributes_have_one_order() -> None:
    assert outcome("resource.size < resource.length").true == Beside("length", ">", "size")
    assert outcome("resource.size != resource.size") == Outcome(NEVER, Present("size"))


def test_a_branch_is_chosen_before_any_row_is_seen() -> None:
    assert outcome("if 1 < 2 then resource.ok == true else principal.absent").true == one_of(
        "ok", True
    )
    assert outcome("if 1 > 2 then principal.absent else resource.ok == true").true == one_of(
        "ok", True
    )


def test_an_or_is_true_only_where_its_left_side_can_be_evaluated() -> None:
    found = outcome('resource.name == "a" || resource.ok == true')
    assert found.true == Any(
        frozenset(
            {
                one_of("name", "a"),
                All(frozenset({one_of("name", "a", negated=True), one_of("ok", True)})),
            }
        )
    )
    assert found.false == All(
        frozenset({one_of("name", "a", negated=True), one_of("ok", True, negated=True)})
    )


def test_an_expression_that_was_not_checked_is_never_guessed() -> None:
    assert outcome("resource.name + 1 == 2") == ERROR
    assert outcome("resource.name") == ERROR
    assert outcome("resource.name.containsAny(principal.friends)") == ERROR
    for condition in ("resource == principal", "resource.owner has rank", "[resource] == 3"):
        with pytest.raises(AssertionError):
            outcome(condition)


# ── formulas ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("premise", "conclusion", "follows"),
    [
        (one_of("name", "a"), one_of("name", "a", "b"), True),
        (one_of("name", "a", "b"), one_of("name", "a"), False),
        (one_of("name", "a"), one_of("owner", ANN), False),
        (one_of("name", "a", "b", negated=True), one_of("name", "a", negated=True), True),
        (one_of("name", "a"), one_of("name", "b", negated=True), False),
        (one_of("name", "a"), Present("name"), True),
        (Compares("size", "<", 3), Present("size"), True),
        (one_of("name", "a"), Present("size"), False),
        (one_of("name", "a"), Present("name", negated=True), False),
        (Labelled("x"), Present("name"), False),
        (HasMember("team", frozenset({ANN})), HasMember("team", frozenset({ANN, BOB})), True),
        (HasMember("team", frozenset({ANN, BOB})), HasMember("team", frozenset({ANN})), False),
        (HasMember("team", frozenset({ANN})), HasMember("else", frozenset({ANN})), False),
        (HasMember("team", frozenset({ANN, BOB}), negated=True),
         HasMember("team", frozenset({ANN}), negated=True), True),
        (Compares("size", "<", 3), Compares("size", "<", 4), False),
        (Compares("size", "<", 3), HasMember("team", frozenset({ANN})), False),
        (one_of("name", "ab", "a"), Matches("name", ("a", WILDCARD)), True),
        (one_of("name", "ab", "b"), Matches("name", ("a", WILDCARD)), False),
        (one_of("name", "b"), Matches("name", ("a", WILDCARD), negated=True), True),
        (one_of("name", "b", negated=True), Matches("name", ("b",), negated=True), False),
        (Matches("name", ("a",)), Present("name"), True),
        (Beside("length", "<", "size"), Present("size"), True),
        (Reckons(Step("+", Held("size"), 1), "==", Held("length")), Present("length"), True),
        (HasHeld("team", "owner", negated=True), Present("owner"), True),
        (HasEvery("team", frozenset({ANN, BOB})), HasMember("team", frozenset({ANN})), True),
        (HasEvery("team", frozenset({ANN, BOB})), HasEvery("team", frozenset({ANN})), True),
        (HasMember("team", frozenset({ANN}), negated=True),
         HasEvery("team", frozenset({ANN, BOB}), negated=True), True),
        (HasOther("team", frozenset({ANN, BOB})), HasOther("team", frozenset({ANN})), True),
        (HasOther("team", frozenset({ANN}), negated=True),
         HasOther("team", frozenset({ANN, BOB}), negated=True), True),
        (HasMember("team", frozenset({ANN})), HasEvery("team", frozenset({ANN})), False),
    ],
)  # fmt: skip
def test_what_follows_from_what(premise: Formula, conclusion: Formula, follows: bool) -> None:
    assert implies(premise, conclusion) is follows


def test_everything_follows_from_never_and_always_from_everything() -> None:
    for formula in (NEVER, ALWAYS, Present("name"), Any(frozenset({Present("name")}))):
        assert implies(NEVER, formula)
        assert implies(formula, ALWAYS)


def test_of_two_that_say_the_same_one_stays() -> None:
    # Each implies the other; were both dropped, nothing would be asked of the row.
    one = Any(frozenset({one_of("name", "a")}))
    assert conjunction([one, one_of("name", "a")]) in (one, one_of("name", "a"))
    both = All(frozenset({one_of("name", "a")}))
    assert disjunction([both, one_of("name", "a")]) in (both, one_of("name", "a"))


# ── SQL ───────────────────────────────────────────────────────────────────────────────────────

SQL = RowSql(
    {"owner": "this.o", "name": "this.n", "size": "this.s", "ok": "this.k", "since": "this.t",
     "cost": "this.c"},
    {"team": Relation("team", "Set<User>", "public.t t", "t.r = this.id", "t.u")},
    {"vip": "this.vip"},
    {"size": "Long", "ok": "Bool", "since": "datetime", "cost": "decimal"},
)  # fmt: skip
C = '::pg_catalog.text COLLATE pg_catalog."C")'


@pytest.mark.parametrize(
    ("formula", "sql"),
    [
        (ALWAYS, "true"),
        (NEVER, "false"),
        (Present("name"), "((this.n) IS NOT NULL)"),
        (Present("name", negated=True), "((this.n) IS NULL)"),
        (one_of("name", "it's"), f"(((this.n){C} = 'it''s')"),
        (one_of("name", "a", "%", negated=True), f"(((this.n){C} NOT IN ('%', 'a'))"),
        (one_of("owner", BOB, ANN), f"(((this.o){C} IN ('ann', 'bob'))"),
        (one_of("owner", ANN, negated=True), f"(((this.o){C} <> 'ann')"),
        (one_of("size", 1), "((this.s) = 1)"),
        (one_of("size", -1, 2), "((this.s) IN ((-1), 2))"),
        (one_of("ok", True), "((this.k) = true)"),
        (one_of("ok", False), "((this.k) = false)"),
        (one_of("name"), "false"),
        (one_of("name", negated=True), "((this.n) IS NOT NULL)"),
        (Compares("size", ">=", -(2**63)), "((this.s) >= (-9223372036854775808))"),
        (HasMember("team", frozenset({ANN})),
         f"(EXISTS (SELECT 1 FROM public.t t WHERE (t.r = this.id) AND (((t.u){C} = 'ann')))"),
        (HasMember("team", frozenset({ANN}), negated=True),
         f"(NOT EXISTS (SELECT 1 FROM public.t t WHERE (t.r = this.id) AND (((t.u){C} = 'ann')))"),
        (HasMember("team", frozenset()), "false"),
        (HasMember("team", frozenset(), negated=True), "true"),
        (HasOther("team", frozenset(), negated=True),
         "(NOT EXISTS (SELECT 1 FROM public.t t WHERE (t.r = this.id) AND ((t.u) IS NOT NULL)))"),
        (HasOther("team", frozenset({ANN})),
         f"(EXISTS (SELECT 1 FROM public.t t WHERE (t.r = this.id) AND ((t.u){C} <> 'ann')))"),
        (HasEvery("team", frozenset({ANN, BOB})),
         (f"((SELECT pg_catalog.count(DISTINCT ((t.u){C}) FROM public.t t WHERE (t.r = this.id) "
         f"AND ((t.u){C} IN ('ann', 'bob'))) = 2)")),
        (HasHeld("team", "owner"),
         (f"(((this.o){C} IN (SELECT ((t.u){C} FROM public.t t WHERE (t.r = this.id) "
         "AND (t.u) IS NOT NULL))")),
        (HasHeld("team", "owner", negated=True),
         (f"(((this.o) IS NOT NULL) AND (((this.o){C} NOT IN (SELECT ((t.u){C} FROM public.t t "
         "WHERE (t.r = this.id) AND (t.u) IS NOT NULL)))")),
        (Matches("name", ("a%_\\'", WILDCARD)), f"(((this.n){C} LIKE 'a\\%\\_\\\\''%')"),
        (Matches("name", ("\0",)), "false"),
        (Matches("name", ("\ud800",), negated=True), "((this.n) IS NOT NULL)"),
        (one_of("name", "\0", negated=True), "((this.n) IS NOT NULL)"),
        (HasMember("team", frozenset({EntityUid("User", "\0")})), "false"),
        (HasEvery("team", frozenset({ANN, EntityUid("User", "\0")}), negated=True), "true"),
        (Present("since"), "(pg_catalog.isfinite(this.t))"),
        (Present("cost", negated=True),
         "(((this.c) BETWEEN (-922337203685477.5808) AND 922337203685477.5807) IS NOT TRUE)"),
        (Compares("since", "<=", DateTime(0)),
         ("(((this.t) < '1970-01-01 00:00:00.001+00'::pg_catalog.timestamptz) "
         "AND ((this.t) > '-infinity'))")),
        (Compares("since", ">", DateTime(2**62)), "false"),
        (Compares("since", ">=", DateTime(-(2**62))), "(pg_catalog.isfinite(this.t))"),
        (Compares("cost", "<", Decimal(-15_000)),
         "(((this.c) < (-1.5000)) AND ((this.c) >= (-922337203685477.5808)))"),
        (IsOneOf("since", frozenset({DateTime(2**62)}), negated=True),
         "(pg_catalog.isfinite(this.t))"),
        (IsOneOf("since", frozenset({DateTime(-62_135_683_200_000)})),
         ("(pg_catalog.date_trunc('milliseconds', this.t) = "
         "'0001-12-31 00:00:00.000+00 BC'::pg_catalog.timestamptz)")),
        (Beside("name", "==", "owner"), f"(((this.n){C} = ((this.o){C})"),
        (Beside("size", "<=", "size"), "((this.s) <= (this.s))"),
        (Reckons(Step("+", Held("size"), 1), ">", 2),
         ("((((this.s)::pg_catalog.numeric + 1) BETWEEN (-9223372036854775808) AND "
         "9223372036854775807) AND (((this.s)::pg_catalog.numeric + 1) > 2))")),
        (Labelled("vip"), "((this.vip) IS NOT FALSE)"),
        (Labelled("vip", negated=True), "((this.vip) IS FALSE)"),
        (All(frozenset({Present("size"), Present("name")})),
         "(((this.n) IS NOT NULL) AND ((this.s) IS NOT NULL))"),
        (Any(frozenset({Present("size"), Present("name")})),
         "(((this.n) IS NOT NULL) OR ((this.s) IS NOT NULL))"),
    ],
)  # fmt: skip
def test_a_formula_has_one_text(formula: Formula, sql: str) -> None:
    assert to_sql(formula, SQL).count("(") == to_sql(formula, SQL).count(")")
    assert to_sql(formula, SQL).replace("(", "") == sql.replace("(", "")


# ── levels ────────────────────────────────────────────────────────────────────────────────────

POLICIES = """
@id("mine") permit (principal, action == Action::"view", resource)
when { resource.owner == principal };
@id("summary") permit (principal, action == Action::"view_summary", resource);
@id("others") permit (principal == User::"ann", action == Action::"view", resource);
@id("strange") permit (principal, action == Action::"view", resource)
when { resource.absent == 1 };
@id("not_named") forbid (principal, action == Action::"view_summary", resource)
when { resource.name == "secret" };
@id("never") forbid (principal, action, resource) when { false };
@id("writes") permit (principal, action in [Action::"create", Action::"update"], resource);
"""


def ask(action: str, _label: str) -> Known:
    return Known(replace(ENV, action=EntityUid("Action", action)), SHAPE)


def index() -> PolicyIndex:
    return PolicyIndex(parse_policies({"p.cedar": POLICIES}).policies)


def test_a_level_needs_a_permit_at_or_above_and_no_forbid_at_or_below() -> None:
    rules = index().of_whom(ENV).label("labs", Asks(ask)).at_least
    named = one_of("name", "secret", negated=True)
    assert rules[Disclosure.MASKED].formula == ALWAYS
    assert rules[Disclosure.SUMMARY].formula == named
    assert rules[Disclosure.FULL].formula == conjunction([one_of("owner", ME), named])
    # A row without a name makes the forbid fail: it is excluded, not let through.
    assert rules[Disclosure.FULL].determining == {"mine", "not_named"}
    assert rules[Disclosure.MASKED].determining == {"mine", "summary"}


def test_other_actions_are_asked_alone() -> None:
    made = index()
    assert made.action("create", "labs", Asks(ask)).formula == ALWAYS
    refused = made.action("delete", "labs", Asks(ask))
    assert (refused.formula, refused.determining) == (NEVER, frozenset())
    assert [p.id for p in made.of("create")] == ["never", "writes"]
    assert made.of("create") is made.of("create")


def test_a_scope_that_fails_is_kept_for_the_condition_to_fail() -> None:
    strange = Policy("strange", "forbid", principal=Scope("in", (EntityUid("Role", "x"),)))
    failing = Env(3, ENV.action, ENV.resource, ENV.context, ENV.entities)  # type: ignore[arg-type]
    assert [p.id for p in PolicyIndex((strange,)).of_whom(failing).of("view")] == ["strange"]
    assert PolicyIndex((strange,)).of_whom(ENV).of("view") == ()
