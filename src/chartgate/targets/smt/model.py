"""A solver's model as values: the request and the entities of a counterexample."""

from collections.abc import Mapping
from typing import Final

import z3

from chartgate.cedar.schema import Type
from chartgate.cedar.values import (
    CedarSet,
    DateTime,
    Decimal,
    Duration,
    IpAddr,
    RecordValue,
    Value,
)
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.logic import Number, Truth
from chartgate.targets.smt.symbols import (
    Symbol,
    SymBool,
    SymEntity,
    SymIp,
    SymLong,
    SymMeasure,
    SymRecord,
    SymSet,
    SymString,
    name_of,
)
from chartgate.targets.smt.universe import Universe


class Reading:
    """What a model says a symbol is. Ids and texts that nothing names get names of their own."""

    def __init__(
        self, universe: Universe, model: z3.ModelRef, names: Mapping[str, str] | None = None
    ) -> None:
        self._universe: Final = universe
        self._model: Final = model
        self._names: Final = names or {}
        self._new: Final[dict[tuple[str, int], str]] = {}

    def truth(self, value: Truth) -> bool:
        """A truth value."""
        if isinstance(value, bool):
            return value
        return z3.is_true(self._model.eval(value, model_completion=True))

    def number(self, value: Number) -> int:
        """A number."""
        if isinstance(value, int):
            return value
        found = self._model.eval(value, model_completion=True)
        assert isinstance(found, z3.IntNumRef)
        return found.as_long()

    def uid(self, entity: SymEntity) -> EntityUid:
        """An entity."""
        number = self.number(entity.code)
        known = self._universe.ids(entity.type).get(number)
        return EntityUid(
            entity.type, self._new_name(entity.type, number) if known is None else known
        )

    def value(self, symbol: Symbol) -> Value:
        """Any value."""
        match symbol:
            case SymBool(truth):
                return self.truth(truth)
            case SymLong(number):
                return self.number(number)
            case SymMeasure(kind, number):
                units = self.number(number)
                if kind == "decimal":
                    return Decimal(units)
                return DateTime(units) if kind == "datetime" else Duration(units)
            case SymString(text):
                return self._text(text)
            case SymEntity():
                return self.uid(symbol)
            case SymIp():
                return self._ip(symbol)
            case SymRecord(fields):
                return RecordValue(
                    [
                        (name, self.value(v))
                        for name, (there, v) in fields.items()
                        if self.truth(there)
                    ]
                )
            case SymSet():
                return CedarSet.of(self._members(symbol))

    def _members(self, found: SymSet) -> list[Value]:
        members = [self.value(item) for there, item in found.items if self.truth(there)]
        if found.rest is not None and found.element is not None:
            members += self._open(found.element, found)
        return members

    def _open(self, element: Type, found: SymSet) -> list[Value]:
        asked = self._universe.members.get(name_of(element), {})
        rest = found.rest
        assert rest is not None
        return [self.value(v) for v, _ in list(asked.values()) if self.truth(rest.has(v))]

    def _text(self, text: "str | z3.ExprRef") -> str:
        if isinstance(text, str):
            return text
        found = self._model.eval(text, model_completion=True)
        if isinstance(found, z3.IntNumRef):
            number = found.as_long()
            known = self._universe.strings().get(number)
            return self._new_name("text", number) if known is None else known
        assert isinstance(found, z3.SeqRef)
        return "".join(chr(c) for c in _characters(found))

    def _ip(self, ip: SymIp) -> IpAddr:
        version = 6 if self.truth(ip.is_v6) else 4
        address, free = (
            self._model.eval(part, model_completion=True) for part in (ip.address, ip.free)
        )
        assert isinstance(address, z3.BitVecNumRef)
        assert isinstance(free, z3.BitVecNumRef)
        bits = 128 if version == 6 else 32
        return IpAddr(version, address.as_long(), bits - free.as_long())

    def _new_name(self, kind: str, number: int) -> str:
        if (kind, number) not in self._new:
            word = self._names.get(kind, kind)
            taken = set(self._new.values()) | set(self._universe.ids(kind).values())
            taken |= set(self._universe.strings().values())
            self._new[kind, number] = next(
                name for n in range(1, len(taken) + 2) if (name := f"{word} {n}") not in taken
            )
        return self._new[kind, number]


def _characters(text: z3.SeqRef) -> list[int]:
    """The characters of a text of the solver's, whose escapes are ``\\u{…}``."""
    source = text.as_string()
    found: list[int] = []
    at = 0
    while at < len(source):
        if source.startswith("\\u{", at):
            end = source.index("}", at)
            found.append(int(source[at + 3 : end], 16))
            at = end + 1
        else:
            found.append(ord(source[at]))
            at += 1
    return found
