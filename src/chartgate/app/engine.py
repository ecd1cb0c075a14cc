"""The policy decision point: one policy version, the entities it judges, the grants in force.

The rules kept at every enforcement point, beyond Cedar's own:

- a forbid that cannot be evaluated denies (Cedar would skip it);
- policies that were not strictly validated against their schema are not obeyed at all;
- an action the schema does not know, or that does not apply to these types, is denied in words;
- what is in force changes in one step. An answer is entirely of the old version or of the new one,
  of the entities before an update or after it.

A version is compiled and warmed up before it is in force (``loading`` yields between steps, so that
a background thread or an event loop can carry it), and nothing waits for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from chartgate.app.policy_bundle import PolicyVersion
from chartgate.cedar.ast import Policy, PolicySet
from chartgate.cedar.authorize import Answer
from chartgate.cedar.entities import Entity
from chartgate.cedar.parse import policy_set
from chartgate.cedar.schema import Schema
from chartgate.cedar.validate import validate
from chartgate.cedar.values import Value
from chartgate.errors import Misconfigured
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import CompiledPolicies, NotAskable, compile_policies
from chartgate.targets.compiled_grants import Grants
from chartgate.targets.entity_store import EntityStore, EntityView


class Unvalidated(Misconfigured):
    """Policies that no schema has been held against: they are not obeyed."""

    code = "unvalidated_policies"


class IdTaken(Misconfigured):
    """A policy and a grant have the same id, so a decision could not say which of them decided."""

    code = "policy_id_taken"


@dataclass(frozen=True, slots=True)
class Refusal(Answer):
    """A denial that no policy made: the question is not one the schema allows."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class ValidPolicies:
    """Policies that have passed strict validation against ``schema``; made by ``validated``.

    ``entities`` belong to the version: its roles and purposes.
    """

    policies: PolicySet
    schema: Schema
    entities: tuple[Entity, ...] = ()

    @property
    def hash(self) -> str:
        """Names the content."""
        return self.policies.hash


def validated(
    policies: PolicySet, schema: Schema, entities: Iterable[Entity] = ()
) -> ValidPolicies:
    """The policies, strictly validated; raises ``InvalidPolicies``."""
    validate(policies, schema)
    return ValidPolicies(policies, schema, tuple(entities))


@dataclass(frozen=True, slots=True)
class Live:
    """What one decision sees: whoever puts several answers together takes all from one of these."""

    hash: str
    schema: Schema
    compiled: CompiledPolicies
    ids: frozenset[str]
    base: frozenset[EntityUid]
    view: EntityView
    grants_seen: int


