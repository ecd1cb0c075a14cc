"""Policies for somebody who asks again and again: what is left of them once the person, what for, and
perhaps the label of the record are known.

The rules kept: what is asked here is answered as ``CompiledPolicies.weigh`` answers it, errors
included. A condition is settled in advance only where it reads nothing but what is fixed, and by the
reference evaluator; a policy is dropped for a condition that is false only if everything that Cedar
evaluates before it cannot fail. Where anything is not plainly so, there is no such answer
(``Specialiser.special`` is None), and whoever asks goes the general way.

Several questions are asked in one: each ``Slot`` is an action, asked in one view of the person, of
permits, of forbids or of both. What several slots have left in common is evaluated once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from chartgate.cedar.ast import And, Binary, Expr, GetAttr, HasAttr, Is, Literal, Var
from chartgate.cedar.errors import EvaluationError
from chartgate.cedar.evaluate import Env, evaluate
from chartgate.cedar.values import Value, key
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import children
from chartgate.targets.compiled import CompiledPolicies, View, Weighed
from chartgate.targets.compiled_conditions import NOTHING_KNOWN, Condition, Residual
from chartgate.targets.compiled_runtime import NO_ATTRIBUTES, reference_env
from chartgate.targets.compiled_special_parts import rebuilt
from chartgate.targets.compiled_tree import Builder, Node, finished

_MOST_KEPT: Final = 4_096
_MOST_FOUND: Final = 512
_NO_ACTION: Final = EntityUid("", "")
_FALSE: Final = Condition(Literal(False), safe=True)


class Reads(IntEnum):
    """What a condition depends on beside what is fixed."""

    NOTHING = 0
    RESOURCE = 1
    """Its attributes and its name."""
    ENTITIES = 2
    """Entities that the request leads to: each view may tell of them otherwise."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One question of several."""

    action: EntityUid
    view: int
    """Place of the view of the person among those given."""
    effects: frozenset[str]


@dataclass(frozen=True, slots=True)
class Fixed:
    """What does not change from one question to the next."""

    principal: EntityUid
    what: str
    """Type of the resource."""
    resource: EntityUid
    context: Mapping[str, Value]
    base: View
    """The entities without the person."""
    views: tuple[View, ...]
    own: Any
    """The entity that carries the label, or None."""
    label: str
    """Name of the attribute that is known of it, or empty."""


class _Unsettled(Exception):
    """Something cannot be said in advance."""


class Rest:
    """What is left, shared by everybody of whom the same is left; and what was found of it."""

    __slots__ = ("_codes", "_compiled", "_slots", "answers", "nodes")

    def __init__(
        self,
        compiled: CompiledPolicies,
        codes: Sequence[tuple[int, tuple[int, ...]]],
        slots: int,
        nodes: tuple[tuple[Node, int], ...],
    ) -> None:
        self._compiled: Final = compiled
        self._codes: Final = codes
        self._slots: Final = slots
        self.nodes: Final = nodes
        """Each with the place of the view in which it is asked."""
        self.answers: Final[dict[tuple[int, ...], Any]] = {}

    def weighed(self, found: tuple[int, ...]) -> tuple[Weighed, ...]:
        """What holds, for each slot."""
        listed: list[list[int]] = [[] for _ in range(self._slots)]
        for code in found:
            number, slots = self._codes[code if code >= 0 else ~code]
            for slot in slots:
                listed[slot].append(number if code >= 0 else ~number)
        return tuple(self._compiled.weighed(numbers) for numbers in listed)

    def keep(self, found: tuple[int, ...], answer: Any) -> Any:
        """Remember what follows from what holds."""
        if len(self.answers) >= _MOST_FOUND:
            self.answers.clear()
        self.answers[found] = answer
        return answer


class Special:
    """What is left of the policies for one person."""

    __slots__ = ("_nodes", "_principal", "rest")

    def __init__(self, fixed: Fixed, rest: Rest) -> None:
        self._principal: Final = fixed.principal
        self._nodes: Final = tuple((node, fixed.views[at]) for node, at in rest.nodes)
        self.rest: Final = rest

    def found(
        self, resource: EntityUid, context: Mapping[str, Value], own: Any
    ) -> tuple[int, ...] | None:
        """What holds of the rest; None where it has to be asked the general way.

        ``own`` is the resource's entity, or None for the stored one.
        """
        principal = self._principal
        if resource == principal:
            return None
        found: list[int] = []
        for node, view in self._nodes:
            above, attributes = view.found.get(principal) or view.known(principal)
            if own is None:
                entity = view.get(resource)
                described = NO_ATTRIBUTES if entity is None else entity.attrs
            else:
                described = own.attrs
            if resource in above:
                return None
            node(
                principal, above, attributes, _NO_ACTION, resource, described, context, view, own,
                (), found.append,
            )  # fmt: skip
        return tuple(found)


