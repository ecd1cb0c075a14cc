"""Hypothesis strategies for a small schema, and for entities and requests that conform to it.

The pools are small on purpose: two random expressions must often meet in a value, or every
comparison is false. They hold the edges of every type, and texts that have broken programs before.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

from chartgate.cedar.entities import Entity, entities_from_json, record_from_json
from chartgate.cedar.evaluate import Env
from chartgate.cedar.schema import (
    Action,
    Attribute,
    EntityRef,
    EntityType,
    ExtensionType,
    PrimitiveType,
    RecordType,
    Schema,
    SetType,
    Type,
)
from chartgate.model.principal import EntityUid

T = TypeVar("T")

BOOL, LONG, STRING = PrimitiveType("Bool"), PrimitiveType("Long"), PrimitiveType("String")
DECIMAL, IP = ExtensionType("decimal"), ExtensionType("ipaddr")
DATETIME, DURATION = ExtensionType("datetime"), ExtensionType("duration")

LONGS = (0, 1, 2, -1, 7, 2**31, 2**63 - 1, -(2**63), 2**63 - 2)
STRINGS = (
    "", "a", "ab", "a*b", "x\ny", "é𝒳", "e\u0301\U0001d4b3", '"', "\\", "%_", "\0",
    "\u202etxt", "\x1b[31m", "A",
)  # fmt: skip
PATTERN_CHUNKS = ("a", "b", "*b", "x", "%", "_", "\n", "é", "\\", '"')
DECIMALS = ("0.0", "1.5", "-1.5", "1.50", "922337203685477.5807", "-922337203685477.5808")
IPS = (
    "10.0.0.1",
    "10.0.0.0/8",
    "127.0.0.1",
    "127.0.0.0/7",
    "::1",
    "ff02::1/8",
    "::/0",
    "224.0.0.0/3",
)
DATETIMES = (
    "2026-01-01", "0000-02-29", "2026-01-01T10:00:00.123+0130", "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999-2359", "2026-01-01T00:00:00Z",
)  # fmt: skip
DURATIONS = ("0ms", "1d2h", "-1h", "60m", "1h", "9223372036854775807ms", "-9223372036854775808ms")
NAMES = ("a", "b", "c", "if", "odd name", "é", "n\u202e", "principal")
IDS = ("x", "y", 'q"\\', "\u0001é", "")
TAGS = ("t", "a", "\u202e")

SCALARS: tuple[Type, ...] = (BOOL, LONG, STRING, DECIMAL, IP, DATETIME, DURATION)
CONSTRUCTORS = {
    "decimal": "decimal",
    "ipaddr": "ip",
    "datetime": "datetime",
    "duration": "duration",
}
TEXTS: Mapping[str, Sequence[str]] = {
    "decimal": DECIMALS, "ipaddr": IPS, "datetime": DATETIMES, "duration": DURATIONS,
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class World:
    """A schema and everything a request is judged in, as values and in Cedar's JSON form."""

    schema: Schema
    forms: list[dict[str, Any]]
    request: dict[str, Any]
    env: Env

    @property
    def entities(self) -> list[Entity]:
        """The stored entities and the schema's actions, one by one."""
        uids = [EntityUid(form["uid"]["type"], form["uid"]["id"]) for form in self.forms]
        found = map(self.env.entities.get, (*uids, *self.schema.actions))
        return [entity for entity in found if entity is not None]

    def __repr__(self) -> str:
        return f"World(request={self.request!r}, entities={json.dumps(self.forms)})"


class Draw:
    """Choices, one by one, made by Hypothesis or, where there are many to make, by dice."""

    def __init__(self, up_to: Callable[[int], int]) -> None:
        self.number = up_to

    @classmethod
    def of(cls, draw: st.DrawFn) -> "Draw":
        return cls(lambda most: draw(st.integers(0, most)))

    @classmethod
    def dice(cls, seed: int) -> "Draw":
        random = Random(seed)
        return cls(lambda most: random.randint(0, most))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.number(len(options) - 1)] if len(options) > 1 else options[0]

    def chance(self, of: int) -> bool:
        """True once in ``of`` times; shrinks toward False."""
        return self.number(of - 1) == of - 1


def is_whole(kind: Type) -> bool:
    """Whether every part must be there, so that a literal has this very type."""
    if isinstance(kind, SetType):
        return is_whole(kind.element)
    if isinstance(kind, RecordType):
        return all(a.required and is_whole(a.type) for a in kind.attributes.values())
    return True


def any_type(d: Draw, entities: Sequence[str], depth: int) -> Type:
    choice = d.number(11)
    if depth and choice == 11:
        return SetType(any_type(d, entities, depth - 1))
    if depth and choice == 10:
        return RecordType(attributes(d, entities, depth - 1, most=3))
    if choice >= 7:
        return EntityRef(d.pick(entities))
    return SCALARS[choice]


