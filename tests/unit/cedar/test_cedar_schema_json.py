"""The JSON form of schemas: the same values as the text form, and clear refusals."""

import json
from typing import Any

import pytest

from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema, validate
from chartgate.cedar.schema import Schema
from chartgate.model.principal import EntityUid

TEXT = """
entity Top;
action all;
namespace H::N {
  type Place = { ward: Ward, since?: datetime };
  type Level = Long;
  entity Staff in [Team, Top] = {
    level: Level, "middle name"?: String, team: Team, price: decimal, from: ipaddr, on: duration,
    places: Set<Place>, flag: Bool
  } tags Set<String>;
  entity Team;
  entity Ward;
  entity Role enum ["nurse", "it!"];
  entity Chart;
  action read in [Action::"any", "all"];
  action any;
  action view in [H::N::Action::"read"] appliesTo {
    principal: [Staff], resource: [Chart, Top], context: Place
  };
}
"""

STAFF: dict[str, Any] = {
    "type": "Record",
    "attributes": {
        "level": {"type": "Level"},
        "middle name": {"type": "String", "required": False},
        "team": {"type": "EntityOrCommon", "name": "Team", "required": True},
        "price": {"type": "EntityOrCommon", "name": "decimal"},
        "from": {"type": "Extension", "name": "ipaddr"},
        "on": {"type": "EntityOrCommon", "name": "__cedar::duration"},
        "places": {"type": "Set", "element": {"type": "EntityOrCommon", "name": "Place"}},
        "flag": {"type": "Boolean", "annotations": {"doc": "on or off"}},
    },
}
DOCUMENT: dict[str, Any] = {
    "": {"entityTypes": {"Top": {}}, "actions": {"all": {}}},
    "H::N": {
        "annotations": {"doc": "a hospital"},
        "commonTypes": {
            "Place": {
                "type": "Record",
                "attributes": {
                    "ward": {"type": "Entity", "name": "Ward"},
                    "since": {"type": "Extension", "name": "datetime", "required": False},
                },
                "additionalAttributes": False,
            },
            "Level": {"type": "Long"},
        },
        "entityTypes": {
            "Staff": {
                "memberOfTypes": ["Team", "Top"],
                "shape": STAFF,
                "tags": {"type": "Set", "element": {"type": "String"}},
            },
            "Team": {},
            "Ward": {"shape": {"type": "Record", "attributes": {}}},
            "Role": {"enum": ["nurse", "it!"]},
            "Chart": {"memberOfTypes": []},
        },
        "actions": {
            "read": {"memberOf": [{"id": "any", "type": "Action"}, {"id": "all"}]},
            "any": {"appliesTo": None},
            "view": {
                "memberOf": [{"id": "read", "type": "H::N::Action"}],
                "appliesTo": {
                    "principalTypes": ["Staff"],
                    "resourceTypes": ["Chart", "Top"],
                    "context": {"type": "Place"},
                },
            },
        },
    },
}


def read(document: object, file: str = "s.json") -> Schema:
    return parse_schema(json.dumps(document, indent=1), file)


def test_both_forms_of_one_schema_are_equal_values() -> None:
    text, form = parse_schema(TEXT, "s.cedarschema"), read(DOCUMENT)
    assert form.entities == text.entities
    assert form.actions == text.actions
    view = form.actions[EntityUid("H::N::Action", "view")]
    assert view.resources == ("H::N::Chart", "Top")
    assert view.parents == {EntityUid("H::N::Action", "read")}
    assert form.actions[EntityUid("H::N::Action", "read")].parents == {
        EntityUid("H::N::Action", "any"),
        EntityUid("Action", "all"),
    }


def test_a_text_that_begins_with_a_brace_is_json_whatever_its_file_is_called() -> None:
    assert read(DOCUMENT, "schema.cedarschema").actions == read(DOCUMENT).actions


def test_a_shape_may_be_a_common_type() -> None:
    form = {
        "N": {
            "commonTypes": {"T": {"type": "Record", "attributes": {"a": {"type": "Long"}}}},
            "entityTypes": {"U": {"shape": {"type": "T"}}},
            "actions": {},
        }
    }
    assert set(read(form).entities["N::U"].attributes) == {"a"}


