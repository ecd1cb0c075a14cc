"""A value as the terms it consists of: what an open set asks of a member."""

from typing import Protocol

import z3

from chartgate.cedar.schema import (
    Attribute,
    ExtensionType,
    PrimitiveType,
    RecordType,
    SetType,
    Type,
)
from chartgate.targets.smt.logic import Number, Truth, term
from chartgate.targets.smt.symbols import (
    Symbol,
    SymBool,
    SymEntity,
    SymIp,
    SymLong,
    SymMeasure,
    SymRecord,
    SymString,
    Unencodable,
)

Key = tuple[z3.ExprRef, ...]


class Names(Protocol):
    """How texts are written for the solver."""

    @property
    def texts(self) -> bool:
        """Whether they are texts there, not numbers."""

    def string_term(self, value: "str | z3.ExprRef") -> z3.ExprRef:
        """One of them."""


def flat(names: Names, kind: Type, value: Symbol) -> Key:
    """The terms that a value consists of: equal for equal values, and only for them."""
    match value:
        case SymBool(truth):
            return (term(truth),)
        case SymLong(number) | SymMeasure(_, number) | SymEntity(_, number):
            return (as_term(number),)
        case SymString(text):
            return (names.string_term(text),)
        case SymIp(is_v6, address, free):
            return (term(is_v6), address, free)
        case SymRecord(fields) if isinstance(kind, RecordType):
            return tuple(
                part
                for name, attribute in sorted(kind.attributes.items())
                for part in _flat_field(names, attribute, fields.get(name))
            )
    raise Unencodable("a set of sets that is not written out")


def _flat_field(names: Names, attribute: Attribute, found: tuple[Truth, Symbol] | None) -> Key:
    """An optional attribute is whether it is there, and what it is or, where it is not, nothing."""
    if attribute.required and found is not None:
        return flat(names, attribute.type, found[1])
    blank = _blank(names, attribute.type)
    if found is None or found[0] is False:
        return (z3.BoolVal(False), *blank)
    there = term(found[0])
    parts = flat(names, attribute.type, found[1])
    return (there, *(z3.If(there, part, no) for part, no in zip(parts, blank, strict=True)))


def _blank(names: Names, kind: Type) -> Key:
    """What stands for a value that is not there."""
    match kind:
        case PrimitiveType("Bool"):
            return (z3.BoolVal(False),)
        case PrimitiveType("String"):
            return (z3.StringVal("") if names.texts else z3.IntVal(0),)
        case ExtensionType("ipaddr"):
            return (z3.BoolVal(False), z3.BitVecVal(0, 128), z3.BitVecVal(0, 128))
        case SetType():
            raise Unencodable("a set of records that hold sets")
        case RecordType(attributes):
            return tuple(
                part
                for _, attribute in sorted(attributes.items())
                for part in (
                    *(() if attribute.required else (z3.BoolVal(False),)),
                    *_blank(names, attribute.type),
                )
            )
    return (z3.IntVal(0),)


def as_term(number: Number) -> z3.ArithRef:
    """A number as the solver has it."""
    return z3.IntVal(number) if isinstance(number, int) else number
