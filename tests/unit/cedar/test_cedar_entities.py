"""The hierarchy, the overlay of a request, and Cedar's JSON form of entities."""

import json
from typing import Any

import cedarpy
import pytest

from chartgate.cedar.entities import (
    Entities,
    Entity,
    InvalidEntities,
    entities_from_json,
    value_from_json,
)
from chartgate.cedar.parse import parse_schema
from chartgate.cedar.values import CedarSet, DateTime, Decimal, IpAddr, RecordValue
from chartgate.model.principal import EntityUid


def uid(name: str) -> EntityUid:
    return EntityUid("Group", name)


def entity(name: str, *parents: str) -> Entity:
    return Entity(uid(name), parents=frozenset(map(uid, parents)))


def names(entities: Entities, name: str) -> set[str]:
    return {ancestor.id for ancestor in entities.ancestors(uid(name))}


def test_ancestors_are_reflexive_and_transitive() -> None:
    store = Entities([entity("a", "b"), entity("b", "c", "d"), entity("d", "absent")])
    assert names(store, "a") == {"a", "b", "c", "d", "absent"}
    assert names(store, "a") == {"a", "b", "c", "d", "absent"}
    assert names(store, "c") == {"c"}


def test_a_cycle_of_parents_ends() -> None:
    store = Entities([entity("a", "b"), entity("b", "a")])
    assert names(store, "a") == names(store, "b") == {"a", "b"}


def test_an_overlay_adds_and_replaces_without_touching_the_store() -> None:
    store = Entities([entity("a", "b"), entity("b", "c"), entity("x", "y")])
    assert names(store, "a") == {"a", "b", "c"}
    over = store.with_(entity("b", "z"), entity("z", "x"), entity("new", "x"))
    assert names(over, "a") == {"a", "b", "z", "x", "y"}
    assert names(over, "new") == {"new", "x", "y"}
    assert names(store, "a") == {"a", "b", "c"}
    assert store.get(uid("new")) is None
    assert over.get(uid("a")) is store.get(uid("a"))
    assert over.with_(entity("y", "top")).ancestors(uid("new")) == {
        uid(n) for n in ("new", "x", "y", "top")
    }


def test_an_overlay_makes_an_absent_parent_present() -> None:
    store = Entities([entity("a", "absent")])
    assert names(store.with_(entity("absent", "top")), "a") == {"a", "absent", "top"}


def test_json_is_read_with_its_escapes() -> None:
    store = entities_from_json(
        [
            {
                "uid": {"__entity": {"type": "Group", "id": "a"}},
                "attrs": {
                    "who": {"__entity": {"type": "Group", "id": "b"}},
                    "price": {"__extn": {"fn": "decimal", "arg": "1.5"}},
                    "all": [1, True, {"n": "x"}],
                },
                "parents": [{"type": "Group", "id": "b"}],
                "tags": {"t": {"__extn": {"fn": "ip", "arg": "::1"}}},
            }
        ]
    )
    found = store.get(uid("a"))
    assert found == Entity(
        uid("a"),
        RecordValue(
            {
                "who": uid("b"),
                "price": Decimal(15_000),
                "all": CedarSet.of([1, True, RecordValue({"n": "x"})]),
            }
        ),
        frozenset([uid("b")]),
        RecordValue({"t": IpAddr(6, 1, 128)}),
    )


def test_a_schema_allows_the_implicit_forms_and_brings_its_actions() -> None:
    schema = parse_schema(
        "entity Group { who: Group, at: datetime, ip: ipaddr, many: Set<Group>, r: { p: decimal } }"
        " tags decimal; action view in [read]; action read;",
        "s",
    )
    store = entities_from_json(
        [
            {
                "uid": {"type": "Group", "id": "a"},
                "attrs": {
                    "who": {"type": "Group", "id": "b"},
                    "at": "1970-01-02",
                    "ip": {"fn": "ip", "arg": "::1"},
                    "many": [{"type": "Group", "id": "b"}],
                    "r": {"p": "0.0001"},
                },
                "parents": [],
                "tags": {"t": "0.0002"},
            }
        ],
        schema,
    )
    found = store.get(uid("a"))
    assert found is not None
    assert found.attrs == RecordValue(
        {
            "who": uid("b"),
            "at": DateTime(86_400_000),
            "ip": IpAddr(6, 1, 128),
            "many": CedarSet.of([uid("b")]),
            "r": RecordValue({"p": Decimal(1)}),
        }
    )
    assert found.tags == {"t": Decimal(2)}
    read = EntityUid("Action", "read")
    assert read in store.ancestors(EntityUid("Action", "view"))


