"""Policies put together from parts that were read once are those that are read whole."""

from hashlib import sha256

import pytest

from chartgate.cedar import parts
from chartgate.cedar.lex import MAX_NESTING, Piece, cut
from chartgate.cedar.parse import InvalidPolicies, parse_policies
from chartgate.cedar.parts import Parts
from chartgate.cedar.render import canonical_policy, policy_set_hash

RULE = "permit (principal, action, resource)"
WHEN = "when { context.purpose == 1 }"
NOTES = [
    "",
    '@id("x")',
    '@id("x") @clause("164.506(c)(1)") @note\n',
    '@note("a \\" quote")@id("x")',
    '@id("x") // @id("y")\n',
    '@permit("a") @forbid("b") @when("c") @unless("d") @if("e") @in("f") @id("x")\n',
    '@id("é")',
    '@__cedar("x")',
]
HEADS = [
    RULE,
    'forbid\n(principal in Role::"permit", action == Action::"when", resource is Record)',
    'permit (principal is User in G::"unless", action in [], resource == R::"\\u{41}") // when',
    'permit (principal, action in [Action::"a", Action::"b"], resource) //;\r\n',
    "permit (principal == ?principal, action, resource)",
]
CLAUSES = [
    "",
    WHEN,
    'when { "when { true }" like "unless*" } // unless { false }\n',
    'unless { {when: 1, unless: 2, "permit": 3}.when == 1 } when {true}\twhen{ false }',
    "when { context has forbid && context.permit == [[{if: 1}]] }\n// when",
]


def read(text: str, **how: object) -> object:
    try:
        return parse_policies({"f": text}, ids="order", **how)  # type: ignore[arg-type]
    except InvalidPolicies as refused:
        return refused.problems


@pytest.mark.parametrize("notes", NOTES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("clauses", CLAUSES)
def test_a_policy_of_parts_is_the_policy_read_whole(
    notes: str, head: str, clauses: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{RULE};{notes}{head}{clauses}\n;{RULE} {WHEN};"
    found = [read(text), read(text, templates=True)]
    monkeypatch.setattr(parts, "MAX_WHOLE", 0)
    assert found == [read(text), read(text, templates=True)]


@pytest.mark.parametrize(
    "text",
    [
        f"{RULE} {RULE}",
        f"{RULE} when true",
        f"{RULE} when {{ true }} {{ true }}",
        f'{RULE} @id("x")',
        f'@id("x") @id("x") {RULE}',
        f"@id {WHEN} {RULE}",
        f"{WHEN} {RULE}",
        f"{RULE} when {{ 1 + }}",
        "permit (principal, action)",
        "permit permit (principal, action, resource)",
        "permit (principal, action, resource) when",
        "@id(x) " + RULE,
        "when { 1 }",
        RULE + ' when { ip("::1") == principal } unless { fee(1) }',
    ],
)
def test_what_is_no_policy_is_not_made_one_by_its_parts(text: str) -> None:
    [piece] = cut(text + ";", "f")
    assert Parts().read([piece]) == [None]
    with pytest.raises(InvalidPolicies):
        parse_policies({"f": text + ";"}, ids="order")


def test_one_faulty_policy_leaves_its_neighbours_their_parts() -> None:
    pieces = list(cut(f'{RULE} {WHEN};@id("b") {RULE} when {{ 1 + }};@id("c") {RULE} {WHEN};', "f"))
    first, faulty, last = Parts().read(pieces)
    assert faulty is None
    assert first is not None
    assert last is not None
    assert first.conditions[0] is last.conditions[0]
    assert (first.notes, last.notes) == ((), (("id", "c"),))


def test_parts_are_read_in_calls_of_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    together = parts._together

    def counted(batch: list[parts._Part]) -> object:
        asked.append(sum(len(part.text) for part in batch))
        return together(batch)

    monkeypatch.setattr(parts, "_together", counted)
    monkeypatch.setattr(parts, "MAX_BATCH", 1_000)
    rules = [f'@id("p{n}") {RULE} when {{ context.a == {n} }};' for n in range(300)]
    parse_policies({"f": "\n".join(rules)})
    assert len(asked) > 10
    assert max(asked) <= 1_000


def test_a_piece_without_known_parts_is_read_whole() -> None:
    assert Parts().read([Piece(f"{RULE};", 1)]) == [None]


def test_a_clause_counts_into_the_depth_of_its_own_policy() -> None:
    deep = "when { " + "1 + " * 200 + "1 == 201 }"
    few, many = f'@id("a") {RULE} {deep};', f'@id("b") {RULE} {deep} {WHEN * 100};'
    assert len(parse_policies({"f": few})) == 1
    with pytest.raises(InvalidPolicies, match="f:2:1: the condition is nested more than"):
        parse_policies({"f": f"{few}\n{many}"})


def test_brackets_stay_bounded_in_every_part() -> None:
    deep = "(" * (MAX_NESTING + 1) + "true" + ")" * (MAX_NESTING + 1)
    with pytest.raises(InvalidPolicies, match=f"nested more than {MAX_NESTING} deep"):
        parse_policies({"f": f'@id("a") {RULE} when {{ {deep} }};'})


def test_the_hash_of_shared_clauses_is_that_of_every_policy_alone() -> None:
    text = "\n".join(f'@id("p{n}") {RULE} {WHEN};' for n in range(9))
    policies = parse_policies({"f": text}).policies
    lines = "\n".join(canonical_policy(policy) for policy in policies)
    expected = sha256(f"chartgate-policy-set/1\n{lines}".encode()).hexdigest()
    assert policy_set_hash(policies) == expected
