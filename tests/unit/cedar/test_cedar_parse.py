"""Loading: ids, file and line of every fault, limits, the hash that names the content."""

import threading

import pytest

from chartgate.cedar import est
from chartgate.cedar.ast import (
    WILDCARD,
    Binary,
    Call,
    GetAttr,
    Is,
    Like,
    Literal,
    Origin,
    Scope,
    SetExpr,
    Unary,
    Var,
)
from chartgate.cedar.authorize import authorize
from chartgate.cedar.entities import Entities
from chartgate.cedar.evaluate import Env
from chartgate.cedar.lex import MAX_HAS_CHAIN, MAX_NESTING, MAX_STEPS, MAX_TOKENS
from chartgate.cedar.parse import InvalidPolicies, parse_policies, policy_set
from chartgate.cedar.render import canonical
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid

RULE = "permit(principal, action, resource)"


def problems(**files: str) -> list[str]:
    with pytest.raises(InvalidPolicies) as refused:
        parse_policies({f"{name}.cedar": text for name, text in files.items()})
    assert isinstance(refused.value, Misconfigured)
    assert str(refused.value) == "\n".join(refused.value.problems)
    return list(refused.value.problems)


def when(text: str) -> str:
    return f'@id("x") {RULE} when {{ {text} }};'


def test_a_policy_carries_id_annotations_origin_and_text() -> None:
    text = '// first\n\n  @id("see") @clause("164.506(c)") @note\npermit(principal, action, resource);\n'
    [policy] = parse_policies({"a.cedar": text}).policies
    assert policy.id == "see"
    assert policy.origin == Origin("a.cedar", 3)
    assert str(policy.origin) == "a.cedar:3"
    assert policy.annotation("clause") == "164.506(c)"
    assert policy.annotation("note") == ""
    assert policy.annotation("none") is None
    assert policy.text.startswith('@id("see")')
    assert policy.text.endswith(";")


def test_every_fault_is_told_with_its_file_and_line() -> None:
    found = problems(
        a=f'// c\n\n@id("x")\n{RULE} when {{ 1 + }};\n\n{RULE};\n@id("y") {RULE};',
        b=f'@id("y")\n{RULE};\n@id("t") permit(principal == ?principal, action, resource);\n'
        f'@id("u v") {RULE};\n@id("z") {RULE} when {{ "a\n}};',
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "a.cedar:4:49",
        "a.cedar:6:1",
        "b.cedar:1:1",
        "b.cedar:3:1",
        "b.cedar:4:1",
        "b.cedar:5:53",
    ]
    assert "unexpected token" in found[0]
    assert "no @id" in found[1]
    assert "a.cedar:7" in found[2]
    assert "template" in found[3]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f'@id("x")\n{RULE}', "1:1"),
        ("\n\npermit(principal", "3:7"),
        ("\n)", "2:1"),
        ("(]", "1:2"),
        (";", "1:1"),
        (f'@id("x") {RULE} {RULE};', "1:52"),
        ("\n  \ud800", "2:3"),
        (f'@id("x")\n@id("x") {RULE};', "1:1"),
        (when("9223372036854775808 > 1"), "1:53"),
        (when("foo(1)"), "1:53"),
        (when('"a\\q" == "b"'), "1:55"),
        (when("ip(?principal)"), "1:46"),
        (when("\n\n  1 +\n  * 2"), "4:3"),
    ],
)
def test_broken_text_is_refused_at_its_line(text: str, place: str) -> None:
    [problem] = problems(f=text)
    assert problem.startswith(f"f.cedar:{place}: ")


def test_a_line_break_in_a_comment_cannot_hide_a_second_policy() -> None:
    [policy] = parse_policies({"f": f'// a\r@id("x") {RULE};// {RULE};'}).policies
    assert policy.id == "x"


