"""Names of a schema to declarations (Cedar "Schema", name resolution), whichever form they came in.

The rules kept: a name means what Cedar takes it to mean, that is common types before entity types
before built-in ones, the own namespace first; nothing is made of itself, neither a type nor a
group of actions; and a few lines never expand into more than ``MAX_PARTS`` parts, because both
cedarpy and we write a common type out at every place that names it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from typing import Literal as OneOf

from chartgate.cedar.lex import MAX_NESTING, InvalidPolicies
from chartgate.cedar.schema import (
    Action,
    Attribute,
    EntityRef,
    EntityType,
    ExtensionType,
    PrimitiveType,
    RecordType,
    SetType,
    Type,
)
from chartgate.model.principal import EntityUid

# Far above the schema of any hospital; the resolved schema stays within some tens of megabytes.
MAX_PARTS: Final = 100_000
# Common types made of common types: each costs a few frames here and in every reader of a type.
MAX_TYPE_DEPTH: Final = 2 * MAX_NESTING

# Entity types, and actions, each: cedarpy's closure over their parents is quadratic and more.
MAX_DECLARED: Final = 1_000

BUILTIN: Final[Mapping[str, Type]] = MappingProxyType(
    {
        "Bool": PrimitiveType("Bool"),
        "Long": PrimitiveType("Long"),
        "String": PrimitiveType("String"),
        "decimal": ExtensionType("decimal"),
        "ipaddr": ExtensionType("ipaddr"),
        "datetime": ExtensionType("datetime"),
        "duration": ExtensionType("duration"),
    }
)

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A type still by name, with the place it is named at; ``kind`` says what it may be."""

    path: Path
    namespace: Path
    place: str
    kind: OneOf["any", "entity", "common"] = "any"


@dataclass(frozen=True, slots=True)
class SetOf:
    """A set whose element is still by name."""

    element: "Raw"


@dataclass(frozen=True, slots=True)
class RecordOf:
    """A record whose attributes are still by name; the flag says whether each must be there."""

    attributes: Mapping[str, tuple["Raw", bool]]


Raw = Named | SetOf | RecordOf


@dataclass(slots=True)
class RawEntity:
    """An entity type as written."""

    place: str
    shape: Raw = field(default_factory=lambda: RecordOf({}))
    parents: list[Named] = field(default_factory=list)
    tags: Raw | None = None
    enum: tuple[str, ...] | None = None


@dataclass(slots=True)
class RawAction:
    """An action as written; a group is its path, if it has one, and its id."""

    place: str
    namespace: Path
    groups: list[tuple[Path | None, str]] = field(default_factory=list)
    principals: list[Named] = field(default_factory=list)
    resources: list[Named] = field(default_factory=list)
    context: Raw | None = None


@dataclass(slots=True)
class RawSchema:
    """Everything a schema declares, by name."""

    file: str
    entities: dict[Path, RawEntity] = field(default_factory=dict)
    types: dict[Path, Raw] = field(default_factory=dict)
    actions: dict[EntityUid, RawAction] = field(default_factory=dict)

    def stumble(self, place: str, reason: str) -> InvalidPolicies:
        """The fault at a place of this schema."""
        return InvalidPolicies(f"{self.file}:{place}: {reason}")

    def add_entity(self, path: Path, declared: RawEntity) -> None:
        """One more entity type; a second of the same name is a fault."""
        if path in self.entities:
            raise self.stumble(declared.place, f"entity {'::'.join(path)} is declared twice")
        self.entities[path] = declared

    def add_type(self, path: Path, declared: Raw, place: str) -> None:
        """One more common type; a second of the same name is a fault."""
        if path in self.types:
            raise self.stumble(place, f"type {'::'.join(path)} is declared twice")
        self.types[path] = declared

    def add_action(self, uid: EntityUid, declared: RawAction) -> None:
        """One more action; a second of the same name is a fault."""
        if uid in self.actions:
            raise self.stumble(declared.place, f"action {uid.id} is declared twice")
        self.actions[uid] = declared


@dataclass(frozen=True, slots=True)
class Declarations:
    """Everything a schema declares, resolved."""

    entities: dict[str, EntityType]
    actions: dict[EntityUid, Action]


def resolve(schema: RawSchema) -> Declarations:
    """The declarations with every name replaced by what it means."""
    if max(len(schema.entities), len(schema.actions)) > MAX_DECLARED:
        raise schema.stumble("1", f"more than {MAX_DECLARED} entity types or actions")
    return _Resolver(schema).declarations()


