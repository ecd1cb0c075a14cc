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
  category: Category, name?: String, code?: String, size?: Long, ok?: Bool, owner?: User,
  group?: Group, ward?: Ward, since?: datetime, price?: decimal, place?: { room: String },
  net?: ipaddr, lasting?: duration, wards: Set<Ward>, names: Set<String>,
};
type Asked = { now: datetime, name: String };
action read;
action view, view_summary in [read] appliesTo {
  principal: [User], resource: [Record], context: Asked };
action read_audit appliesTo { principal: [User], resource: [Group], context: Asked };
"""

CHOICE = f"({''.join(f'if resource.ok then {n} else ' for n in range(7))} 9)"
REFUSED = {
    # condition: what the message names
    "resource.wards == resource.names": "== may compare the row attribute wards with a known set",
    "resource.wards.containsAll(resource.wards)": "containsAll between the row attribute wards",
    "principal.wards.contains(resource.wards)": "contains cannot take the row attribute wards",
    "[1, 2].contains(resource.size + 1)": "contains cannot take a Long that is computed",
    "resource.ward.contains(principal)": "contains cannot be asked of the row attribute ward, which",
    "resource.ward.containsAny(principal.wards)": "containsAny cannot be asked of the row attribute",
    '[resource.ward].contains(Ward::"a")': "a set or record literal",
    '{a: resource.name} == {a: "x"}': "a set or record literal",
    "{a: resource.name}.a == principal.me": "a of what a row names is not known",
    'resource.group in Group::"a"': "in cannot be asked of the row attribute group: not every Group",
    'resource.owner in Group::"a"': "in cannot be asked of the row attribute owner: not every User",
    'resource.name in Group::"a"': "in cannot be asked of the row attribute name",
    'resource.wards in Group::"a"': "in cannot be asked of the row attribute wards",
    "principal in resource.name": "in cannot be asked of the row attribute name",
    'resource.group.name == "x"': "name of what a row names is not known here",
    "resource.owner.rank > 2": "rank of what a row names is not known here",
    "resource.owner has rank": "rank of what a row names is not known here",
    'resource.place == {room: "1"}': "no column can hold the row attribute place",
    'resource.place.room == "1"': "room of what a row names",
    'resource.net == ip("1.1.1.1")': "no column can hold the row attribute net",
    'resource.lasting < duration("1d")': "no column can hold the row attribute lasting",
    "resource.name < 3": "< cannot be asked of the row attribute name",
    "3 >= resource.name": ">= cannot be asked of the row attribute name",
    "resource.price < resource.price": "< cannot be asked of the row attribute price",
    "resource.size.lessThan(resource.size)": "lessThan cannot be asked of the row attribute size",
    "resource.size < resource.since": "< compares the row attribute size with the row attribute",
    "resource.name == resource.size": "== compares the row attribute name with the row attribute",
    "resource.since.durationSince(context.now) == resource.size": "== compares a duration that is",
    "resource.size + resource.name == 3": "+ cannot be asked of the row attribute name",
    'resource.size like "a*"': "like cannot be asked of the row attribute size",
    "resource.size is User": "is cannot be asked of the row attribute size",
    "resource.wards is Ward": "is cannot be asked of the row attribute wards",
    "resource.name.isEmpty()": "isEmpty can be asked of a set attribute only",
    "resource == principal": "a row is known by its attributes, not as an entity",
    'resource in Group::"a"': "a row is known by its attributes, not as an entity",
    'resource is Record in Group::"a"': "a row is known by its attributes, not as an entity",
    "(if true then resource else resource).ok": "ok of what a row names",
    "resource.size": "a condition cannot be asked of the row attribute size",
    "resource.wards": "a condition cannot be asked of the row attribute wards",
    "[resource].contains(principal)": "a set or record literal",
    'resource.hasTag("x")': "a row is known by its attributes",
    'resource.owner.hasTag("x")': "hasTag cannot be asked of a row",
    'resource.owner.getTag(resource.name) == "x"': "getTag cannot be asked of a row",
    'decimal(resource.name) == decimal("1.0")': "the function decimal cannot",
    "datetime(resource.name) < context.now": "the function datetime cannot",
    "ip(resource.name).isIpv4()": "the function isIpv4",
    # anywhere in the condition
    "if resource.ok then resource == principal else true": "not as an entity",
    "if resource == principal then true else false": "not as an entity",
    "if principal.rank > 1 then resource == principal else true": "not as an entity",
    "if principal.rank > 1 then true else resource == principal": "not as an entity",
    "principal.rank == 1 && resource == principal": "not as an entity",
    "principal.rank == 1 || !(resource == principal)": "not as an entity",
    # in proportion
    f"resource.size{' + resource.size' * 17} > 1": "more than 16 steps of arithmetic",
    f"{CHOICE} == {CHOICE}": "'if' chooses between too many",
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
    'resource.name like "a*"',
    "resource.size + 1 > 2 && resource.size * 2 == 4 && -resource.size == 4",
    "resource.name == resource.code && resource.size <= resource.size",
    "resource.wards.isEmpty()",
    "resource.wards.containsAll(principal.wards) && principal.wards.containsAll(resource.wards)",
    "principal.wards.containsAny(resource.wards) && resource.wards == principal.wards",
    "resource.wards.contains(resource.ward)",
    "resource.ward in resource.wards",
    "principal in resource.group",
    "principal in resource.wards",
    "resource.ward is Ward && resource.owner is User",
    "resource.since < context.now && resource.since == context.now",
    'resource.since.toDate() == context.now && resource.since.offset(duration("1d")) > context.now',
    "context.now.durationSince(resource.since).toDays() < 30",
    'resource.price.lessThan(decimal("1.5")) || decimal("2.0") == resource.price',
    "resource.ok && !resource.ok",
    "if resource.ok then resource.size > 1 else resource has name",
    "(if resource.ok then resource.name else principal.me) == principal.me",
    "(resource.size > 1) == resource.ok",
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


@pytest.mark.parametrize("asked", ['action in Action::"read"', 'action in [Action::"read"]'])
def test_a_group_of_actions_is_refused_in_a_condition_as_well(schema: Schema, asked: str) -> None:
    with pytest.raises(NotAFilter, match='Action::"read" is a group'):
        check(f"forbid (principal, action, resource) when {{ {asked} }};", schema)


def test_a_policy_on_the_audit_log_may_ask_anything(schema: Schema) -> None:
    check(
        'permit (principal, action == Action::"read_audit", resource) '
        "when { resource == principal };",
        schema,
    )


def test_a_forbid_on_every_action_is_checked(schema: Schema) -> None:
    with pytest.raises(NotAFilter, match="not as an entity"):
        check("forbid (principal, action, resource) when { resource == principal };", schema)


@pytest.mark.parametrize(
    ("scope", "clauses", "where"),
    [
        ('resource == Record::"x"', "", "in the scope of resource: a row is known"),
        (
            "resource",
            "when { true } unless { resource == principal }",
            "in the second unless: a row",
        ),
        ("resource", "when { resource == principal } when { true }", "in the first when: a row"),
        ("resource", "unless { resource == principal }", "in the only unless: a row"),
        ("resource", "when { true } " * 3 + "when { resource == principal }", "in the 4th when: a"),
    ],
)
def test_the_refusal_names_the_clause(schema: Schema, scope: str, clauses: str, where: str) -> None:
    with pytest.raises(NotAFilter) as refused:
        check(f'permit (principal, action == Action::"view", {scope}) {clauses};', schema)
    assert where in str(refused.value)


def test_a_known_hierarchy_may_be_asked(schema: Schema) -> None:
    text = (
        '@id("it") permit (principal, action == Action::"view", resource) '
        "when { resource.group in %s };"
    )
    policies = parse_policies({"some.cedar": text % 'Group::"a"'})
    check_filters(policies, schema, families=frozenset({"Group"}))
    with pytest.raises(NotAFilter, match="Group is known here"):
        check_filters(policies, schema)
    policies = parse_policies({"some.cedar": text % "resource.group"})
    with pytest.raises(NotAFilter, match="compare with something known"):
        check_filters(policies, schema, families=frozenset({"Group"}))


def _alternating(depth: int) -> str:
    """Nested so that what is true and what is false grow by turns."""
    text = "resource.ok"
    for n in range(depth):
        text = f"({text} {'&&' if n % 2 else '||'} resource.size > {n})"
    return text


@pytest.mark.parametrize(
    ("condition", "admitted"),
    [
        (" && ".join(f"resource.size > {n}" for n in range(200)), True),
        (" || ".join(f"resource.size > {n}" for n in range(40)), True),
        (" || ".join(f"resource.size > {n}" for n in range(60)), False),
        (_alternating(8), True),
        (_alternating(20), False),
        (_alternating(28), False),
    ],
)
def test_a_filter_out_of_proportion_is_refused_by_count(
    schema: Schema, condition: str, admitted: bool
) -> None:
    text = f'permit (principal, action == Action::"view", resource) when {{ {condition} }};'
    if admitted:
        return check(text, schema)
    with pytest.raises(NotAFilter, match="questions to each row, more than 1000"):
        check(text, schema)
    return None


def test_a_template_is_refused(schema: Schema) -> None:
    template = Policy("it", "forbid", principal=Scope("==", (Slot("?principal"),)))
    with pytest.raises(NotAFilter, match="a template decides nothing"):
        check_filters(PolicySet((template,), ""), schema)


def test_a_schema_without_records_has_nothing_to_filter() -> None:
    with pytest.raises(NotAFilter, match="declares no entity Record"):
        record_attributes(parse_schema("entity User;", "bare.cedarschema"))
