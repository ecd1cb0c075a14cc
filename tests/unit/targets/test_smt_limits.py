"""Where the translation ends: what validation excludes is refused by name, never guessed at."""

import pytest

from chartgate.cedar.ast import (
    TRUE,
    And,
    Binary,
    Call,
    Expr,
    GetAttr,
    If,
    Is,
    Like,
    Literal,
    Policy,
    RecordExpr,
    SetExpr,
    Slot,
    Unary,
    Var,
)
from chartgate.cedar.parse import parse_policies, parse_schema
from chartgate.cedar.values import CedarSet, DateTime, Decimal, Duration, IpAddr, RecordValue
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.encode import Encoder
from chartgate.targets.smt.gate import Ground, Question, Scene, Shared, Who
from chartgate.targets.smt.requests import AnyRequest, RequestKind
from chartgate.targets.smt.sets import Sets
from chartgate.targets.smt.solve import Nothing, Unknown
from chartgate.targets.smt.symbols import Unencodable
from chartgate.targets.smt.universe import Universe

SCHEMA = parse_schema(
    """
    entity Category enum ["notes", "labs"];
    entity Role in [Role];
    entity Team;
    entity User in [Role] = {
      departments: Set<Team>, friends: Set<User>, grade: Long, mood?: String, hats?: Set<Team>
    } tags String;
    entity Record = { category: Category, author?: User, team?: Team };
    action view, view_summary, view_masked appliesTo {
      principal: [User], resource: [Record], context: { source: String }
    };
    """,
    "s",
)
CLOSED = {
    "Role": {"nurse": frozenset({"nurse", "staff"}), "staff": frozenset({"staff"})},
}
ONE, TEXT = Literal(1), Literal("x")
ME = Var("principal")


def encoder() -> Encoder:
    universe = Universe(SCHEMA, CLOSED, texts=False)
    kind = RequestKind("User", EntityUid("Action", "view"), "Record")
    return Encoder(universe, Sets(universe), AnyRequest(universe, kind).asked)


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        (And(ONE, TRUE), "no truth value"),
        (Unary("neg", TEXT), "arithmetic on something else"),
        (Binary("<", TEXT, TEXT), "a comparison of something else"),
        (Like(ONE, ("x",)), "like on something else"),
        (Like(GetAttr(Var("context"), "source"), ("x",)), "taken for mere names"),
        (Unary("isEmpty", ONE), "a set operation on something else"),
        (Is(ONE, "User"), "an entity operation on something else"),
        (Binary("in", ME, ONE), "no entity"),
        (Binary("hasTag", ME, ONE), "no text"),
        (Call("ip", (GetAttr(Var("context"), "source"),)), "not written in the policy"),
        (Call("round", (ONE,)), "the function round"),
        (Call("toDate", (ONE,)), "another type"),
        (Call("isIpv4", (ONE,)), "another type"),
        (If(Binary("==", ME, Literal(EntityUid("User", "a"))), ONE, TEXT), "two types"),
    ],
)
def test_what_validation_excludes_is_refused(expr: Expr, said: str) -> None:
    with pytest.raises(Unencodable, match=said):
        encoder().holds(expr)


def test_an_expression_nested_too_deeply_is_refused() -> None:
    expr: Expr = Binary("==", ME, ME)
    for _ in range(5_000):
        expr = And(expr, Binary("==", ME, Var("resource")))
    with pytest.raises(Unencodable, match="too deeply"):
        encoder().holds(expr)


@pytest.mark.parametrize(
    ("expr", "outcome"),
    [
        (GetAttr(RecordExpr((("a", TRUE),)), "b"), (False, True)),
        (GetAttr(ME, "nothing"), (False, True)),
        (Binary("getTag", Var("resource"), TEXT), (False, True)),
        (Binary("hasTag", Var("resource"), TEXT), (False, False)),
        (And(GetAttr(ME, "nothing"), TRUE), (False, True)),
        (If(GetAttr(ME, "nothing"), TRUE, TRUE), (False, True)),
        (Slot("?principal"), (False, True)),
        (Binary("==", Call("decimal", (TEXT,)), ONE), (False, True)),
        (Binary("==", ONE, TEXT), (False, False)),
        (Binary("+", Literal(2**63 - 1), ONE), None),
        (Binary("==", Literal(Decimal(10)), Literal(Decimal(10))), (True, False)),
        (Binary("==", Literal(DateTime(1)), Literal(Duration(1))), (False, False)),
        (Binary("==", Literal(IpAddr(4, 1, 32)), Literal(IpAddr(4, 1, 32))), (True, False)),
        (
            Binary("==", Literal(CedarSet.of([1, 2])), SetExpr((Literal(2), ONE, ONE))),
            (True, False),
        ),
        (
            Binary("==", Literal(RecordValue({"a": 1})), RecordExpr((("a", ONE),))),
            (True, False),
        ),
        (Binary("==", Literal(RecordValue({"a": 1})), RecordExpr((("b", ONE),))), (False, False)),
    ],
)
def test_what_is_known_is_worked_out_without_a_solver(
    expr: Expr, outcome: tuple[bool, bool] | None
) -> None:
    if outcome is None:
        expr, outcome = Binary("==", expr, ONE), (False, True)
    assert encoder().holds(expr) == outcome


