"""Templates: Cedar's linking rules, and that a linked policy decides as cedarpy decides it."""

import json

import cedarpy
import pytest

from chartgate.cedar.authorize import authorize
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema
from chartgate.cedar.templates import (
    Link,
    link,
    links_from_json,
    links_to_json,
    slots,
    with_links,
)
from chartgate.cedar.values import RecordValue
from chartgate.model.principal import EntityUid

SCHEMA = parse_schema(
    "entity Team; entity User in [Team] { level: Long }; entity Chart;"
    "action view appliesTo { principal: [User], resource: [Chart] };",
    "s",
)
TEXT = """
@id("share") @clause("164.506(c)")
permit (principal is User in ?principal, action == Action::"view", resource == ?resource)
when { principal.level > 1 };
@id("all") forbid (principal == ?principal, action, resource);
@id("base") permit (principal == User::"root", action == Action::"view", resource);
"""
ANNA, WARD, CHART = EntityUid("User", 'an"na\n'), EntityUid("Team", "ward"), EntityUid("Chart", "7")
SHARED = Link("share", "grant-1", {"?principal": WARD, "?resource": CHART})


def loaded():
    return parse_policies({"t.cedar": TEXT}, templates=True)


def test_a_template_knows_its_slots() -> None:
    share, everything, base = loaded().policies
    assert slots(share) == ("?principal", "?resource")
    assert slots(everything) == ("?principal",)
    assert slots(base) == ()


def test_a_link_keeps_annotations_and_place_and_has_a_text_of_its_own() -> None:
    [made] = [p for p in with_links(loaded(), [SHARED], SCHEMA).policies if p.id == "grant-1"]
    assert made.annotation("clause") == "164.506(c)"
    assert made.origin.line == 2
    assert not made.is_template
    [again] = parse_policies({"t": made.text}, ids="order").policies
    assert (again.principal, again.resource) == (made.principal, made.resource)
    assert again.conditions == made.conditions


def test_the_linked_set_lists_its_links_by_their_ids_and_no_template() -> None:
    other = Link("all", "grant-2", {"?principal": ANNA})
    linked = with_links(loaded(), [SHARED, other], SCHEMA)
    assert [policy.id for policy in linked.policies] == ["base", "grant-1", "grant-2"]
    assert linked.hash != with_links(loaded(), [SHARED], SCHEMA).hash


def test_links_decide_as_cedarpy_decides_them() -> None:
    links = [SHARED, Link("all", "grant-2", {"?principal": ANNA})]
    view = EntityUid("Action", "view")
    people = {
        "in the ward": Entity(
            EntityUid("User", "bo"), RecordValue({"level": 2}), frozenset({WARD})
        ),
        "too low": Entity(EntityUid("User", "cy"), RecordValue({"level": 1}), frozenset({WARD})),
        "elsewhere": Entity(EntityUid("User", "di"), RecordValue({"level": 2})),
        "forbidden": Entity(ANNA, RecordValue({"level": 2}), frozenset({WARD})),
    }
    handle = cedarpy.PolicySet.from_str(TEXT).with_linked_batch(
        [
            {
                "template_id": one.template,
                "new_id": one.id,
                "values": {slot: v._asdict() for slot, v in one.values.items()},
            }
            for one in links
        ]
    )
    for name, person in people.items():
        env = Env(person.uid, view, CHART, {}, Entities([person]))
        ours = authorize(with_links(loaded(), links, SCHEMA), env, forbid_error_denies=False)
        forms = [
            {
                "uid": person.uid._asdict(),
                "attrs": dict(person.attrs),
                "parents": [parent._asdict() for parent in person.parents],
            }
        ]
        request = {
            "principal": person.uid._asdict(),
            "action": view._asdict(),
            "resource": CHART._asdict(),
            "context": {},
        }
        theirs = cedarpy.is_authorized(request, handle, json.dumps(forms))
        assert ours.allowed == theirs.allowed == (name == "in the ward"), name
        assert set(ours.determining) == set(theirs.diagnostics.reasons), name


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ([Link("nobody", "g", {})], "no template nobody"),
        ([Link("base", "g", {})], "no template base"),
        ([Link("share", "g", {"?principal": WARD})], "no value for ?resource"),
        (
            [Link("all", "g", {"?principal": WARD, "?resource": CHART})],
            "t.cedar:5: template all: has no slot ?resource",
        ),
        ([SHARED, SHARED], "grant-1 is already taken"),
        ([Link("all", "base", {"?principal": ANNA})], "base is already taken"),
        ([Link("all", "share", {"?principal": ANNA})], "share is already taken"),
        ([Link("all", "", {"?principal": ANNA})], "not empty"),
        ([Link("all", "a\x1b[2J", {"?principal": ANNA})], "no blank"),
        (
            [Link("share", "g", {"?principal": WARD, "?resource": EntityUid("Nurse", "x")})],
            "t.cedar:2: policy g: ",
        ),
        (
            [Link("share", "g", {"?principal": WARD, "?resource": EntityUid("Team", "x")})],
            "t.cedar:2: policy g: ",
        ),
    ],
)
def test_a_link_that_cedar_would_refuse_is_refused(links: list[Link], words: str) -> None:
    with pytest.raises(InvalidPolicies) as refused:
        with_links(loaded(), links, SCHEMA)
    assert words in str(refused.value)


def test_a_static_policy_cannot_be_linked() -> None:
    with pytest.raises(InvalidPolicies):
        link(loaded().policies[2], "g", {})


def test_a_template_nobody_links_is_validated_too() -> None:
    text = '@id("t") permit (principal == ?principal, action, resource) when { principal.colour };'
    with pytest.raises(InvalidPolicies) as refused:
        with_links(parse_policies({"t": text}, templates=True), [], SCHEMA)
    assert "policy t" in str(refused.value)


def test_links_in_cedars_json_form_are_read_and_written_as_cedarpy_reads_them() -> None:
    forms = links_to_json([SHARED])
    assert links_from_json(forms) == (SHARED,)
    escaped = [
        {
            "templateId": "share",
            "newId": "grant-1",
            "values": {
                "?principal": {"__entity": WARD._asdict()},
                "?resource": {"__entity": CHART._asdict()},
            },
        }
    ]
    assert links_from_json(escaped) == (SHARED,)
    document = json.loads(cedarpy.policies_to_json_str(TEXT))
    document["templateLinks"] = [form | {"templateId": "policy0"} for form in forms]
    handle = cedarpy.PolicySet.from_json_str(json.dumps(document))
    ids = [one["id"] for template in handle.templates() for one in template["links"]]
    assert ids == ["grant-1"]


@pytest.mark.parametrize(
    "form",
    [
        {},
        [1],
        [{"templateId": "t", "newId": "n"}],
        [{"templateId": "t", "newId": "n", "values": []}],
        [{"templateId": 1, "newId": "n", "values": {}}],
        [{"templateId": "t", "newId": "n", "values": {"?principal": "User"}}],
    ],
)
def test_other_json_is_no_link(form: object) -> None:
    with pytest.raises(InvalidPolicies):
        links_from_json(form)