def test_a_datetime_outside_the_calendar_is_written_as_an_offset() -> None:
    form = {
        "__extn": {
            "fn": "offset",
            "args": [
                {"__extn": {"fn": "datetime", "arg": "1970-01-01"}},
                {"__extn": {"fn": "duration", "arg": "9223372036854775807ms"}},
            ],
        }
    }
    assert value_from_json(form) == DateTime(2**63 - 1)


WHOLE: dict[str, Any] = {"uid": {"type": "Group", "id": "a"}, "attrs": {}, "parents": []}


@pytest.mark.parametrize(
    "forms",
    [
        {},
        [1],
        [{"uid": {"type": "Group", "id": "a"}, "attrs": {}}],
        [WHOLE, WHOLE],
        [WHOLE | {"uid": {"type": "Group"}}],
        [WHOLE | {"uid": {"type": "Group", "id": 1}}],
        [WHOLE | {"attrs": []}],
        [WHOLE | {"parents": {}}],
        [WHOLE | {"tags": []}],
        [WHOLE | {"attrs": {"a": None}}],
        [WHOLE | {"attrs": {"a": 1.5}}],
        [WHOLE | {"attrs": {"a": 2**63}}],
        [WHOLE | {"attrs": {"a": {"__extn": 1}}}],
        [WHOLE | {"attrs": {"a": {"__extn": {"fn": "toDate", "arg": "1"}}}}],
        [WHOLE | {"attrs": {"a": {"__extn": {"fn": "decimal", "arg": "secret"}}}}],
        [WHOLE | {"attrs": {"a": {"__extn": {"fn": "decimal", "arg": 1}}}}],
        [WHOLE | {"attrs": {"a": {"__extn": {"fn": "offset", "args": "secret"}}}}],
        [WHOLE | {"attrs": {"a": {"__extn": {"fn": ["x"], "arg": "secret"}}}}],
    ],
)
def test_other_json_is_refused_without_telling_values(forms: Any) -> None:
    with pytest.raises(InvalidEntities) as refused:
        entities_from_json(forms)
    assert "secret" not in str(refused.value)


def parented(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    forms: dict[str, dict[str, Any]] = {}
    for child, parent in pairs:
        form = {"uid": {"type": "Group", "id": child}, "attrs": {}, "parents": []}
        forms.setdefault(child, form)["parents"].append({"type": "Group", "id": parent})
    return list(forms.values())


@pytest.mark.parametrize(
    "pairs",
    [[("a", "a")], [("a", "b"), ("b", "a")], [("x", "y"), ("y", "a"), ("a", "b"), ("b", "y")]],
)
def test_entities_that_are_in_themselves_are_refused_as_cedarpy_refuses_them(pairs: Any) -> None:
    with pytest.raises(InvalidEntities, match=r"entity \d: its parents form a cycle"):
        entities_from_json(parented(*pairs))
    with pytest.raises(ValueError, match="transitive closure"):
        cedarpy.Entities.from_json_str(json.dumps(parented(*pairs)))


def test_a_long_chain_of_parents_is_no_cycle() -> None:
    chain = parented(*((str(n), str(n + 1)) for n in range(5_000)))
    assert len(entities_from_json(chain).ancestors(uid("0"))) == 5_001


def test_a_value_nested_too_deeply_is_refused_and_no_crash() -> None:
    value: Any = 1
    for _ in range(20_000):
        value = [value]
    with pytest.raises(InvalidEntities, match="deep"):
        entities_from_json([WHOLE | {"attrs": {"a": value}}])