def question(text: str, who: Who | None = None) -> tuple[Question, tuple[Policy, ...]]:
    policies = parse_policies({"p": text}, ids="order").policies
    ground = Ground(SCHEMA, policies, CLOSED, frozenset({"departments"}))
    whom = who or Who()
    scene = Scene(ground, whom, Shared.of(ground, whom))
    return Question(scene, scene.record(())), policies


def verdict(text: str, who: Who | None = None) -> object:
    found, policies = question(text, who)
    held = found.holds(policies[0], "view")
    return found.scene.session.satisfiable(held, timeout_ms=10_000)


def test_of_the_part_at_most_one_member_is_assumed_where_that_is_known() -> None:
    two = 'principal.{}.contains({}::"a") && principal.{}.contains({}::"b")'
    said = two.format("departments", "Team", "departments", "Team")
    permit, forbid = (
        f"{e} (principal, action, resource) when {{ {said} }};" for e in ("permit", "forbid")
    )
    assert verdict(permit) == Nothing()
    assert not isinstance(verdict(forbid), Nothing | Unknown)
    friends = two.format("friends", "User", "friends", "User")
    permit = f"permit (principal, action, resource) when {{ {friends} }};"
    assert not isinstance(verdict(permit), Nothing | Unknown)


def test_what_is_beside_the_sets_may_be_anything() -> None:
    said = (
        'principal.grade == 7 && principal has mood && principal.mood == "x" && principal has hats'
    )
    assert not isinstance(
        verdict(f"permit (principal, action, resource) when {{ {said} }};"), Nothing | Unknown
    )


def test_of_others_only_the_uid_is_known() -> None:
    read = "resource has author && resource.author != principal && resource.author.grade == 1"
    assert verdict(f"permit (principal, action, resource) when {{ {read} }};") == Nothing()
    has = "resource has author && resource.author != principal && resource.author has mood"
    assert verdict(f"permit (principal, action, resource) when {{ {has} }};") == Nothing()
    role = 'resource has author && resource.author != principal && resource.author in Role::"nurse"'
    assert verdict(f"permit (principal, action, resource) when {{ {role} }};") == Nothing()
    same = 'resource has author && resource.author == principal && resource.author in Role::"staff"'
    found = verdict(f"permit (principal, action, resource) when {{ {same} }};")
    assert not isinstance(found, Nothing | Unknown)
    nothing = "resource has team && resource.team has name"
    assert verdict(f"permit (principal, action, resource) when {{ {nothing} }};") == Nothing()
    unit = 'resource has team && resource.team in Team::"a" && resource.team != Team::"a"'
    assert verdict(f"permit (principal, action, resource) when {{ {unit} }};") == Nothing()


def test_tags_are_not_kept_and_not_translated() -> None:
    with pytest.raises(Unencodable, match="tags"):
        verdict('permit (principal, action, resource) when { principal.hasTag("a") };')


def test_roles_come_with_those_they_are_in() -> None:
    permit = 'permit (principal in Role::"staff", action, resource);'
    assert not isinstance(verdict(permit, Who(("nurse",), others=False)), Nothing | Unknown)
    permit = 'permit (principal in Role::"nurse", action, resource);'
    assert verdict(permit, Who(("staff",), others=False)) == Nothing()
    forbid = 'forbid (principal in Role::"nurse", action, resource);'
    assert verdict(forbid, Who(("staff",), others=False)) == Nothing()
    assert not isinstance(verdict(forbid, Who(("staff",), others=True)), Nothing | Unknown)


def test_without_a_role_book_there_are_no_people() -> None:
    ground = Ground(SCHEMA, (), {})
    with pytest.raises(Unencodable, match="no role book"):
        Shared.of(ground, Who())