def attributes(d: Draw, entities: Sequence[str], depth: int, *, most: int) -> dict[str, Attribute]:
    made = {}
    for _ in range(d.number(most)):
        kind = any_type(d, entities, depth)
        made[d.pick(NAMES)] = Attribute(kind, required=not d.chance(3))
    return made


def draw_schema(d: Draw) -> Schema:
    """Users in groups in groups; records; an enumeration; two actions in a group of actions."""
    space = d.pick(("", "N::"))
    user, group, record, colour = (f"{space}{name}" for name in ("User", "Group", "Rec", "Colour"))
    names = (user, group, record, colour)

    def entity(name: str, *parents: str) -> EntityType:
        tags = any_type(d, names, 1) if d.chance(2) else None
        return EntityType(name, attributes(d, names, 2, most=5), frozenset(parents), tags)

    kind = f"{space}Action"
    every = EntityUid(kind, "every")
    context = RecordType(attributes(d, names, 2, most=4))
    resources = (record, group) if d.chance(2) else (record,)
    actions = {
        EntityUid(kind, "view"): Action(
            EntityUid(kind, "view"), (user,), resources, context, frozenset({every})
        ),
        EntityUid(kind, "odd act"): Action(
            EntityUid(kind, "odd act"), (user,), (record,), context, frozenset({every})
        ),
        every: Action(every),
    }
    entities = {
        user: entity(user, group),
        group: entity(group, group),
        record: entity(record, group),
        colour: EntityType(colour, {}, enum=("red", 'gr"een')),
    }
    return Schema("s.json", "", entities, actions)


def uids_of(schema: Schema, name: str) -> list[EntityUid]:
    """The entities of a type that data and policies may mention."""
    if name in schema.entities:
        enum = schema.entities[name].enum
        return [EntityUid(name, one) for one in (IDS if enum is None else enum)]
    return [uid for uid in schema.actions if uid.type == name]


def value_form(d: Draw, schema: Schema, kind: Type) -> Any:
    """A value of the type, in Cedar's explicit JSON form."""
    match kind:
        case PrimitiveType("Bool"):
            return d.pick((False, True))
        case PrimitiveType("Long"):
            return d.pick(LONGS)
        case PrimitiveType():
            return d.pick(STRINGS)
        case ExtensionType(name):
            return {"__extn": {"fn": CONSTRUCTORS[name], "arg": d.pick(TEXTS[name])}}
        case EntityRef(name):
            return {"__entity": d.pick(uids_of(schema, name))._asdict()}
        case SetType(element):
            return [value_form(d, schema, element) for _ in range(d.number(3))]
        case RecordType(members):
            return record_form(d, schema, members)
    raise TypeError(kind)


def record_form(d: Draw, schema: Schema, members: Mapping[str, Attribute]) -> dict[str, Any]:
    return {
        name: value_form(d, schema, member.type)
        for name, member in members.items()
        if member.required or d.chance(2)
    }


def draw_store(d: Draw, schema: Schema) -> list[dict[str, Any]]:
    """Entities that conform to the schema, without cycles; some that are mentioned are absent."""
    forms = []
    for name, declared in schema.entities.items():
        if declared.enum is not None:
            continue
        for number, uid in enumerate(uids_of(schema, name)):
            if d.chance(4):
                continue
            parents: list[EntityUid] = []
            for above in sorted(declared.parents):
                candidates = uids_of(schema, above)
                if above == name:
                    candidates = candidates[number + 1 :]
                parents += [one for one in candidates if d.chance(3)]
            form: dict[str, Any] = {
                "uid": uid._asdict(),
                "attrs": record_form(d, schema, declared.attributes),
                "parents": [parent._asdict() for parent in parents],
            }
            if declared.tags is not None:
                names = [tag for tag in TAGS if d.chance(2)]
                form["tags"] = {tag: value_form(d, schema, declared.tags) for tag in names}
            forms.append(form)
    return forms


def draw_world(d: Draw, schema: Schema) -> World:
    """A store and a request that conform to a schema that has been read."""
    forms = draw_store(d, schema)
    action = d.pick([a for a in schema.actions.values() if a.principals])
    principal = d.pick(uids_of(schema, d.pick(action.principals)))
    resource = d.pick(uids_of(schema, d.pick(action.resources)))
    context = record_form(d, schema, action.context.attributes)
    request = {
        "principal": principal._asdict(),
        "action": action.uid._asdict(),
        "resource": resource._asdict(),
        "context": context,
    }
    entities = entities_from_json(forms, schema)
    env = Env(principal, action.uid, resource, record_from_json(context, {}), entities)
    return World(schema, forms, request, env)
