"""What is known of the entities that a request is judged in.

``AnyWorld``: every entity that is asked for is stored, with the attributes that the schema says it
has (Cedar's well-formed requests). ``GateWorld``: what this product stores: the person who asks and
the record she asks for; of any other entity there is its uid and nothing else, so that reading an
attribute of it is an error.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import z3

from chartgate.model.principal import EntityUid
from chartgate.targets.smt.hierarchy import is_action_type
from chartgate.targets.smt.logic import Truth, any_of, both, either
from chartgate.targets.smt.symbols import Symbol, SymEntity, SymRecord, SymString, Unencodable
from chartgate.targets.smt.universe import Closed, Universe

Field = tuple[Truth, Symbol] | None
"""The condition under which an attribute is there, and its value; None: it never is."""


class World(Protocol):
    """Attributes, tags and hierarchy."""

    def attribute(self, entity: SymEntity, name: str) -> Field:
        """An attribute of an entity."""

    def tag(self, entity: SymEntity, name: SymString) -> Field:
        """A tag of an entity."""

    def within(self, child: SymEntity, parent: SymEntity) -> Truth:
        """``child in parent``."""


class AnyWorld:
    """Entity data of any content, as the schema has it."""

    def __init__(self, universe: Universe) -> None:
        self._universe: Final = universe
        self.asked: Final[dict[tuple[str, int], SymEntity]] = {}
        """The entities of which something was asked."""
        self.tagged: Final[dict[tuple[str, int], tuple[SymEntity, list[SymString]]]] = {}
        """The tags that were asked for."""

    def attribute(self, entity: SymEntity, name: str) -> Field:
        attribute = (
            self._universe.schema.entities[entity.type].attributes.get(name)
            if (entity.type in self._universe.schema.entities)
            else None
        )
        if attribute is None:
            return None
        key = (self.note(entity),)
        path = f"{entity.type}.{name}"
        there: Truth = True if attribute.required else self._universe.truth(f"{path}?", key)
        return there, self._universe.make(attribute.type, path, key)

    def tag(self, entity: SymEntity, name: SymString) -> Field:
        kind = self._universe.schema.entities.get(entity.type)
        if kind is None or kind.tags is None:
            return None
        code = self.note(entity)
        key = (code, self._universe.string_term(name.term))
        self.tagged.setdefault((entity.type, code.get_id()), (entity, []))[1].append(name)
        path = f"{entity.type}#tag"
        return self._universe.truth(f"{path}?", key), self._universe.make(kind.tags, path, key)

    def within(self, child: SymEntity, parent: SymEntity) -> Truth:
        return self._universe.within(child, parent)

    def note(self, entity: SymEntity) -> z3.ExprRef:
        """Remember that the entity was asked for; its number as a term."""
        code = z3.IntVal(entity.code) if isinstance(entity.code, int) else entity.code
        self.asked.setdefault((entity.type, code.get_id()), SymEntity(entity.type, code))
        return code


class GateWorld:
    """The person who asks, the record, and the hierarchies of roles and purposes."""

    def __init__(
        self,
        universe: Universe,
        stored: tuple[tuple[SymEntity, SymRecord], ...],
        member: tuple[SymEntity, Mapping[str, Truth]],
        hierarchy: Closed,
        role: str = "Role",
    ) -> None:
        self._universe: Final = universe
        self._stored: Final = stored
        self._person, self._roles = member
        self._hierarchy: Final = hierarchy
        self._role: Final = role
        if len({entity.type for entity, _ in stored}) != len(stored):
            raise Unencodable("a record of the same type as the person who asks for it")

    def attribute(self, entity: SymEntity, name: str) -> Field:
        for known, attributes in self._stored:
            if known.type != entity.type:
                continue
            field = attributes.fields.get(name)
            if field is None:
                return None
            return both(self._universe.same_entity(known, entity), field[0]), field[1]
        return None

    def tag(self, entity: SymEntity, name: SymString) -> Field:
        raise Unencodable("tags of entities: none are kept")

    def within(self, child: SymEntity, parent: SymEntity) -> Truth:
        universe = self._universe
        same = universe.same_entity(child, parent)
        if is_action_type(child.type):
            # No action is stored: to the gate it is in itself and in no group.
            return same
        if universe.is_known_type(child.type):
            return universe.within(child, parent, self._hierarchy)
        if child.type != self._person.type or parent.type != self._role:
            return same
        is_person = universe.same_entity(child, self._person)
        return either(same, both(is_person, self._holds(parent)))

    def _holds(self, role: SymEntity) -> Truth:
        """Whether the person has the role, by herself or by one that is in it."""
        return any_of(
            both(
                held,
                self.within(self._universe.entity(EntityUid(self._role, name)), role),
            )
            for name, held in self._roles.items()
        )