class Engine:
    """Decides. Changes come from one writer at a time; readers never wait."""

    def __init__(
        self, source: PolicyVersion | ValidPolicies, entities: Iterable[Entity] = ()
    ) -> None:
        self._store: Final = EntityStore(entities)
        self._grants: Final = Grants()
        self._lock: Final = Lock()
        self._live: Live = self._compiled(source)
        self._put_in_force(source, self._live)

    @property
    def hash(self) -> str:
        """The identity of the version in force."""
        return self._live.hash

    @property
    def entities(self) -> EntityView:
        """The entities as they are now."""
        return self._live.view

    @property
    def live(self) -> Live:
        """Everything that is in force now, as one value."""
        return self._live

    def decide(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: Mapping[str, Value],
        own: Entity | None = None,
    ) -> Answer:
        """Whether the request is allowed, and why; a ``Refusal`` where it cannot be asked.

        ``own``: what only this request knows, usually the resource with its attributes.
        """
        live = self._live
        try:
            return live.compiled.decide(
                principal, action, resource, context, live.view, own, forbid_error_denies=True
            )
        except NotAskable:
            return Refusal(False, (), (), _why(live.schema, principal, action, resource))

    # --- what is in force -----------------------------------------------------------------

    def load(self, source: PolicyVersion | ValidPolicies) -> None:
        """Put a version in force, once it is compiled whole."""
        for _ in self.loading(source):
            pass

    def loading(self, source: PolicyVersion | ValidPolicies) -> Iterator[int]:
        """The same, step by step: yields between steps, and is in force when it ends.

        Raises ``Misconfigured`` before the first step; what was in force stays so.
        """
        made = self._compiled(source)
        return self._steps(source, made)

    def warming(self) -> Iterator[int]:
        """Build in small steps what the version in force will need; nothing waits for it."""
        live = self._live
        yield from live.compiled.warm(sorted(_askable(live.schema)))

    def _steps(self, source: PolicyVersion | ValidPolicies, made: Live) -> Iterator[int]:
        yield from made.compiled.warm(sorted(_askable(made.schema)))
        self._put_in_force(source, made)

    def _compiled(self, source: PolicyVersion | ValidPolicies) -> Live:
        if not isinstance(source, PolicyVersion | ValidPolicies):
            raise Unvalidated("the policies were not validated against a schema")
        schema = source.schema
        ids = frozenset(policy.id for policy in source.policies.policies)
        checked = self._check_grants(ids, schema)
        compiled = compile_policies(
            source.policies,
            actions=_action_groups(schema),
            askable=_askable(schema),
            grants=self._grants,
        )
        base = frozenset(entity.uid for entity in _entities(source))
        return Live(source.hash, schema, compiled, ids, base, self._store.view, checked)

    def _check_grants(self, ids: frozenset[str], schema: Schema) -> int:
        """Raise unless every grant in force fits the version; the grants' state that was seen."""
        seen = self._grants.changes
        grants = self._grants.policies()
        if any(grant.id in ids for grant in grants):
            raise IdTaken("a policy of the version has the id of a grant in force")
        if grants:
            validate(policy_set(grants), schema)
        return seen

    def _put_in_force(self, source: PolicyVersion | ValidPolicies, made: Live) -> None:
        with self._lock:
            if self._grants.changes != made.grants_seen:
                # Grants that came while the version was being compiled.
                self._check_grants(made.ids, made.schema)
            gone = self._live.base - made.base
            view = self._store.update(*_entities(source), removed=gone)
            self._live = replace(made, view=view)

    # --- entities and grants --------------------------------------------------------------

    def update(self, *entities: Entity, removed: Iterable[EntityUid] = ()) -> None:
        """Change entities; the next decision sees all of it. Costs what it changes."""
        with self._lock:
            view = self._store.update(*entities, removed=removed)
            self._live = replace(self._live, view=view)

    def grant(self, *policies: Policy) -> None:
        """Put grants in force, each a policy for one named principal, under its own id.

        Raises ``Misconfigured`` (``InvalidPolicies``, ``NotAGrant``, ``IdTaken``); then none is.
        """
        with self._lock:
            live = self._live
            if any(policy.id in live.ids for policy in policies):
                raise IdTaken("a grant has the id of a policy in force")
            if policies:
                validate(policy_set(policies), live.schema)
            self._grants.add(*policies)

    def granted(self) -> tuple[Policy, ...]:
        """The grants in force, in the order in which they came."""
        return self._grants.policies()

    def revoke(self, policy_id: str) -> bool:
        """End a grant; whether there was one."""
        return self._grants.remove(policy_id)


def _entities(source: PolicyVersion | ValidPolicies) -> tuple[Entity, ...]:
    """The entities that belong to the version itself."""
    if isinstance(source, ValidPolicies):
        listed = source.entities
    else:
        held = source.roles.entities()
        uids = [EntityUid("Role", name) for name in source.roles.roles]
        uids += [EntityUid("Purpose", name) for name in source.roles.purposes]
        listed = tuple(entity for uid in uids if (entity := held.get(uid)) is not None)
    actions = (Entity(uid, {}, action.parents) for uid, action in source.schema.actions.items())
    return (*actions, *listed)


def _askable(schema: Schema) -> frozenset[tuple[EntityUid, str, str]]:
    return frozenset(
        (uid, who, what)
        for uid, action in schema.actions.items()
        for who in action.principals
        for what in action.resources
    )


def _action_groups(schema: Schema) -> Mapping[EntityUid, frozenset[EntityUid]]:
    """Each action with every group it is in, itself included."""
    found = {}
    for uid in schema.actions:
        reached, waiting = {uid}, [uid]
        while waiting:
            action = schema.actions.get(waiting.pop())
            fresh = (action.parents if action is not None else frozenset()) - reached
            reached |= fresh
            waiting.extend(fresh)
        found[uid] = frozenset(reached)
    return found


def _why(schema: Schema, principal: EntityUid, action: EntityUid, resource: EntityUid) -> str:
    # Only what the schema itself names is repeated: anything else is the caller's text.
    if action not in schema.actions:
        return "the policies know no such action"
    if principal.type not in schema.entities:
        return "the policies know no such kind of principal"
    if resource.type not in schema.entities:
        return "the policies know no such kind of resource"
    return f"{action.id} does not apply to a {resource.type} asked for by a {principal.type}"
