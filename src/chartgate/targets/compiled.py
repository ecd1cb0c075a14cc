"""Policies, compiled to decide: the reference answer, found without asking every policy.

The rules kept: the answer is that of ``chartgate.cedar.authorize`` — same decision, same determining
policies in file order, same errors in the same words; nothing about a request is kept. An error is
rare, so its words are asked of the reference evaluator when it happens.

A decision looks up the tree of (action, principal type, resource type), which is built from the
policies whose scope admits them (``chartgate.targets.compiled_tree``).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from chartgate.cedar.ast import Binary, Expr, Is, Literal, Policy, PolicySet, Var
from chartgate.cedar.authorize import Answer
from chartgate.cedar.entities import Entity
from chartgate.cedar.evaluate import Env, EvaluationError, evaluate
from chartgate.cedar.values import CedarSet, Value
from chartgate.errors import Refused
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled_conditions import STEP, Residual, Steps, residual_of
from chartgate.targets.compiled_grants import FIRST_GRANT, Grants, Held
from chartgate.targets.compiled_runtime import (
    NO_ATTRIBUTES,
    ancestors_of,
    reference_env,
)
from chartgate.targets.compiled_source import constant
from chartgate.targets.compiled_tree import Builder, Building, Node, finished
from chartgate.targets.entity_store import AnyEntities, EntityView, Hierarchy, Known

DENIED: Final = Answer(False, (), ())
"""No policy had anything to say."""


class View(Hierarchy, Protocol):
    """A hierarchy that tells ancestors and attributes at once, and remembers what it told."""

    @property
    def found(self) -> dict[EntityUid, Known]:
        """What ``known`` has told."""

    def known(self, uid: EntityUid, /) -> Known:
        """Ancestors, the entity itself included, and attributes."""


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """Ids of the policies that hold, in file order. A forbid that failed holds; equal only to itself."""

    permits: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    failed_permits: tuple[str, ...] = ()
    failed_forbids: tuple[str, ...] = ()


NOTHING: Final = Weighed()

_ANY: Final = "\0"
"""Stands for every type, and every action, that no policy names."""
_ANY_ACTION: Final = EntityUid(_ANY, _ANY)
_MOST_ROOTS: Final = 4096
_MOST_ANSWERS: Final = 8192

Question: TypeAlias = tuple[EntityUid, str, str]
"""An action, a principal's type, a resource's type."""


class NotAskable(Refused):
    """The action, or its application to these types, is not in the schema."""

    code = "not_askable"


def _words(policy: Policy, env: Env) -> str:
    try:
        evaluate(policy.condition(), env)
    except EvaluationError as error:
        return str(error)
    return "type: the condition has no value"  # pragma: no cover - both readings fail together


class CompiledPolicies:
    """A policy set that decides; immutable to its users, built piece by piece as it is used.

    ``actions`` gives each action's groups where a schema fixes them; without, the request's
    entities say which group an action is in, as in Cedar without a schema. ``askable`` limits what
    may be asked to these (action, principal type, resource type): anything else is ``NotAskable``.
    """

    def __init__(
        self,
        policies: Iterable[Policy],
        *,
        actions: Mapping[EntityUid, frozenset[EntityUid]] | None = None,
        askable: Collection[Question] | None = None,
        grants: Grants | None = None,
    ) -> None:
        kept = tuple(p for p in policies if not p.is_template)
        self.policies: Final = kept
        self.grants: Final = Grants() if grants is None else grants
        self._granted: Final = self.grants.held
        self._actions: Final = actions
        self._askable: Final = askable
        self._answers: Final[dict[object, Answer]] = {}
        self._weights: Final[dict[object, Weighed]] = {}
        self._builder: Final = Builder()
        self._roots: Final[dict[Any, Node]] = {}
        self._residuals: Final[dict[int, Residual]] = {}
        self._by_action: Final = _ByAction(kept)
        self._types: Final = _types_named(kept)
        self._grouped: Final = actions is None and bool(self._by_action.groups)

    def decide(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: Mapping[str, Value],
        entities: Hierarchy,
        own: Entity | None = None,
        *,
        forbid_error_denies: bool,
    ) -> Answer:
        """Whether the request is allowed, and why.

        ``own`` is the request's own entity, laid over ``entities`` for this question alone; it is
        usually the resource. Plain dictionaries serve best as its attributes and as context.
        """
        view: Any = entities if entities.__class__ is EntityView else AnyEntities(entities)
        found = self._found(principal, action, resource, context, view, own)
        if not found:
            return DENIED
        known = self._answers.get(found[0] if len(found) == 1 else tuple(found))
        if known is not None:
            return known
        env = reference_env(principal, action, resource, context, entities, own)
        granted = self._granted.get(principal)
        return self._answer(found, granted, env, forbid_error_denies=forbid_error_denies)

    def weigh(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: Mapping[str, Value],
        view: View,
        own: Entity | None = None,
    ) -> Weighed:
        """What holds, the permits and the forbids apart: for whoever puts several answers together.

        The same policies hold as in ``decide``; equal answers are the same object.
        """
        found = self._found(principal, action, resource, context, view, own)
        if not found:
            return NOTHING
        known = self._weights.get(found[0] if len(found) == 1 else tuple(found))
        return self._weighed(found, principal) if known is None else known

    def weighed(self, found: list[int]) -> Weighed:
        """What holds, from the numbers of policies of the files: failed ones by their complement."""
        if not found:
            return NOTHING
        known = self._weights.get(found[0] if len(found) == 1 else tuple(found))
        return self._weighed(found, _ANY_ACTION) if known is None else known

    def _weighed(self, found: list[int], principal: EntityUid) -> Weighed:
        granted = self._granted.get(principal)
        listed: dict[tuple[str, bool], list[str]] = {}
        for number in sorted(found, key=lambda n: n if n >= 0 else ~n):
            policy = self._policy(number if number >= 0 else ~number, granted)
            if policy is not None:
                listed.setdefault((policy.effect, number >= 0), []).append(policy.id)
        failing = listed.get(("forbid", False), [])
        weighed = Weighed(
            tuple(listed.get(("permit", True), ())),
            (*listed.get(("forbid", True), ()), *failing),
            tuple(listed.get(("permit", False), ())),
            tuple(failing),
        )
        if len(self._weights) >= _MOST_ANSWERS:
            self._weights.clear()
        self._weights[found[0] if len(found) == 1 else tuple(found)] = weighed
        return weighed

    def _policy(self, number: int, granted: Held | None) -> Policy | None:
        """The policy; None for a grant that ended while it was being asked: it counts no more."""
        if number < FIRST_GRANT:
            return self.policies[number]
        return None if granted is None else granted.policies.get(number)

    def _found(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: Mapping[str, Value],
        view: Any,
        own: Entity | None,
    ) -> list[int]:
        """The policies that hold, by number; those that failed, by the number's complement."""
        # This is the hot path: every call that can be spared is.
        above, attributes = view.found.get(principal) or view.known(principal)
        if own is None:
            entity = view.get(resource)
            described = NO_ATTRIBUTES if entity is None else entity.attrs
        else:
            laid = own.uid
            if laid in above:
                above = ancestors_of(view, own, principal)
                if laid == principal:
                    attributes = own.attrs
            if laid == resource:
                described = own.attrs
            else:
                entity = view.get(resource)
                described = NO_ATTRIBUTES if entity is None else entity.attrs
        if self._grouped:
            groups = (view.found.get(action) or view.known(action))[0]
            if own is not None and own.uid in groups:
                groups = ancestors_of(view, own, action)
            root = self._roots.get((*action, principal[0], resource[0], groups))
            if root is None:
                root = self._root(action, principal[0], resource[0], groups)
        else:
            root = self._roots.get((action[0], action[1], principal[0], resource[0]))
            if root is None:
                root = self._root(action, principal[0], resource[0], None)
        found: list[int] = []
        root(
            principal, above, attributes, action, resource, described, context, view, own, (),
            found.append,
        )  # fmt: skip
        if self._granted and (granted := self._granted.get(principal)) is not None:
            granted.node(
                principal, above, attributes, action, resource, described, context, view, own, (),
                found.append,
            )  # fmt: skip
        return found

    def _answer(
        self, found: list[int], granted: Held | None, env: Env, *, forbid_error_denies: bool
    ) -> Answer:
        failed = [
            p for n in sorted({~n for n in found if n < 0}) if (p := self._policy(n, granted))
        ]
        ordered = [
            p
            for n in sorted({n if n >= 0 else ~n for n in found})
            if (p := self._policy(n, granted))
            and (n in found or (forbid_error_denies and p.effect == "forbid"))
        ]
        forbids = tuple(p.id for p in ordered if p.effect == "forbid")
        permits = tuple(p.id for p in ordered if p.effect == "permit")
        errors = tuple((p.id, _words(p, env)) for p in failed)
        answer = Answer(bool(permits) and not forbids, forbids or permits, errors)
        if not failed:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[found[0] if len(found) == 1 else tuple(found)] = answer
        return answer

    def warm(self, requests: Iterable[Question] = ()) -> Iterator[int]:
        """Build everything in small steps; each says how much is known to be left.

        ``requests``: what will be asked. Without it, the trees that were begun are finished.
        """
        # (1) The policies taken apart, a few a step.
        for number in range(len(self.policies)):
            self._residual(number).prepare()
            if number % STEP == 0:
                yield len(self.policies) - number
        # (2) The first node of each tree.
        for action, principal, resource in requests:
            # Without a schema: an action that the entities put into no group.
            groups = frozenset((action,)) if self._grouped else None
            for _ in self._rooted(action, principal, resource, groups):
                yield 1
            yield 1
        # (3) All below them. What was taken apart is then needed no more.
        yield from self._builder.warm()
        self._residuals.clear()

    def applying(self, action: EntityUid, principal: str, resource: str) -> tuple[Residual, ...]:
        """The policies whose scope admits the action and the types, taken apart; grants apart.

        Only where a schema says which groups an action is in.
        """
        assert self._actions is not None
        groups = self._actions.get(action, frozenset((action,))) & self._by_action.groups
        return finished(self._of(action, groups, principal, resource))

    def _root(
        self, action: EntityUid, principal: str, resource: str, groups: frozenset[EntityUid] | None
    ) -> Node:
        return finished(self._rooted(action, principal, resource, groups))

    def _rooted(
        self, action: EntityUid, principal: str, resource: str, groups: frozenset[EntityUid] | None
    ) -> Building:
        """The tree of a question, found or begun under its canonical name.

        Names that no policy mentions are one name: made-up types must not fill the memory.
        """
        if self._askable is not None and (action, principal, resource) not in self._askable:
            raise NotAskable("the schema does not let this action be asked of these types")
        asked: tuple[object, ...] = (*action, principal, resource)
        if self._grouped:
            asked = (*asked, groups)
        named = action if action in self._by_action.named else _ANY_ACTION
        if self._actions is not None:
            groups = self._actions.get(action, frozenset((action,)))
        if groups is not None:
            groups &= self._by_action.groups
        who = principal if principal in self._types else _ANY
        what = resource if resource in self._types else _ANY
        canonical = (named, who, what, groups)
        table = self._roots
        node = table.get(canonical)
        if node is None:
            residuals = yield from self._of(named, groups, who, what)
            node = yield from self._builder.root(residuals)
            if len(table) < _MOST_ROOTS:
                table[canonical] = node
        if len(table) < _MOST_ROOTS:
            table[asked] = node
        return node

    def _of(
        self, action: EntityUid, groups: frozenset[EntityUid] | None, who: str, what: str
    ) -> Steps[tuple[Residual, ...]]:
        def decide(expr: Expr) -> bool | None:
            return _settle(expr, action, groups, {"principal": who, "resource": what})

        left = []
        for counted, number in enumerate(self._by_action.of(action, groups), 1):
            if counted % STEP == 0:
                yield
            settled = self._residual(number).settled(decide)
            if settled is not None:
                left.append(settled)
        return tuple(left)

    def _residual(self, number: int) -> Residual:
        found = self._residuals.get(number)
        if found is None:
            found = self._residuals[number] = residual_of(number, self.policies[number])
        return found


