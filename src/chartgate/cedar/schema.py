"""What a Cedar schema says, as values: entity types, enumerations, actions (Cedar "Schema syntax").

cedarpy validates against the schema text itself; these values are for those who must know a type:
the entity reader, the SQL filter, the lints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal as OneOf
from typing import TypeAlias

from chartgate.model.principal import EntityUid


@dataclass(frozen=True, slots=True)
class PrimitiveType:
    """``Bool``, ``Long`` or ``String``."""

    name: OneOf["Bool", "Long", "String"]


@dataclass(frozen=True, slots=True)
class ExtensionType:
    """``decimal``, ``ipaddr``, ``datetime`` or ``duration``."""

    name: OneOf["decimal", "ipaddr", "datetime", "duration"]


@dataclass(frozen=True, slots=True)
class EntityRef:
    """An entity of a named type."""

    name: str


@dataclass(frozen=True, slots=True)
class SetType:
    """A set of one element type."""

    element: "Type"


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute's type and whether it must be there."""

    type: "Type"
    required: bool = True


@dataclass(frozen=True, slots=True)
class RecordType:
    """A record: attributes by name."""

    attributes: Mapping[str, Attribute]


Type: TypeAlias = PrimitiveType | ExtensionType | EntityRef | SetType | RecordType


@dataclass(frozen=True, slots=True)
class EntityType:
    """An entity type. ``enum`` lists the only ids it has, where the schema fixes them."""

    name: str
    attributes: Mapping[str, Attribute]
    parents: frozenset[str] = frozenset()
    tags: Type | None = None
    enum: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """An action: whom and what it applies to, its context, and the groups it is in."""

    uid: EntityUid
    principals: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    context: RecordType = field(default_factory=lambda: RecordType({}))
    parents: frozenset[EntityUid] = frozenset()


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema: its declarations, and the text that the validator reads."""

    file: str
    text: str = field(repr=False)
    entities: Mapping[str, EntityType]
    actions: Mapping[EntityUid, Action]
