"""Cedar values of which only the type is known: made of solver terms, one shape per type.

A ``Long`` is an unbounded integer kept within 64 bits by facts, so that an overflow is seen as the
error that it is. An entity is the number of its id within its type. A set is the values it is known
to hold, each under a condition, and, where it is open, a predicate on all others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import z3

from chartgate.cedar.schema import (
    EntityRef,
    ExtensionType,
    PrimitiveType,
    RecordType,
    SetType,
    Type,
)
from chartgate.targets.smt.logic import Number, Truth


class Unencodable(Exception):
    """A policy says something that is not translated; the message names the construct."""


@dataclass(frozen=True, slots=True, eq=False)
class SymBool:
    """A Bool."""

    term: Truth


@dataclass(frozen=True, slots=True, eq=False)
class SymLong:
    """A Long."""

    term: Number


@dataclass(frozen=True, slots=True, eq=False)
class SymString:
    """A String: known, or the number of a text, or a text of the solver's."""

    term: "str | z3.ExprRef"


@dataclass(frozen=True, slots=True, eq=False)
class SymEntity:
    """An entity: its type is always known, its id is the number it has in that type."""

    type: str
    code: Number


@dataclass(frozen=True, slots=True, eq=False)
class SymMeasure:
    """A ``decimal``, ``datetime`` or ``duration``: units in 64 bits."""

    kind: str
    term: Number


@dataclass(frozen=True, slots=True, eq=False)
class SymIp:
    """An ``ipaddr``: the address as written in 128 bits, and how many of its bits are free."""

    is_v6: Truth
    address: z3.BitVecRef
    free: z3.BitVecRef


@dataclass(frozen=True, slots=True, eq=False)
class SymRecord:
    """A record: each attribute with the condition under which it is there."""

    fields: Mapping[str, tuple[Truth, "Symbol"]]


class Rest(Protocol):
    """The open part of a set."""

    def has(self, value: "Symbol") -> Truth:
        """Whether the value is in it."""


@dataclass(frozen=True, slots=True, eq=False)
class SymSet:
    """A set: values under conditions, and an open rest."""

    items: tuple[tuple[Truth, "Symbol"], ...] = ()
    rest: Rest | None = None
    element: Type | None = field(default=None)


Symbol: TypeAlias = (
    SymBool | SymLong | SymString | SymEntity | SymMeasure | SymIp | SymRecord | SymSet
)


def name_of(kind: Type) -> str:
    """A type's text: equal for equal types."""
    match kind:
        case PrimitiveType(name) | ExtensionType(name) | EntityRef(name):
            return name
        case SetType(element):
            return f"Set<{name_of(element)}>"
        case RecordType(attributes):
            inner = ",".join(
                f"{name}{'' if a.required else '?'}:{name_of(a.type)}"
                for name, a in sorted(attributes.items())
            )
            return f"{{{inner}}}"
