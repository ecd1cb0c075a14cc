"""What no row filter can answer is refused at load, by policy, place and construct."""

import pytest

from chartgate.cedar.ast import Policy, PolicySet, Scope, Slot
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.schema import Schema
from chartgate.cedar.validate import parse_schema
from chartgate.targets.admissible import NotAFilter, check_filters, record_attributes

SCHEMA = """
entity Category enum ["labs"];
entity Group in [Group] = { name: String };
entity Ward;
entity User in [Group] = { wards: Set<Ward>, names: Set<String>, me: User, rank: Long };
entity Record = {
  category: Category, name?: String, size?: Long, ok?: Bool, owner?: User, group?: Group,
  ward?: Ward, since?: datetime, place?: { room: String }, wards: Set<Ward>, names: Set<String>,
};
type Asked = { now: datetime, name: String };
action read;
action view, view_summary in [read] appliesTo {
  principal: [User], resource: [Record], context: Asked };
action read_audit appliesTo { principal: [User], resource: [Group], context: Asked };
"""

REFUSED = {
    # condition: what the message names
    'resource.name like "a*"': "like cannot",
    "resource.size + 1 > 2": "> may compare",
    "resource.size * 2 == 4": "== may compare",
    "-resource.size == 4": "== may compare",
    "resource.name == resource.name": "== may compare",
    "resource.wards.isEmpty()": "unary cannot",
    "resource.wards.containsAll(principal.wards)": "containsAll cannot",
    "principal.wards.containsAny(resource.wards)": "containsAny cannot be asked of the row attribute wards on its right",
    "principal.wards.containsAll(resource.wards)": "containsAll cannot",
    "resource.wards == principal.wards": "== cannot be asked of the row attribute wards",
    "principal.wards == resource.wards": "== cannot be asked of the row attribute wards on its right",
    "resource.wards.contains(resource.ward)": "contains may compare",
    '[resource.ward].contains(Ward::"a")': "contains may compare",
    '{a: resource.name} == {a: "x"}': "== may compare",
    "principal in resource.group": "in cannot be asked of the row attribute group on its right",
    'resource.group in Group::"a"': "in cannot be asked of the row attribute group",
    'resource.owner in Group::"a"': "in cannot be asked of the row attribute owner",
    'resource.group.name == "x"': "== may compare",
    "resource.owner.rank > 2": "> may compare",
    "resource.owner has rank": "hasattr cannot",
    "resource.since < context.now": "< cannot be asked of the row attribute since",
    "context.now > resource.since": "> cannot be asked of the row attribute since on its right",
    "resource.since == context.now": "== cannot be asked of the row attribute since",
    "resource.since.toDate() == context.now": "== may compare",
    'resource.place == {room: "1"}': "== cannot be asked of the row attribute place",
    'resource.place.room == "1"': "== may compare",
    "resource.name < 3": "< cannot be asked of the row attribute name",
    "3 >= resource.name": ">= cannot be asked of the row attribute name on its right",
    "if resource.ok then true else false": "'if' may not test",
    'if principal.rank > 1 then resource.name like "a" else true': "like cannot",
    'if principal.rank > 1 then true else resource.name like "a"': "like cannot",
    'principal.rank == 1 && resource.name like "a"': "like cannot",
    'principal.rank == 1 || !(resource.name like "a")': "like cannot",
    "resource == principal": "== may compare",
    'resource in Group::"a"': "in may compare",
    'resource is Record in Group::"a"': "is cannot",
    "resource.ok": "getattr cannot",
    "[resource].contains(principal)": "contains may compare",
    'resource.hasTag("x")': "hasTag may compare",
    'decimal(resource.name) == decimal("1.0")': "== may compare",
    "ip(resource.name).isIpv4()": "the function isIpv4",
}  # fmt: skip
ADMITTED = [
    'resource.category == Category::"labs"',
    "resource has category",
    'resource has name && resource.name == "x"',
    '"x" != resource.name',
    "!(3 <= resource.size) || resource.size < 7",
    "principal.names.contains(resource.name)",
    "resource.ward in principal.wards",
    "resource.owner == principal.me",
    'resource.wards.contains(Ward::"a")',
    "resource.wards.containsAny(principal.wards)",
    "resource is Record",
    "if principal.rank > 1 then resource.ok == true else false",
    "resource has since",
    'context.name like "a*" && principal.rank + 1 == 3 && principal.names.isEmpty()',
]  # fmt: skip


@pytest.fixture(scope="module")
def schema() -> Schema:
    return parse_schema(SCHEMA, "test.cedarschema")


def check(text: str, schema: Schema) -> None:
    check_filters(parse_policies({"some.cedar": f'// a comment\n@id("it")\n{text}'}), schema)


@pytest.mark.parametrize("condition", REFUSED)
@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_the_refusal_names_policy_file_line_and_construct(
    schema: Schema, effect: str, condition: str
) -> None:
    with pytest.raises(NotAFilter) as refused:
        check(
            f'{effect} (principal, action == Action::"view", resource) when {{ {condition} }};',
            schema,
        )
    message = str(refused.value)
    assert message.startswith("some.cedar:")
    assert "policy it: " in message
    assert REFUSED[condition] in message


@pytest.mark.parametrize("condition", ADMITTED)
def test_what_a_filter_can_answer_is_admitted(schema: Schema, condition: str) -> None:
    for clause in ("when", "unless"):
        check(
            f'permit (principal, action == Action::"view", resource) {clause} {{ {condition} }};',
            schema,
        )


def test_a_permit_names_its_actions(schema: Schema) -> None:
    with pytest.raises(NotAFilter, match="names its actions"):
        check_filters(PolicySet((Policy("it", "permit"),), ""), schema)


@pytest.mark.parametrize("effect", ["permit", "forbid"])
@pytest.mark.parametrize("how", ["==", "in"])
def test_a_group_of_actions_is_refused_since_a_forbid_on_it_could_be_overlooked(
    schema: Schema, effect: str, how: str
) -> None:
    with pytest.raises(NotAFilter, match='Action::"read" is a group'):
        check(f'{effect} (principal, action {how} Action::"read", resource);', schema)


def test_a_policy_on_the_audit_log_may_ask_anything(schema: Schema) -> None:
    check(
        'permit (principal, action == Action::"read_audit", resource) '
        'when { resource.name like "a*" };',
        schema,
    )


def test_a_forbid_on_every_action_is_checked(schema: Schema) -> None:
    with pytest.raises(NotAFilter, match="like cannot"):
        check('forbid (principal, action, resource) when { resource.name like "a*" };', schema)


def test_a_template_is_refused(schema: Schema) -> None:
    template = Policy("it", "forbid", principal=Scope("==", (Slot("?principal"),)))
    with pytest.raises(NotAFilter, match="a template decides nothing"):
        check_filters(PolicySet((template,), ""), schema)


def test_a_schema_without_records_has_nothing_to_filter() -> None:
    with pytest.raises(NotAFilter, match="declares no entity Record"):
        record_attributes(parse_schema("entity User;", "bare.cedarschema"))
