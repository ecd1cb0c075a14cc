"""Which types can be in which, and what the actions of a schema are in."""

from collections.abc import Mapping

from chartgate.cedar.schema import Schema
from chartgate.model.principal import EntityUid


def types_above(schema: Schema) -> Mapping[str, frozenset[str]]:
    """The types whose entities an entity of a type can be in, at any distance."""
    found: dict[str, frozenset[str]] = {}
    for name in schema.entities:
        reached: set[str] = set()
        waiting = [name]
        while waiting:
            parents = schema.entities[waiting.pop()].parents - reached
            reached |= parents
            waiting.extend(p for p in parents if p in schema.entities)
        found[name] = frozenset(reached)
    return found


def action_groups(schema: Schema) -> Mapping[EntityUid, frozenset[EntityUid]]:
    """Each action with the groups it is in, at any distance."""
    found: dict[EntityUid, frozenset[EntityUid]] = {}
    for uid in schema.actions:
        reached: set[EntityUid] = set()
        waiting = [uid]
        while waiting:
            action = schema.actions.get(waiting.pop())
            parents = (action.parents if action else frozenset()) - reached
            reached |= parents
            waiting.extend(parents)
        found[uid] = frozenset(reached)
    return found


def is_action_type(kind: str) -> bool:
    """Whether the entities of a type are actions; the schema lists them all."""
    return kind == "Action" or kind.endswith("::Action")