def test_text_that_would_overflow_the_parser_is_refused_before_it() -> None:
    deep = "(" * 5_000 + "true" + ")" * 5_000
    assert f"more than {MAX_NESTING} deep" in problems(f=when(deep))[0]
    assert f"more than {MAX_STEPS} operators" in problems(f=when("1 + " * 30_000 + "1 == 1"))[0]
    assert (
        f"more than {est.MAX_DEPTH} operators deep"
        in problems(f=when("!(!(" + "true && " * 300 + "true))"))[0]
    )
    assert (
        f"more than {est.MAX_DEPTH} operators deep"
        in problems(f=when("true && " * 900 + "true"))[0]
    )
    clauses = f'@id("x") {RULE} ' + "when { true }\n" * 300 + ";"
    assert f"more than {est.MAX_DEPTH} clauses" in problems(f=clauses)[0]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 28 + "true" + ")" * 28,
        "[" * 28 + "1" + "]" * 28 + " == 1",
        "1 + " * 1_900 + "1 == 1",
        "context" + ".a" * 1_900 + " == 1",
        "if true then true else " * 249 + "true",
    ],
)
def test_what_the_limits_let_through_fits_a_small_stack(text: str) -> None:
    outcomes: list[object] = []

    def load() -> None:
        try:
            outcomes.append(parse_policies({"f": when(text)}))
        except InvalidPolicies as refused:
            outcomes.append(refused)

    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(outcomes) == 1


def test_a_caller_with_little_stack_left_gets_a_refusal_and_no_crash() -> None:
    def below(frames: int) -> list[str]:
        return below(frames - 1) if frames else problems(f=when("true && " * 240 + "true"))

    assert "operators deep" in below(600)[0]


def test_long_flat_policies_are_read() -> None:
    staff = ", ".join(f'Staff::"{n}"' for n in range(5_000))
    texts = (when(f"principal in [{staff}]"), when(" || ".join(["context.a == 1"] * 200)))
    for text in texts:
        assert len(parse_policies({"f": text})) == 1


def test_scopes_and_operators_keep_their_form() -> None:
    text = """permit(principal is Staff in Team::"a", action in [Action::"v", Action::"w"], resource is Chart)
    when { resource.name like "a*b\\*" } when { -context.n == 1 } when { ip("::1").isIpv6() }
    when { principal is Staff in [] };"""
    [policy] = parse_policies({"f": text}, ids="order").policies
    assert policy.id == "policy0"
    assert policy.principal == Scope("is in", (EntityUid("Team", "a"),), "Staff")
    assert policy.action.entities == (EntityUid("Action", "v"), EntityUid("Action", "w"))
    assert policy.resource == Scope("is", (), "Chart")
    assert [c.body for c in policy.conditions] == [
        Like(GetAttr(Var("resource"), "name"), ("a", WILDCARD, "b*")),
        Binary("==", Unary("neg", GetAttr(Var("context"), "n")), Literal(1)),
        Call("isIpv6", (Call("ip", (Literal("::1"),)),)),
        Is(Var("principal"), "Staff", SetExpr(())),
    ]


EVERY = when(
    'if !(principal has a) then resource.b.isEmpty() else (context.c || "x" like "*y" || [1, "1", true]'
    ".contains({z: -principal.d}) || principal is Staff || principal is Staff in resource"
    ' || ip("::1") == principal || principal == Staff::"a\\"b")'
)


def test_layout_comments_and_files_do_not_change_the_hash() -> None:
    other = f'@id("o") @a("1") @b("2") {RULE};'
    base = parse_policies({"a": EVERY + other}).hash
    assert len(base) == 64
    assert parse_policies({"b": other, "a": "// note\n" + EVERY.replace(" ", "\n ")}).hash == base
    assert parse_policies({"a": EVERY + f'@b("2") @a("1") @id("o") {RULE};'}).hash == base
    assert parse_policies({}).hash == policy_set([]).hash != base


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('@id("x")', '@id("y")'),
        ('@id("x")', '@id("x") @clause("164.506")'),
        ("permit", "forbid"),
        ("when", "unless"),
        ("action", 'action == Action::"v"'),
        ("action", 'action in [Action::"v"]'),
        ("(principal,", "(principal is Staff,"),
        ("[1,", "[2,"),
        ("true]", '"true"]'),
        ('"*y"', '"\\*y"'),
        ("has a", "has b"),
        ("principal is Staff in resource", "principal is Staff in principal"),
    ],
)
def test_content_changes_the_hash(old: str, new: str) -> None:
    assert old in EVERY
    changed = parse_policies({"a": EVERY.replace(old, new, 1)}).hash
    assert changed != parse_policies({"a": EVERY}).hash


