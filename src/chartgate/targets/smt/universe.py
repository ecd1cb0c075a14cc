"""Everything one question to the solver is about: numbers for names, facts, what sets may hold.

What the encoding rests on, and why nothing is lost by it:

1.  Ids and texts are only ever compared for being the same (``like`` asks for the solver's own
    texts), so each is a number; numbers that no literal has stand for all the others.
2.  A statement about all members of an open set is true or has a witness. It becomes a truth value
    with two consequences: where it is false, for one fresh witness it is false; where it is true,
    it is true for every member that the question mentions. Members that the question mentions
    nowhere could be left out of every set without changing an answer, so this is exact.
3.  ``in`` is what a relation between the mentioned entities says. It is transitive and without
    cycles, as Cedar requires of entity data, and every such relation is that of some entity data.
4.  Types of which all members are known (enumerations, roles, purposes, actions) have no others;
    but where ``data`` names attributes that a database fills, anything may stand there.
"""

from collections.abc import Callable, Mapping
from typing import Final

import z3

from chartgate.cedar.schema import (
    EntityRef,
    ExtensionType,
    PrimitiveType,
    RecordType,
    Schema,
    SetType,
    Type,
)
from chartgate.cedar.values import I64_MAX, I64_MIN
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.flat import Key, as_term, flat
from chartgate.targets.smt.hierarchy import action_groups, is_action_type, types_above
from chartgate.targets.smt.logic import (
    Number,
    Truth,
    any_of,
    both,
    either,
    implies,
    negated,
    same_number,
    term,
)
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
    Unencodable,
    name_of,
)

Closed = Mapping[str, Mapping[str, frozenset[str]]]
"""Type -> id -> the ids of its own type that it is in, itself included; there are no other ids."""


