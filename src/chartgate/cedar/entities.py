"""The entities a request is evaluated in: attributes, tags and the hierarchy.

Rules kept: ``in`` is the reflexive and transitive closure of the parent relation; an entity that
is not in the store has no attributes and only itself as ancestor; the store never changes, a
request's own entities are laid over it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chartgate.cedar.calls import call
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.extensions import CONSTRUCTORS
from chartgate.cedar.schema import (
    Attribute,
    EntityRef,
    ExtensionType,
    RecordType,
    Schema,
    SetType,
    Type,
)
from chartgate.cedar.values import EMPTY, CedarSet, RecordValue, Value, is_i64
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid


class InvalidEntities(Misconfigured):
    """Entity data is not what Cedar's JSON form allows; the message names the place, no value."""

    code = "invalid_entities"


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity with its direct parents."""

    uid: EntityUid
    attrs: Mapping[str, Value] = EMPTY
    parents: frozenset[EntityUid] = frozenset()
    tags: Mapping[str, Value] = EMPTY


class Entities:
    """An immutable store of entities; ancestors are computed once and kept."""

    __slots__ = ("_ancestors", "_base", "_own")

    def __init__(self, entities: Iterable[Entity] = (), *, base: "Entities | None" = None) -> None:
        self._own: Final = {entity.uid: entity for entity in entities}
        self._base: Final = base
        self._ancestors: Final[dict[EntityUid, frozenset[EntityUid]]] = {}

    def get(self, uid: EntityUid) -> Entity | None:
        """The entity, or None."""
        found = self._own.get(uid)
        if found is None and self._base is not None:
            return self._base.get(uid)
        return found

    def with_(self, *entities: Entity) -> "Entities":
        """This store with some entities added or replaced; costs only what is added."""
        return Entities(entities, base=self)

    def ancestors(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Everything the entity is in, itself included. A cycle among parents ends the walk."""
        known = self._ancestors.get(uid)
        if known is None:
            # Only what is stored is kept: uids that callers make up must not fill the memory.
            if self.get(uid) is None:
                return frozenset((uid,))
            known = self._ancestors[uid] = self._walk(uid)
        return known

    def _walk(self, uid: EntityUid) -> frozenset[EntityUid]:
        reached = {uid}
        waiting = [uid]
        while waiting:
            current = waiting.pop()
            if self._base is not None and current not in self._own:
                # Below this point the base's answer holds, unless the overlay replaces a member.
                below = self._base.ancestors(current)
                if below.isdisjoint(self._own):
                    reached |= below
                    continue
            entity = self.get(current)
            if entity is not None:
                fresh = entity.parents - reached
                reached |= fresh
                waiting.extend(fresh)
        return frozenset(reached)


def entity_uid_from_json(form: Any, where: str = "uid") -> EntityUid:
    """``{"type", "id"}``, bare or inside ``{"__entity": …}``."""
    if isinstance(form, dict) and set(form) == {"__entity"}:
        form = form["__entity"]
    if (
        not isinstance(form, dict)
        or set(form) != {"type", "id"}
        or not isinstance(form["type"], str)
        or not isinstance(form["id"], str)
    ):
        raise InvalidEntities(f"{where}: not an entity uid")
    return EntityUid(form["type"], form["id"])


def value_from_json(form: Any, expected: Type | None = None, where: str = "value") -> Value:
    """A value with its escapes; ``expected`` allows the implicit forms of its type."""
    if isinstance(form, bool | str | int):
        return _scalar(form, expected, where)
    if isinstance(form, list):
        element = expected.element if isinstance(expected, SetType) else None
        return CedarSet.of(value_from_json(item, element, f"{where}[]") for item in form)
    if not isinstance(form, dict):
        raise InvalidEntities(f"{where}: neither null nor fractions are Cedar values")
    if set(form) == {"__entity"}:
        return entity_uid_from_json(form, where)
    if set(form) == {"__extn"}:
        return _extension(form["__extn"], where)
    if isinstance(expected, EntityRef):
        return entity_uid_from_json(form, where)
    if isinstance(expected, ExtensionType) and set(form) == {"fn", "arg"}:
        return _extension(form, where)
    types = expected.attributes if isinstance(expected, RecordType) else {}
    return record_from_json(form, types, where)


def record_from_json(
    form: Any, types: Mapping[str, Attribute], where: str = "record"
) -> RecordValue:
    """An object whose members are values: attributes, tags, or a request's context."""
    if not isinstance(form, dict):
        raise InvalidEntities(f"{where}: not an object")
    return RecordValue(
        (name, value_from_json(item, types[name].type if name in types else None, where))
        for name, item in form.items()
    )