class _Resolver:
    def __init__(self, schema: RawSchema) -> None:
        self.schema = schema
        self.resolving: list[Path] = []
        self.depth = 0
        self.parts = 0

    def declarations(self) -> Declarations:
        entities = {}
        for path, raw in self.schema.entities.items():
            name = "::".join(path)
            entities[name] = EntityType(
                name=name,
                attributes=self.record(raw.shape, raw.place, f"entity {name}").attributes,
                parents=frozenset(map(self.entity, raw.parents)),
                tags=None if raw.tags is None else self.type(raw.tags),
                enum=raw.enum,
            )
        actions = {uid: self.action(uid, raw) for uid, raw in self.schema.actions.items()}
        self.no_cycle(actions)
        return Declarations(entities, actions)

    def action(self, uid: EntityUid, raw: RawAction) -> Action:
        context = RecordOf({}) if raw.context is None else raw.context
        return Action(
            uid=uid,
            principals=tuple(map(self.entity, raw.principals)),
            resources=tuple(map(self.entity, raw.resources)),
            context=self.record(context, raw.place, f"the context of action {uid.id}"),
            parents=frozenset(self.group(raw, path, name) for path, name in raw.groups),
        )

    def record(self, raw: Raw, place: str, of: str) -> RecordType:
        made = self.type(raw)
        if not isinstance(made, RecordType):
            raise self.schema.stumble(place, f"{of} is not a record")
        return made

    def spellings(self, name: Named) -> list[Path]:
        own = (*name.namespace, *name.path)
        return [own, name.path] if len(name.path) == 1 and name.namespace else [name.path]

    def entity(self, name: Named) -> str:
        for path in self.spellings(name):
            if path in self.schema.entities or path[-1] == "Action":
                return "::".join(path)
        raise self.schema.stumble(name.place, f"no entity type {'::'.join(name.path)}")

    def type(self, raw: Raw) -> Type:
        self.parts += 1
        self.depth += 1
        if self.parts > MAX_PARTS or self.depth > MAX_TYPE_DEPTH:
            place = raw.place if isinstance(raw, Named) else "1"
            raise self.schema.stumble(place, "the types, written out, are too large")
        made = self.written_out(raw)
        self.depth -= 1
        return made

    def written_out(self, raw: Raw) -> Type:
        if isinstance(raw, SetOf):
            return SetType(self.type(raw.element))
        if isinstance(raw, RecordOf):
            members = raw.attributes.items()
            return RecordType(
                MappingProxyType(
                    {name: Attribute(self.type(kind), need) for name, (kind, need) in members}
                )
            )
        if raw.kind == "entity":
            return EntityRef(self.entity(raw))
        for path in self.spellings(raw):
            if path in self.schema.types:
                return self.common(path, raw.place)
            if raw.kind == "any" and (path in self.schema.entities or path[-1] == "Action"):
                return EntityRef("::".join(path))
        builtin = raw.path[1:] if raw.path[0] == "__cedar" else raw.path
        if len(builtin) == 1 and builtin[0] in BUILTIN:
            return BUILTIN[builtin[0]]
        raise self.schema.stumble(raw.place, f"no type {'::'.join(raw.path)}")

    def common(self, path: Path, place: str) -> Type:
        if path in self.resolving:
            raise self.schema.stumble(place, f"type {'::'.join(path)} is made of itself")
        self.resolving.append(path)
        made = self.type(self.schema.types[path])
        self.resolving.pop()
        return made

    def group(self, action: RawAction, path: Path | None, name: str) -> EntityUid:
        own = "::".join((*action.namespace, "Action"))
        if path is None or path == ("Action",):
            local = EntityUid(own, name)
            return local if local in self.schema.actions else EntityUid("Action", name)
        return EntityUid("::".join(path), name)

    def no_cycle(self, actions: Mapping[EntityUid, Action]) -> None:
        """A group of actions that is in itself: refused at the action, as Cedar refuses it."""
        settled: set[EntityUid] = set()
        for start in actions:
            for uid in _circle(start, actions, settled):
                raise self.schema.stumble(
                    self.schema.actions[uid].place, f"action {uid.id} is in a group of itself"
                )


def _circle(
    start: EntityUid, actions: Mapping[EntityUid, Action], settled: set[EntityUid]
) -> Iterator[EntityUid]:
    # Depth first with a path of its own: a schema may chain more groups than Python has frames.
    path: dict[EntityUid, Iterator[EntityUid]] = {}
    if start not in settled:
        path[start] = iter(sorted(actions[start].parents))
    while path:
        current = next(reversed(path))
        following = next(path[current], None)
        if following is None:
            settled.add(current)
            del path[current]
        elif following in path:
            yield following
            return
        elif following in actions and following not in settled:
            path[following] = iter(sorted(actions[following].parents))