class Universe:
    """The names, facts and open sets of one question."""

    def __init__(
        self, schema: Schema, closed: Closed, *, texts: bool, data: tuple[str, ...] = ()
    ) -> None:
        self.schema: Final = schema
        self.closed: Final = closed
        self.texts: Final = texts
        """Whether strings are the solver's texts (some ``like``) or mere numbers."""
        self._data: Final = data
        """How the names of values begin that no list of members holds for."""
        self.facts: Final[list[z3.BoolRef]] = []
        self.members: Final[dict[str, dict[tuple[int, ...], tuple[Symbol, Key]]]] = {}
        """Per type of member: each value asked for, with the terms it consists of."""
        self.placed: Final[dict[str, dict[tuple[bool, int], SymEntity]]] = {}
        self._codes: Final[dict[str, dict[str, int]]] = {}
        self._groups: Final = action_groups(schema)
        for uid in schema.actions:
            self.code(uid)
        for name, kind in schema.entities.items():
            if kind.enum is not None:
                self._codes[name] = {id_: n for n, id_ in enumerate(kind.enum)}
        for name, ids in closed.items():
            self._codes[name] = {id_: n for n, id_ in enumerate(ids)}
        self._finite: Final = {
            name: len(self._codes[name])
            for name in self._codes
            if name not in schema.entities or name in closed or schema.entities[name].enum
        }
        self._strings: Final[dict[str, int]] = {}
        self._above: Final = types_above(schema)
        self._made: Final[dict[tuple[str, tuple[int, ...]], Symbol]] = {}
        self._functions: Final[dict[str, z3.FuncDeclRef]] = {}
        self._universal: Final[list[tuple[Truth, Type, Callable[[Symbol], Truth], int]]] = []
        self._inside_known: Final[
            dict[tuple[object, ...], tuple[Truth, SymEntity, SymEntity, Closed]]
        ] = {}
        self._count = 0

    def add(self, fact: Truth) -> None:
        """Something that is so."""
        self.facts.append(term(fact))

    # --- names -------------------------------------------------------------------------------

    def code(self, uid: EntityUid) -> int:
        """The number of an entity's id within its type."""
        codes = self._codes.setdefault(uid.type, {})
        return codes.setdefault(uid.id, len(codes))

    def entity(self, uid: EntityUid) -> SymEntity:
        """A known entity."""
        return SymEntity(uid.type, self.code(uid))

    def ids(self, kind: str) -> Mapping[int, str]:
        """The ids of a type that have a number so far."""
        return {n: id_ for id_, n in self._codes.get(kind, {}).items()}

    def strings(self) -> Mapping[int, str]:
        """The texts that have a number so far."""
        return {n: text for text, n in self._strings.items()}

    def string_term(self, value: "str | z3.ExprRef") -> z3.ExprRef:
        """A text as the solver has it."""
        if not isinstance(value, str):
            return value
        if not self.texts:
            return z3.IntVal(self._strings.setdefault(value, len(self._strings)))
        if any(ord(c) > _LAST_CHARACTER for c in value):
            raise Unencodable("a text with a character beyond U+2FFFF")
        return z3.StringVal("".join(f"\\u{{{ord(c):x}}}" for c in value))

    # --- values ------------------------------------------------------------------------------

    def fresh(self, kind: Type, name: str) -> Symbol:
        """A value of the type, any there is."""
        self._count += 1
        return self.make(kind, f"{name}!{self._count}", ())

    def make(self, kind: Type, name: str, key: Key) -> Symbol:
        """The value of the type that ``name`` has for ``key``: for equal keys the same value."""
        index = (name, tuple(part.get_id() for part in key))
        if index not in self._made:
            self._made[index] = self._build(kind, name, key)
        return self._made[index]

    def truth(self, name: str, key: Key = ()) -> z3.BoolRef:
        """A truth value of that name."""
        found = self._leaf(name, key, z3.BoolSort())
        assert isinstance(found, z3.BoolRef)
        return found

    def fresh_truth(self, name: str) -> z3.BoolRef:
        """A truth value of its own."""
        self._count += 1
        return self.truth(f"{name}!{self._count}")

    def _build(self, kind: Type, name: str, key: Key) -> Symbol:
        match kind:
            case PrimitiveType("Bool"):
                return SymBool(self.truth(name, key))
            case PrimitiveType("Long"):
                return SymLong(self._in_i64(name, key))
            case PrimitiveType():
                sort = z3.StringSort() if self.texts else z3.IntSort()
                return SymString(self._leaf(name, key, sort))
            case ExtensionType("ipaddr"):
                return self._ip(name, key)
            case ExtensionType(measure):
                return SymMeasure(measure, self._in_i64(name, key))
            case EntityRef(type_):
                return SymEntity(type_, self._id(type_, name, key))
            case SetType(element):
                return SymSet(rest=_Open(self, name, key, element), element=element)
            case RecordType(attributes):
                fields: dict[str, tuple[Truth, Symbol]] = {}
                for attr, a in attributes.items():
                    inner = f"{name}.{attr}"
                    there: Truth = True if a.required else self.truth(f"{inner}?", key)
                    fields[attr] = (there, self.make(a.type, inner, key))
                return SymRecord(fields)

    def _in_i64(self, name: str, key: Key) -> z3.ArithRef:
        found = self._leaf(name, key, z3.IntSort())
        assert isinstance(found, z3.ArithRef)
        self.facts.append(z3.And(found >= I64_MIN, found <= I64_MAX))
        return found

    def _id(self, kind: str, name: str, key: Key) -> z3.ArithRef:
        found = self._leaf(name, key, z3.IntSort())
        assert isinstance(found, z3.ArithRef)
        if kind in self._finite and not name.startswith(self._data):
            self.facts.append(z3.And(found >= 0, found < self._finite[kind]))
        return found

    def _ip(self, name: str, key: Key) -> SymIp:
        is_v6 = self.truth(f"{name}.v6", key)
        address = self._leaf(f"{name}.address", key, z3.BitVecSort(128))
        free = self._leaf(f"{name}.free", key, z3.BitVecSort(128))
        assert isinstance(address, z3.BitVecRef)
        assert isinstance(free, z3.BitVecRef)
        self.facts.append(z3.ULE(free, z3.If(is_v6, z3.BitVecVal(128, 128), z3.BitVecVal(32, 128))))
        self.facts.append(z3.Or(is_v6, z3.ULT(address, z3.BitVecVal(1 << 32, 128))))
        return SymIp(is_v6, address, free)

    def _leaf(self, name: str, key: Key, sort: z3.SortRef) -> z3.ExprRef:
        if not key:
            return z3.Const(name, sort)
        return self.function(name, key, sort)(*key)

    def function(self, name: str, key: Key, sort: z3.SortRef) -> z3.FuncDeclRef:
        """The function of that name."""
        if name not in self._functions:
            self._functions[name] = z3.Function(name, *(part.sort() for part in key), sort)
        return self._functions[name]

    # --- open sets ---------------------------------------------------------------------------

    def mention(self, element: Type, value: Symbol) -> None:
        """Take note that some open set of such members is asked for this value."""
        parts = flat(self, element, value)
        known = self.members.setdefault(name_of(element), {})
        known.setdefault(tuple(part.get_id() for part in parts), (value, parts))

    def every(self, element: Type, says: Callable[[Symbol], Truth]) -> Truth:
        """Whether ``says`` is true of every value; see (2) above."""
        holds = self.fresh_truth("every")
        witness = self.fresh(element, "witness")
        self.mention(element, witness)
        self.facts.append(term(either(holds, negated(says(witness)))))
        self._universal.append((holds, element, says, 0))
        return holds

    # --- hierarchy ---------------------------------------------------------------------------

    def is_known_type(self, kind: str) -> bool:
        """Whether all entities of the type, and what they are in, are known."""
        return kind in self.closed or is_action_type(kind)

    def same_entity(self, left: SymEntity, right: SymEntity) -> Truth:
        """Whether two entities are one."""
        return left.type == right.type and same_number(left.code, right.code)

    def within(self, child: SymEntity, parent: SymEntity, hierarchy: Closed | None = None) -> Truth:
        """``child in parent``, for entities of which nothing but their types is known.

        ``hierarchy``: what known ids are in, where it is not what the universe began with.
        """
        same = self.same_entity(child, parent)
        if same is True:
            return True
        if self.is_known_type(child.type):
            return either(same, self._within_known(child, parent, hierarchy or self.closed))
        if parent.type not in self._above.get(child.type, frozenset()):
            return same
        self._place(child)
        self._place(parent)
        return either(same, self._inside(child, parent))

    def _within_known(self, child: SymEntity, parent: SymEntity, known: Closed) -> Truth:
        index = (id(known), child.type, _index(child.code), parent.type, _index(parent.code))
        if index not in self._inside_known:
            self._inside_known[index] = (self._pairs(child, parent, known), child, parent, known)
        return self._inside_known[index][0]

    def _pairs(self, child: SymEntity, parent: SymEntity, known: Closed) -> Truth:
        found: list[Truth] = []
        for id_, number in list(self._codes[child.type].items()):
            if isinstance(child.code, int) and child.code != number:
                continue
            above = [
                same_number(parent.code, self.code(uid))
                for uid in self._ancestors(EntityUid(child.type, id_), known)
                if uid.type == parent.type
            ]
            # In this order: most ids are not in what is asked for.
            if (is_in := any_of(above)) is not False:
                found.append(both(is_in, same_number(child.code, number)))
        return any_of(found)

    def _ancestors(self, uid: EntityUid, known: Closed) -> frozenset[EntityUid]:
        if is_action_type(uid.type):
            return self._groups.get(uid, frozenset())
        above = known.get(uid.type, {}).get(uid.id, frozenset())
        return frozenset(EntityUid(uid.type, id_) for id_ in above)

    def _place(self, entity: SymEntity) -> None:
        self.placed.setdefault(entity.type, {})[_index(entity.code)] = entity

    def _inside(self, child: SymEntity, parent: SymEntity) -> z3.BoolRef:
        ends = (as_term(child.code), as_term(parent.code))
        return self.truth(f"in:{child.type}:{parent.type}", ends)

    # --- what is asked of the solver ------------------------------------------------------------

    def closure(self) -> list[z3.BoolRef]:
        """All facts, with what is universal said of everything that was mentioned."""
        while True:
            before = len(self.facts)
            for at, (holds, element, says, done) in enumerate(list(self._universal)):
                values = list(self.members.get(name_of(element), {}).values())
                for value, _ in values[done:]:
                    self.facts.append(term(implies(holds, says(value))))
                self._universal[at] = (holds, element, says, len(values))
            if len(self.facts) == before:
                break
        return [*self.facts, *self._order()]

    def _order(self) -> list[z3.BoolRef]:
        found: list[z3.BoolRef] = []
        for low, lows in self.placed.items():
            for middle in self._above.get(low, frozenset()):
                middles = self.placed.get(middle, {})
                for a in lows.values():
                    if low == middle:
                        found.append(z3.Not(self._inside(a, a)))
                    for b in middles.values():
                        for high in self._above.get(middle, frozenset()):
                            found += [
                                z3.Implies(
                                    z3.And(self._inside(a, b), self._inside(b, c)),
                                    self._inside(a, c),
                                )
                                for c in self.placed.get(high, {}).values()
                            ]
        return found


_LAST_CHARACTER: Final = 0x2FFFF
"""The last character that the solver's texts have."""


class _Open:
    """The open part of a set: a predicate on everything a member consists of."""

    def __init__(self, universe: Universe, name: str, key: Key, element: Type) -> None:
        self._universe: Final = universe
        self._name: Final = name
        self._key: Final = key
        self._element: Final = element

    def has(self, value: Symbol) -> Truth:
        self._universe.mention(self._element, value)
        parts = (*self._key, *flat(self._universe, self._element, value))
        return self._universe.truth(f"{self._name}∋", parts)


def _index(number: Number) -> tuple[bool, int]:
    """Something that is equal for equal numbers; a term must be kept as long as its index."""
    return (True, number) if isinstance(number, int) else (False, number.get_id())
