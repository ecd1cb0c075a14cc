"""The entities that decisions are made on, held in memory: 50,000 people, one changed at a time.

The rules kept: a view never changes, so that a decision sees the state before an update or after
it, never a mix; an update costs what it changes, not what is stored; ``in`` is the reflexive and
transitive closure of the parent relation, and a cycle ends the walk.

A view is a row of small tables of entities. An update copies the tables it touches and the row. An
entity's ancestors are kept with it, filled in when first asked; an update renews every entity below
one whose parents changed, so that whichever views share an entity share its ancestors too.
"""

from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias

from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.values import Value
from chartgate.model.principal import EntityUid

_TABLES: Final = 1024
_MASK: Final = _TABLES - 1
_NO_ATTRIBUTES: Final[Mapping[str, Value]] = {}


class Hierarchy(Protocol):
    """Entities as a decision needs them: attributes, tags and ancestors."""

    def get(self, uid: EntityUid, /) -> Entity | None:
        """The entity, or None."""

    def ancestors(self, uid: EntityUid, /) -> frozenset[EntityUid]:
        """Everything the entity is in, itself included."""


class _Kept:
    """An entity with its ancestors, once they are known."""

    __slots__ = ("ancestors", "entity")

    def __init__(self, entity: Entity) -> None:
        self.entity: Final = entity
        self.ancestors: frozenset[EntityUid] | None = None


Known: TypeAlias = tuple[frozenset[EntityUid], Mapping[str, Value]]
"""An entity's ancestors, itself included, and its attributes."""

_Table: TypeAlias = dict[EntityUid, _Kept]
_NOTHING: Final[_Table] = {}


class EntityView:
    """All entities at one moment. Serves wherever ``chartgate.cedar.entities.Entities`` does."""

    __slots__ = ("_tables", "found")

    def __init__(self, tables: list[_Table]) -> None:
        self._tables: Final = tables
        self.found: Final[dict[EntityUid, Known]] = {}
        """What ``known`` has already told of stored entities: one look-up on the hot path."""

    def get(self, uid: EntityUid, /) -> Entity | None:
        """The entity, or None."""
        kept = self._tables[hash(uid) & _MASK].get(uid)
        return None if kept is None else kept.entity

    def ancestors(self, uid: EntityUid, /) -> frozenset[EntityUid]:
        """Everything the entity is in, itself included."""
        kept = self._tables[hash(uid) & _MASK].get(uid)
        if kept is None:
            return frozenset((uid,))
        return kept.ancestors or self._fill(kept)

    def known(self, uid: EntityUid, /) -> Known:
        """Ancestors and attributes at once."""
        kept = self._tables[hash(uid) & _MASK].get(uid)
        if kept is None:
            # Not remembered: uids that callers make up must not fill the memory.
            return frozenset((uid,)), _NO_ATTRIBUTES
        found = self.found[uid] = (kept.ancestors or self._fill(kept), kept.entity.attrs)
        return found

    def with_(self, *entities: Entity) -> Entities:
        """This view with some entities added or replaced, for one request."""
        held: Any = self
        return Entities(entities, base=held)

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def __iter__(self) -> Iterator[Entity]:
        return (kept.entity for table in self._tables for kept in table.values())

    def _fill(self, kept: _Kept) -> frozenset[EntityUid]:
        # Threads may fill it at the same time; they find the same.
        reached = {kept.entity.uid}
        waiting = [kept.entity]
        while waiting:
            for parent in waiting.pop().parents:
                if parent in reached:
                    continue
                above = self._tables[hash(parent) & _MASK].get(parent)
                if above is None:
                    reached.add(parent)
                elif above.ancestors is not None:
                    reached |= above.ancestors
                else:
                    reached.add(parent)
                    waiting.append(above.entity)
        kept.ancestors = found = frozenset(reached)
        return found


class AnyEntities:
    """Any other hierarchy for the length of one request, with what a view has."""

    __slots__ = ("_held", "ancestors", "found", "get")

    def __init__(self, held: Hierarchy) -> None:
        self._held: Final = held
        self.get: Final = held.get
        self.ancestors: Final = held.ancestors
        self.found: Final[dict[EntityUid, Known]] = {}

    def known(self, uid: EntityUid, /) -> Known:
        """Ancestors and attributes at once."""
        entity = self._held.get(uid)
        attributes = _NO_ATTRIBUTES if entity is None else entity.attrs
        found = self.found[uid] = (self._held.ancestors(uid), attributes)
        return found


class EntityStore:
    """The writer's side: makes the next view out of the present one. ``view`` is always whole."""

    def __init__(self, entities: Iterable[Entity] = ()) -> None:
        self._children: Final[dict[EntityUid, set[EntityUid]]] = {}
        self._lock: Final = Lock()
        self.view = EntityView([_NOTHING] * _TABLES)
        self.update(*entities)

    def update(self, *entities: Entity, removed: Iterable[EntityUid] = ()) -> EntityView:
        """Add or replace entities and remove others, all at once; the new view."""
        with self._lock:
            change = _Change(self.view, self._children)
            for uid in removed:
                change.remove(uid)
            for entity in entities:
                change.put(_plain(entity))
            self.view = view = change.view()
            return view

    def remove(self, *uids: EntityUid) -> EntityView:
        """Remove entities; the new view. What was in them stays in their names."""
        return self.update(removed=uids)


class _Change:
    """The tables of the next view, copied where they are touched."""

    def __init__(self, view: EntityView, children: dict[EntityUid, set[EntityUid]]) -> None:
        self._tables: Final = list(view._tables)  # noqa: SLF001 - two halves of one store
        self._own: Final[set[int]] = set()
        self._children: Final = children
        self._moved: Final[set[EntityUid]] = set()

    def put(self, entity: Entity) -> None:
        table = self._table(entity.uid)
        before = table.get(entity.uid)
        kept = table[entity.uid] = _Kept(entity)
        if before is not None and before.entity.parents == entity.parents:
            kept.ancestors = before.ancestors
        else:
            self._move(entity.uid, before, entity.parents)

    def remove(self, uid: EntityUid) -> None:
        before = self._table(uid).pop(uid, None)
        if before is not None:
            self._move(uid, before, frozenset())

    def view(self) -> EntityView:
        # Whoever is below a changed entity has other ancestors now; views already given out keep
        # the entities, and the ancestors, that they have.
        below = set(self._moved)
        waiting = list(below)
        while waiting:
            fresh = self._children.get(waiting.pop(), set()) - below
            below |= fresh
            waiting.extend(fresh)
        for uid in below:
            table = self._table(uid)
            kept = table.get(uid)
            if kept is not None:
                table[uid] = _Kept(kept.entity)
        return EntityView(self._tables)

    def _table(self, uid: EntityUid) -> _Table:
        place = hash(uid) & _MASK
        if place not in self._own:
            self._own.add(place)
            self._tables[place] = dict(self._tables[place])
        return self._tables[place]

    def _move(self, uid: EntityUid, before: _Kept | None, after: frozenset[EntityUid]) -> None:
        parents = before.entity.parents if before is not None else frozenset()
        for parent in parents - after:
            below = self._children[parent]
            below.discard(uid)
            if not below:
                del self._children[parent]
        for parent in after - parents:
            self._children.setdefault(parent, set()).add(uid)
        if parents != after:
            self._moved.add(uid)


def _plain(entity: Entity) -> Entity:
    # Generated code reads a dictionary several times faster than a record.
    return Entity(entity.uid, dict(entity.attrs), frozenset(entity.parents), dict(entity.tags))
