"""Schemas as values, and strict validation told with file, line and policy."""

import pytest

from chartgate.cedar.ast import Policy
from chartgate.cedar.parse import (
    InvalidPolicies,
    parse_policies,
    parse_schema,
    policy_set,
    validate,
)
from chartgate.cedar.schema import (
    Attribute,
    EntityRef,
    EntityType,
    ExtensionType,
    PrimitiveType,
    RecordType,
    Schema,
    SetType,
)
from chartgate.model.principal import EntityUid

LONG, STRING = PrimitiveType("Long"), PrimitiveType("String")

HOSPITAL = """
// who works here
@doc("people")
entity Staff in [Team, Role] = { level: Long, "middle name"?: String, @doc("x") team: Team } tags Set<String>;
entity Team, Ward;
entity Role enum ["nurse", "it\\u{21}\\n"];
type Place = { ward: Ward, since?: datetime, };
entity Chart { at: Place, mrn: __cedar::String, price?: decimal };
action view, "edit chart" in ["read", Action::"any"] appliesTo {
  principal: Staff, resource: [Chart], context: Place,
};
action read; action any;
"""


def test_a_schema_is_read_into_values() -> None:
    schema = parse_schema(HOSPITAL, "h.cedarschema")
    assert schema.file == "h.cedarschema"
    assert set(schema.entities) == {"Staff", "Team", "Ward", "Role", "Chart"}
    assert schema.entities["Staff"] == EntityType(
        "Staff",
        {
            "level": Attribute(LONG),
            "middle name": Attribute(STRING, required=False),
            "team": Attribute(EntityRef("Team")),
        },
        frozenset({"Team", "Role"}),
        SetType(STRING),
    )
    assert schema.entities["Role"].enum == ("nurse", "it!\n")
    place = RecordType(
        {
            "ward": Attribute(EntityRef("Ward")),
            "since": Attribute(ExtensionType("datetime"), required=False),
        }
    )
    chart = schema.entities["Chart"].attributes
    assert chart == {
        "at": Attribute(place),
        "mrn": Attribute(STRING),
        "price": Attribute(ExtensionType("decimal"), required=False),
    }
    edit = schema.actions[EntityUid("Action", "edit chart")]
    assert edit.principals == ("Staff",)
    assert edit.resources == ("Chart",)
    assert edit.context == place
    assert edit.parents == {EntityUid("Action", "read"), EntityUid("Action", "any")}
    assert schema.actions[EntityUid("Action", "read")].context == RecordType({})


def test_names_resolve_in_their_namespace_first() -> None:
    schema = parse_schema(
        """entity Lab; type G = Long; action top;
        namespace H::N {
          type T = String;
          entity Staff { t: T, lab: Lab, g: G, other: H::M::Bed };
          action a in [b, top, H::M::Action::"far"];
          action b appliesTo { principal: Staff, resource: Lab };
        }
        namespace H::M { entity Bed; action far; }""",
        "s",
    )
    staff = schema.entities["H::N::Staff"].attributes
    assert staff["t"].type == STRING
    assert staff["g"].type == LONG
    assert staff["lab"].type == EntityRef("Lab")
    assert staff["other"].type == EntityRef("H::M::Bed")
    action = schema.actions[EntityUid("H::N::Action", "a")]
    assert action.parents == {
        EntityUid("H::N::Action", "b"),
        EntityUid("Action", "top"),
        EntityUid("H::M::Action", "far"),
    }
    b = schema.actions[EntityUid("H::N::Action", "b")]
    assert b.principals == ("H::N::Staff",)
    assert b.resources == ("Lab",)


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("entity A\n= { a: Lon };", 2, "Lon"),
        ("entity A = {\n a: Long", 2, "end of file"),
        ("entity A in\n\n[B];", 3, "B"),
        ("entity A;\nentity B\n{ c: Set<X> };", 3, "X"),
        ("type T = {a: T};\nentity A {t: T};", 1, "itself"),
        ("entity A; entity A;", 1, "declared twice"),
        ("entity A;\naction v appliesTo { principal: [A], resource: [B] };", 2, "B"),
        ("entity A;\naction v appliesTo { nobody: [A] };", 2, "nobody"),
        ("action v in [w];", 1, "undeclared action"),
        ("\nentity A = Long;", 2, "Long"),
        ("\n@doc entity ;", 2, "unexpected"),
        ("\nmonster A;", 2, "monster"),
        ("\nentity A $;", 2, "character"),
        ("\n" + "{" * 5_000, 2, "nested"),
        ("type C = Long; entity A; action v appliesTo { principal: A, resource: A, context: C };", 1, ""),
        ('entity A; action v in [A::B::"x"];', 1, ""),
        ("\ud800", 1, "Unicode"),
        ('entity A enum ["\\u{110000}"];', 1, ""),
    ],
)  # fmt: skip
def test_a_broken_schema_is_refused_at_its_line(text: str, place: int, reason: str) -> None:
    with pytest.raises(InvalidPolicies) as refused:
        parse_schema(text, "s.cedarschema")
    [problem] = refused.value.problems
    assert problem.startswith(f"s.cedarschema:{place}:")
    assert reason in problem