class Specialiser:
    """Makes them for one version of the policies."""

    def __init__(self, compiled: CompiledPolicies) -> None:
        self._compiled: Final = compiled
        self._builder: Final = Builder()
        # Replaced as one, so that whoever decides on older entities puts nothing among newer ones.
        self._applying: tuple[View | None, dict[object, tuple[Residual, ...]]] = (None, {})
        self._reads: Final[dict[tuple[Condition, str], Reads]] = {}
        self._conditions: Final[dict[tuple[Expr, tuple[object, ...]], Condition]] = {}
        self._rests: Final[dict[object, Rest]] = {}

    def special(self, fixed: Fixed, slots: Sequence[Slot]) -> Special | None:
        """What is left for the person; None where the general way has to be gone."""
        left: dict[tuple[int, tuple[Condition, ...], int], list[int]] = {}
        try:
            for place, slot in enumerate(slots):
                settling = _Settling(self, fixed, slot)
                for residual in self._of(slot, fixed):
                    if self._compiled.policies[residual.number].effect not in slot.effects:
                        continue
                    kept = settling.left(residual.conditions)
                    if kept is not None:
                        view = slot.view if settling.reads_entities else 0
                        left.setdefault((residual.number, kept, view), []).append(place)
        except (_Unsettled, EvaluationError, RecursionError):
            return None
        key = (len(slots), *((*entry, tuple(places)) for entry, places in left.items()))
        rest = self._rests.get(key)
        if rest is None:
            if len(self._rests) >= _MOST_KEPT:
                self._rests.clear()
                self._conditions.clear()
            rest = self._rests[key] = self._rest(left, len(slots))
        return Special(fixed, rest)

    def _of(self, slot: Slot, fixed: Fixed) -> tuple[Residual, ...]:
        """The policies that concern the action, without what is the same for everybody."""
        base, applying = self._applying
        if base is not fixed.base:
            applying = {}
            self._applying = (fixed.base, applying)
        labelled = None if fixed.own is None else fixed.own.attrs[fixed.label]
        named = [v for v in (labelled, *fixed.context.values()) if isinstance(v, EntityUid)]
        if any(fixed.principal in fixed.base.ancestors(uid) for uid in (slot.action, *named)):
            raise _Unsettled  # what holds for everybody may be otherwise in each view of her
        said = ((name, key(value)) for name, value in fixed.context.items())
        asked = (slot.action, fixed.principal.type, fixed.what, labelled, *said)
        found = applying.get(asked)
        if found is None:
            if len(applying) >= _MOST_KEPT:
                applying.clear()
            found = applying[asked] = tuple(self._common(slot, fixed))
        return found

    def _common(self, slot: Slot, fixed: Fixed) -> Iterator[Residual]:
        env = reference_env(
            fixed.principal, slot.action, fixed.resource, fixed.context, fixed.base, fixed.own
        )
        for residual in self._compiled.applying(slot.action, fixed.principal.type, fixed.what):
            kept: list[Condition] = []
            for condition in residual.conditions:
                if self.reads(condition, fixed.label) is Reads.NOTHING and _is_common(
                    condition.expr
                ):
                    value = _value_of(condition.expr, env)
                    if value is True:
                        continue
                    if value is False and all(one.is_safe(NOTHING_KNOWN) for one in kept):
                        break
                kept.append(condition)
            else:
                yield Residual(residual.number, tuple(kept), residual.whole)

    def _rest(
        self, left: Mapping[tuple[int, tuple[Condition, ...], int], list[int]], slots: int
    ) -> Rest:
        groups: dict[int, list[Residual]] = {}
        codes: list[tuple[int, tuple[int, ...]]] = []
        for (number, conditions, view), places in left.items():
            whole: Expr = Literal(True)
            for condition in reversed(conditions):
                whole = And(condition.expr, whole)
            groups.setdefault(view, []).append(Residual(len(codes), conditions, whole))
            codes.append((number, tuple(places)))
        nodes = tuple(
            (finished(self._builder.root(tuple(group))), view) for view, group in groups.items()
        )
        for _ in self._builder.warm():
            pass
        return Rest(self._compiled, codes, slots, nodes)

    def reads(self, condition: Condition, label: str) -> Reads:
        """What a condition depends on, worked out once."""
        found = self._reads.get((condition, label))
        if found is None:
            found = self._reads[condition, label] = _reads(condition.expr, label)
        return found

    def condition(self, expr: Expr, put_in: tuple[object, ...]) -> Condition:
        """A condition of its own for each expression; ``put_in``: keys of the values put into it."""
        # The keys tell apart what Python does not: True is 1.
        return self._conditions.setdefault((expr, put_in), Condition(expr))