def test_policies_are_validated_against_a_json_schema() -> None:
    text = '@id("p") permit(principal, action == H::N::Action::"view", resource) when {{ {} }};'
    validate(parse_policies({"a": text.format("principal.level > 1")}), read(DOCUMENT))
    with pytest.raises(InvalidPolicies) as refused:
        validate(parse_policies({"a": text.format("principal.colour")}), read(DOCUMENT))
    assert refused.value.problems[0].startswith("a:1:87: policy p: attribute `colour`")


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    document = json.loads(json.dumps(DOCUMENT))
    at = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return document


N = "H::N"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("x",), 1, "not an object"),
        ((N, "entities"), {}, "unknown key 'entities'"),
        ((N, "entityTypes"), [], "not an object"),
        ((N, "entityTypes", "Team"), {"colour": 1}, "unknown key 'colour'"),
        ((N, "entityTypes", "Team"), {"memberOfTypes": "Top"}, "not a list"),
        ((N, "entityTypes", "Team"), {"memberOfTypes": ["Nobody"]}, "no entity type Nobody"),
        ((N, "entityTypes", "Team"), {"shape": {"type": "Long"}}, "not a record"),
        ((N, "entityTypes", "Role"), {"enum": ["a"], "shape": STAFF}, "unknown key 'shape'"),
        ((N, "entityTypes", "Role"), {"enum": []}, ""),
        ((N, "entityTypes", "Team"), {"shape": {"type": "Record"}}, "not an object"),
        (
            (N, "entityTypes", "Team"),
            {"shape": {"type": "Record", "attributes": {}, "additionalAttributes": True}},
            "other attributes",
        ),
        ((N, "commonTypes", "Level"), {"type": "Level"}, "made of itself"),
        ((N, "commonTypes", "Level"), {"type": "Set"}, "element: not an object"),
        ((N, "commonTypes", "Level"), {"type": "Extension", "name": "money"}, "no type"),
        ((N, "commonTypes", "Level"), {"type": "Entity", "name": "Level"}, "no entity type"),
        ((N, "commonTypes", "Level"), {"type": "Team"}, "no type Team"),
        ((N, "commonTypes", "Level"), {"type": "Long", "element": {"type": "Long"}}, "unknown key"),
        ((N, "commonTypes", "Place", "attributes", "ward"), {"type": "Ward", "required": "no"}, ""),
        ((N, "actions", "any"), {"attributes": {"a": 1}}, "no attributes"),
        ((N, "actions", "any"), {"memberOf": [{"id": "nobody"}]}, "undeclared action"),
        ((N, "actions", "any"), {"memberOf": [{"id": "read"}]}, "in a group of itself"),
        ((N, "actions", "any"), {"appliesTo": {"principalTypes": ["Staff"]}}, "not a list"),
        ((N, "actions", "view", "appliesTo", "context"), {"type": "Long"}, "not a record"),
    ],
)  # fmt: skip
def test_a_broken_document_is_refused_with_its_file_and_the_way_to_it(
    path: tuple[str, ...], value: object, words: str
) -> None:
    with pytest.raises(InvalidPolicies) as refused:
        read(changed(path, value))
    [problem] = refused.value.problems
    assert problem.startswith("s.json:")
    assert words in problem


def test_broken_json_is_refused_at_its_line_and_column() -> None:
    with pytest.raises(InvalidPolicies) as refused:
        parse_schema('{\n  "": {,}\n}', "s.json")
    assert refused.value.problems[0].startswith("s.json:2:8: ")


def test_a_key_that_occurs_twice_is_refused() -> None:
    with pytest.raises(InvalidPolicies) as refused:
        parse_schema('{"": {"entityTypes": {"A": {}, "A": {}}, "actions": {}}}', "s.json")
    assert "twice" in refused.value.problems[0]


def test_text_in_a_file_called_json_is_refused() -> None:
    with pytest.raises(InvalidPolicies):
        parse_schema(TEXT, "s.json")


def test_json_nested_too_deeply_reaches_no_parser() -> None:
    for bomb in ("[" * 200_000, '{"a":' * 200_000, '{"":{"entityTypes":' + "[" * 200):
        with pytest.raises(InvalidPolicies) as refused:
            parse_schema("\n" + bomb, "s.json")
        assert refused.value.problems[0].startswith("s.json:2: brackets nested")