def test_every_validation_fault_names_file_line_and_policy() -> None:
    schema = parse_schema(HOSPITAL, "h.cedarschema")
    policies = parse_policies(
        {
            "a.cedar": '\n@id("one") permit(principal, action == Action::"view", resource)\n'
            "when { principal.salary == 1 && resource.colour };",
            "b.cedar": '@id("two") permit(principal, action == Action::"view", resource);\n'
            '@id("three") permit(principal in Role::"x", action == Action::"view", resource)'
            " when { resource.price == resource.price };",
        }
    )
    with pytest.raises(InvalidPolicies) as refused:
        validate(policies, schema)
    found = refused.value.problems
    assert [problem.split(": ")[:2] for problem in found] == [
        ["a.cedar:3:18", "policy one"],
        ["a.cedar:3:42", "policy one"],
        ["b.cedar:2:1", "policy three"],
        ["b.cedar:2:1", "policy three"],
    ]
    assert "salary" in str(refused.value)
    assert "policy0" not in str(refused.value)


def test_a_sound_set_validates() -> None:
    text = '@id("ok") permit(principal, action == Action::"view", resource) when { principal.level > 2 };'
    validate(parse_policies({"a": text}), parse_schema(HOSPITAL, "h"))
    validate(policy_set([]), parse_schema(HOSPITAL, "h"))


def test_a_policy_without_text_cannot_pass_unvalidated() -> None:
    with pytest.raises(InvalidPolicies):
        validate(policy_set([Policy("p", "permit")]), parse_schema(HOSPITAL, "h"))


def test_a_schema_that_the_validator_cannot_read_passes_nothing() -> None:
    broken = Schema("s", "entity A = { b: Nowhere };", {}, {})
    with pytest.raises(InvalidPolicies) as refused:
        validate(parse_policies({"a": '@id("ok") permit(principal, action, resource);'}), broken)
    assert refused.value.problems[0].startswith("s:1: ")


def many(count: int) -> str:
    names = [f"A{n}" for n in range(count)]
    listed = ", ".join(names)
    return (
        "".join(f"entity {name};" for name in names)
        + f"action v appliesTo {{ principal: [{listed}], resource: [{listed}] }};"
    )


def test_a_schema_that_would_cost_hours_is_refused() -> None:
    with pytest.raises(InvalidPolicies, match="pairs of types"):
        parse_schema(many(101), "s")
    with pytest.raises(InvalidPolicies, match="more than 1000 entity types or actions"):
        parse_schema("".join(f"entity A{n};" for n in range(1_001)), "s")
    doubled = "type T0 = { a: Long };" + "".join(
        f"type T{n} = {{ a: T{n - 1}, b: T{n - 1} }};" for n in range(1, 25)
    )
    with pytest.raises(InvalidPolicies, match=r"s:1:\d+: the types, written out, are too large"):
        parse_schema(doubled + "entity A = { t: T24 };", "s")


def test_too_many_policies_for_so_many_types_are_refused_before_they_take_hours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chartgate.cedar.validate.MAX_CHECKS", 99)
    schema = parse_schema(many(10), "s")
    with pytest.raises(InvalidPolicies, match="s:1: too many policies"):
        validate(parse_policies({"a": '@id("x") permit(principal, action, resource);'}), schema)


def test_a_group_of_actions_that_is_in_itself_is_refused_at_the_action() -> None:
    with pytest.raises(InvalidPolicies) as refused:
        parse_schema("action top;\naction a in [b];\naction b in [c, top];\naction c in [a];", "s")
    assert refused.value.problems[0].startswith("s:2:8: action a is in a group of itself")