class _Settling:
    """What is fixed, as one slot has it."""

    def __init__(self, by: Specialiser, fixed: Fixed, slot: Slot) -> None:
        self._by: Final = by
        self._label: Final = fixed.label
        self._env: Final[Env] = reference_env(
            fixed.principal, slot.action, fixed.resource, fixed.context, fixed.views[slot.view],
            fixed.own,
        )  # fmt: skip
        self._action: Final = Literal(slot.action)
        self.reads_entities = False
        """Of the policy asked about last."""

    def left(self, conditions: tuple[Condition, ...]) -> tuple[Condition, ...] | None:
        """The conditions that are left, in their order; None for a policy that never holds."""
        kept: list[Condition] = []
        self.reads_entities = False
        for condition in conditions:
            reads = self._by.reads(condition, self._label)
            if reads is Reads.NOTHING:
                value = evaluate(condition.expr, self._env)
                if value is True:
                    continue
                if value is not False:
                    raise _Unsettled  # an error, but only where it is reached
                if all(one.is_safe(NOTHING_KNOWN) for one in kept):
                    return None
                kept.append(_FALSE)
                break
            self.reads_entities |= reads is Reads.ENTITIES
            values: list[object] = []
            expr = self._put_in(condition.expr, values)
            kept.append(self._by.condition(expr, tuple(values)) if values else condition)
        return tuple(kept)

    def _put_in(self, expr: Expr, values: list[object]) -> Expr:
        """The expression with the values of what is fixed, whose keys are added to ``values``."""
        match expr:
            case Var("action"):
                values.append(key(self._action.value))
                return self._action
            case Var() | Literal():
                return expr
        if _reads(expr, self._label) is Reads.NOTHING:
            value = evaluate(expr, self._env)
            if isinstance(value, Mapping):
                raise _Unsettled  # records are nowhere else among constants
            values.append(key(value))
            return Literal(value)
        return rebuilt(expr, [self._put_in(part, values) for part in children(expr)])


def _value_of(expr: Expr, env: Env) -> Value | None:
    """None for an error."""
    try:
        return evaluate(expr, env)
    except EvaluationError:
        return None


def _is_common(expr: Expr) -> bool:
    """Whether it is the same for everybody of one action, context and label.

    Of entities, only where those of the context stand is asked: see ``Specialiser._of``.
    """
    match expr:
        case Var(name):
            return name == "action"
        case GetAttr(Var("context" | "resource"), _) | HasAttr(Var("context" | "resource"), _):
            return True
        case GetAttr() | HasAttr() | Binary("getTag" | "hasTag", _, _):
            return False
        case Binary("in", left, _) | Is(left, _, _) if not isinstance(left, GetAttr | Var):
            return False
    return all(_is_common(part) for part in children(expr))


def _reads(expr: Expr, label: str) -> Reads:
    match expr:
        case Var("resource"):
            return Reads.RESOURCE
        case GetAttr(Var("resource"), name) | HasAttr(Var("resource"), name):
            return Reads.NOTHING if name == label else Reads.RESOURCE
        case GetAttr(Var(), _) | HasAttr(Var(), _):
            return Reads.NOTHING
        case GetAttr() | HasAttr() | Binary("getTag" | "hasTag", _, _):
            return Reads.ENTITIES
    most = max((_reads(part, label) for part in children(expr)), default=Reads.NOTHING)
    looks_up = isinstance(expr, Binary) and expr.op == "in"
    looks_up |= isinstance(expr, Is) and expr.inside is not None
    return Reads.ENTITIES if looks_up and most is not Reads.NOTHING else most