def _scalar(form: bool | int | str, expected: Type | None, where: str) -> Value:
    if isinstance(form, str) and isinstance(expected, ExtensionType):
        fn = "ip" if expected.name == "ipaddr" else expected.name
        return _extension({"fn": fn, "arg": form}, where)
    if isinstance(form, int) and not isinstance(form, bool) and not is_i64(form):
        raise InvalidEntities(f"{where}: a number beyond 64 bits")
    return form


def _extension(form: Any, where: str) -> Value:
    # {"fn", "arg"} for a constructor; {"fn", "args"} for the one function Cedar writes values
    # with that no constructor can spell: a datetime outside the years 0000 to 9999.
    if not isinstance(form, dict) or not isinstance(form.get("fn"), str):
        raise InvalidEntities(f"{where}: not an extension value of Cedar")
    fn = form["fn"]
    if set(form) == {"fn", "arg"} and fn in CONSTRUCTORS:
        arguments = [form["arg"]]
    elif set(form) == {"fn", "args"} and fn == "offset" and isinstance(form["args"], list):
        arguments = form["args"]
    else:
        raise InvalidEntities(f"{where}: not an extension value of Cedar")
    try:
        return call(fn, [value_from_json(argument, None, where) for argument in arguments])
    except EvaluationError as error:
        raise InvalidEntities(f"{where}: not a valid extension value") from error


def entities_from_json(forms: Any, schema: Schema | None = None) -> Entities:
    """Cedar's JSON list of entities; with a schema, implicit forms are read by their type.

    As in Cedar, a schema brings its actions and their groups into the store, and entities that are
    in themselves are refused.
    """
    try:
        listed, read = _entities(forms, schema)
    except RecursionError:
        raise InvalidEntities("entities: a value is nested too deeply") from None
    _no_cycle(listed, read)
    return Entities(read.values())


def _no_cycle(listed: Iterable[EntityUid], read: Mapping[EntityUid, Entity]) -> None:
    # What has no stored parents left is settled; what is never settled is in itself.
    below: dict[EntityUid, list[EntityUid]] = {}
    waiting: dict[EntityUid, int] = {}
    for uid, entity in read.items():
        above = [parent for parent in entity.parents if parent in read]
        waiting[uid] = len(above)
        for parent in above:
            below.setdefault(parent, []).append(uid)
    settled = [uid for uid, count in waiting.items() if not count]
    while settled:
        for child in below.get(settled.pop(), ()):
            waiting[child] -= 1
            if not waiting[child]:
                settled.append(child)
    for number, uid in enumerate(listed):
        if waiting[uid]:
            raise InvalidEntities(f"entity {number}: its parents form a cycle")
    if any(waiting.values()):
        raise InvalidEntities("entities: the groups of an action form a cycle")


def _entities(
    forms: Any, schema: Schema | None
) -> tuple[Iterable[EntityUid], dict[EntityUid, Entity]]:
    """The uids in the order of the list, and the entities, those of the schema among them."""
    if not isinstance(forms, list):
        raise InvalidEntities("entities: not a list")
    read: dict[EntityUid, Entity] = {}
    if schema is not None:
        read.update(
            (uid, Entity(uid, parents=action.parents)) for uid, action in schema.actions.items()
        )
    seen: dict[EntityUid, None] = {}
    for number, form in enumerate(forms):
        where = f"entity {number}"
        if not isinstance(form, dict) or not {"uid", "attrs", "parents"} <= set(form):
            raise InvalidEntities(f"{where}: an entity has uid, attrs and parents")
        uid = entity_uid_from_json(form["uid"], where)
        if uid in seen:
            raise InvalidEntities(f"{where}: the uid occurs twice")
        seen[uid] = None
        declared = schema.entities.get(uid.type) if schema is not None else None
        types = declared.attributes if declared is not None else {}
        tag_type = declared.tags if declared is not None else None
        tags = form.get("tags", {})
        if not isinstance(form["parents"], list) or not isinstance(tags, dict):
            raise InvalidEntities(f"{where}: parents is a list and tags an object")
        read[uid] = Entity(
            uid,
            record_from_json(form["attrs"], types, where),
            frozenset(entity_uid_from_json(parent, where) for parent in form["parents"]),
            RecordValue((name, value_from_json(item, tag_type, where)) for name, item in tags.items()),
        )  # fmt: skip
    return seen, read