def test_templates_are_hashed_with_their_slots() -> None:
    one = '@id("t") permit(principal == ?principal, action, resource);'
    two = '@id("t") permit(principal in ?principal, action, resource);'
    hashes = {parse_policies({"a": text}, templates=True).hash for text in (one, two)}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    "form",
    [
        1,
        {},
        {"a": 1, "b": 2},
        {"Unknown": {"name": "x"}},
        {"Var": "nobody"},
        {"Value": 1.5},
        {"Value": 2**63},
        {"Value": {"__extn": {"fn": "ip", "arg": "::1"}}},
        {"mystery": [1]},
    ],
)
def test_json_that_is_not_known_is_refused(form: object) -> None:
    with pytest.raises(est.UnknownForm):
        est.expression(form)


@pytest.mark.parametrize(
    "change",
    [
        {"effect": "allow"},
        {"effect": []},
        {"principal": {"op": "=="}},
        {"conditions": [{"kind": "when", "body": {"&&": {"left": {"Value": True}}}}]},
        {"principal": {"op": "near"}},
        {"conditions": [{"kind": "maybe", "body": {"Value": True}}]},
    ],
)
def test_policies_of_an_unknown_form_are_refused(change: dict[str, object]) -> None:
    scopes = {part: {"op": "All"} for part in ("principal", "action", "resource")}
    form = {"effect": "permit", "conditions": []} | scopes | change
    with pytest.raises(est.UnknownForm):
        est.policy(form, "p", Origin("f", 1), "")


def test_a_piece_must_be_exactly_one_policy() -> None:
    none: dict[str, object] = {"staticPolicies": {}, "templates": {}, "templateLinks": []}
    for forms in (none, none | {"staticPolicies": {"a": 1, "b": 2}}):
        with pytest.raises(est.UnknownForm):
            est.single(forms, templates=True)


def test_what_is_no_expression_has_no_text() -> None:
    with pytest.raises(TypeError):
        canonical("true")  # type: ignore[arg-type]


def test_ten_thousand_people_in_a_set_are_read_and_decided() -> None:
    people = ", ".join(f'User::"{n}"' for n in range(10_000))
    policies = parse_policies({"f": f'@id("x") {RULE} when {{ principal in [{people}] }};'})
    for name, allowed in (("9999", True), ("10000", False)):
        env = Env(EntityUid("User", name), EntityUid("A", "v"), EntityUid("R", "r"), {}, Entities())
        assert authorize(policies, env, forbid_error_denies=True).allowed is allowed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (when("[" + "1," * 100_000 + "1].isEmpty()"), f"more than {MAX_TOKENS} words in one policy"),
        (when("context has " + ".".join(["a"] * 60)), f"has with more than {MAX_HAS_CHAIN} steps"),
        (when("context has a.b && context" + ".a" * 60 + " == 1"), ""),
    ],
)  # fmt: skip
def test_what_would_cost_too_much_is_refused_at_its_place(text: str, reason: str) -> None:
    if not reason:
        assert len(parse_policies({"f": text})) == 1
        return
    [problem] = problems(f=text)
    assert reason in problem
    assert problem.startswith("f.cedar:1:")


def test_reading_ends_after_a_hundred_faults() -> None:
    found = problems(a=f"{RULE};\n" * 5_000, b=f"{RULE};")
    assert len(found) == 101
    assert found[-1].endswith("reading ended here")


def test_a_whole_set_is_bounded_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chartgate.cedar.parse.MAX_WORDS", 50)
    found = problems(a=when("true"), b=when("true").replace('"x"', '"y"') * 3)
    assert found[-1].startswith("b.cedar:1:")
    assert "more than 50 words in one policy set" in found[-1]


def test_a_fault_in_a_very_long_policy_is_told_at_its_beginning() -> None:
    text = when('"' + "a" * 70_000 + '" == \n 1 +')
    assert problems(f=text)[0].startswith("f.cedar:1:1: unexpected token")
