"""Any request of one kind: principal type, action, resource type; and one of them, made concrete."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from chartgate.cedar.ast import Expr, Like
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.schema import EntityRef, Schema
from chartgate.cedar.values import RecordValue, Value
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import children
from chartgate.targets.smt.encode import Asked
from chartgate.targets.smt.hierarchy import is_action_type
from chartgate.targets.smt.model import Reading
from chartgate.targets.smt.symbols import SymEntity, SymRecord
from chartgate.targets.smt.universe import Universe
from chartgate.targets.smt.worlds import AnyWorld


@dataclass(frozen=True, slots=True)
class RequestKind:
    """What a schema lets be asked: who, what, of what."""

    principal: str
    action: EntityUid
    resource: str


def request_kinds(schema: Schema) -> tuple[RequestKind, ...]:
    """Every kind of request of a schema."""
    return tuple(
        RequestKind(principal, uid, resource)
        for uid, action in schema.actions.items()
        for principal in action.principals
        for resource in action.resources
    )


def uses_texts(conditions: Iterable[Expr]) -> bool:
    """Whether some condition looks into a text: then texts must be the solver's own."""
    return any(isinstance(node, Like) for condition in conditions for node in _walk(condition))


def _walk(expr: Expr) -> Iterator[Expr]:
    waiting = [expr]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(children(node))


class AnyRequest:
    """Any request of a kind, in any entity data that fits the schema."""

    def __init__(self, universe: Universe, kind: RequestKind) -> None:
        self._universe: Final = universe
        self._kind: Final = kind
        self._world: Final = AnyWorld(universe)
        principal = universe.make(EntityRef(kind.principal), "principal", ())
        resource = universe.make(EntityRef(kind.resource), "resource", ())
        context = universe.make(universe.schema.actions[kind.action].context, "context", ())
        assert isinstance(principal, SymEntity)
        assert isinstance(resource, SymEntity)
        assert isinstance(context, SymRecord)
        self.asked: Final = Asked(principal, kind.action, resource, context, self._world)

    def concrete(self, reading: Reading) -> Env:
        """The request that a model describes."""
        asked, world = self.asked, self._world
        for entity in (asked.principal, asked.resource):
            world.note(entity)
        placed = [e for kind in self._universe.placed.values() for e in list(kind.values())]
        for entity in placed:
            world.note(entity)
        symbols = {reading.uid(entity): entity for entity in list(world.asked.values())}
        stored = [
            Entity(
                uid,
                self._attributes(reading, entity),
                frozenset(self._parents(reading, entity, placed)),
                self._tags(reading, entity),
            )
            for uid, entity in symbols.items()
            if not is_action_type(uid.type)
        ]
        actions = [
            Entity(action.uid, parents=action.parents)
            for action in self._universe.schema.actions.values()
        ]
        context = reading.value(asked.context)
        assert isinstance(context, RecordValue)
        return Env(
            reading.uid(asked.principal),
            asked.action,
            reading.uid(asked.resource),
            context,
            Entities((*stored, *actions)),
        )

    def _attributes(self, reading: Reading, entity: SymEntity) -> RecordValue:
        kind = self._universe.schema.entities.get(entity.type)
        found: list[tuple[str, Value]] = []
        for name in kind.attributes if kind else ():
            field = self._world.attribute(entity, name)
            if field is not None and reading.truth(field[0]):
                found.append((name, reading.value(field[1])))
        return RecordValue(found)

    def _tags(self, reading: Reading, entity: SymEntity) -> RecordValue:
        found: list[tuple[str, Value]] = []
        uid = reading.uid(entity)
        for (kind, _), (other, names) in list(self._world.tagged.items()):
            if kind != uid.type or reading.uid(other) != uid:
                continue
            for name in list(names):
                tag = self._world.tag(other, name)
                if tag is not None and reading.truth(tag[0]):
                    found.append((str(reading.value(name)), reading.value(tag[1])))
        return RecordValue(found)

    def _parents(
        self, reading: Reading, entity: SymEntity, placed: list[SymEntity]
    ) -> Iterator[EntityUid]:
        own = reading.uid(entity)
        if self._universe.is_known_type(entity.type):
            for id_ in self._universe.closed.get(entity.type, {}).get(own.id, frozenset()):
                if id_ != own.id:
                    yield EntityUid(own.type, id_)
            return
        for other in placed:
            uid = reading.uid(other)
            # Asked for as it was asked before: nothing new is said of the model.
            if uid != own and reading.truth(self._universe.within(entity, other)):
                yield uid