class _ByAction:
    """Which policies can concern an action."""

    def __init__(self, policies: tuple[Policy, ...]) -> None:
        self.named: Final[dict[EntityUid, list[int]]] = {}
        self.groups: Final = frozenset(
            uid
            for p in policies
            if p.action.op == "in"
            for uid in p.action.entities
            if isinstance(uid, EntityUid)
        )
        self._all: Final[list[int]] = []
        self._exact: Final[dict[EntityUid, list[int]]] = {}
        for number, policy in enumerate(policies):
            if policy.action.op == "all":
                self._all.append(number)
                continue
            table = self._exact if policy.action.op == "==" else self.named
            for uid in dict.fromkeys(policy.action.entities):
                if isinstance(uid, EntityUid):
                    table.setdefault(uid, []).append(number)
        self._in: Final = dict(self.named)
        for uid in self._exact:
            self.named.setdefault(uid, [])

    def of(self, action: EntityUid, groups: frozenset[EntityUid] | None) -> list[int]:
        """Their numbers, in file order."""
        found = set(self._all)
        found.update(self._exact.get(action, ()))
        for uid in (action, *(groups or ())):
            found.update(self._in.get(uid, ()))
        return sorted(found)


def _settle(
    expr: Expr, action: EntityUid, groups: frozenset[EntityUid] | None, types: Mapping[str, str]
) -> bool | None:
    """What (action, principal type, resource type) say of a condition of the scope."""
    match expr:
        case Is(Var("principal" | "resource" as name), type_, None):
            return types[name] == type_
        case Binary("==", Var("principal" | "resource" as name), Literal(EntityUid(type_, _))):
            return None if types[name] == type_ else False
        case Binary("==", Var("action"), Literal(EntityUid() as uid)):
            return uid == action
        case Binary("in", Var("action"), right):
            target = constant(right)
            targets = tuple(target) if isinstance(target, CedarSet) else (target,)
            if action in targets:
                return True
            if all(isinstance(uid, EntityUid) for uid in targets):
                return groups is not None and not groups.isdisjoint(targets)
    return None


def _types_named(policies: Iterable[Policy]) -> frozenset[str]:
    """Every entity type that a scope of principals or resources tells from others."""
    found: set[str] = set()
    for policy in policies:
        for scope in (policy.principal, policy.resource):
            if scope.type is not None:
                found.add(scope.type)
            found.update(uid.type for uid in scope.entities if isinstance(uid, EntityUid))
    return frozenset(found)


def compile_policies(
    policies: PolicySet | Iterable[Policy],
    *,
    actions: Mapping[EntityUid, frozenset[EntityUid]] | None = None,
    askable: Collection[Question] | None = None,
    grants: Grants | None = None,
) -> CompiledPolicies:
    """The policies, ready to decide. Unlinked templates decide nothing."""
    listed = policies.policies if isinstance(policies, PolicySet) else policies
    return CompiledPolicies(listed, actions=actions, askable=askable, grants=grants)
