"""Searching for a request that breaks a claim, among all that there can be.

The rule kept: a claim is *proved* when the solver shows that no request breaks it, *violated* when
one that does has been decided by the reference meaning, and *unknown* in every other case: not
decided in time, not translated, or a counterexample that did not stand up.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.proof_example import FROM_ASSIGNMENT, NAMES, Example, example_of
from chartgate.cedar.ast import Expr
from chartgate.cedar.schema import Attribute, RecordType, Schema, SetType
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.gate import (
    CATEGORY,
    PERSON,
    RECORD,
    Ground,
    Question,
    Scene,
    Shared,
    Who,
)
from chartgate.targets.smt.logic import (
    Truth,
    all_of,
    any_of,
    both,
    implies,
    negated,
    same_number,
)
from chartgate.targets.smt.model import Reading
from chartgate.targets.smt.requests import uses_texts
from chartgate.targets.smt.solve import Model, Nothing, Unknown
from chartgate.targets.smt.symbols import SymEntity, SymMeasure, SymSet, SymString, Unencodable
from chartgate.targets.smt.universe import Closed

Found: TypeAlias = Example | Nothing | Unknown
Wanted: TypeAlias = Callable[[Question, str], Truth]
"""What is looked for, for one of the target's actions."""
Stands: TypeAlias = Callable[[Example], bool]

SPURIOUS: Final = "the solver's counterexample did not stand up to evaluation"


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: a type, the labels it may have, and the actions asked of it."""

    kind: str
    actions: tuple[str, ...]
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usual:
    """What a counterexample should look like if it can: now, asked of scenarios' own source."""

    now: datetime
    source: str = "scenario"


class Prover:
    """One policy version, and every question about it. Questions share what was worked out."""

    def __init__(
        self,
        version: PolicyVersion,
        *,
        now: datetime,
        timeout: float,
        extra: Iterable[Expr] = (),
        ground: Ground | None = None,
        shared: dict[Who, Shared] | None = None,
    ) -> None:
        self.version: Final = version
        self._usual: Final = Usual(now)
        self._timeout_ms: Final = max(1, int(timeout * 1000))
        self.ground: Final = ground or ground_of(version, extra)
        self._shared: Final = {} if shared is None else shared
        self._scenes: Final[dict[Who, Scene]] = {}
        self._questions: Final[dict[tuple[Who, str, tuple[str, ...]], Question]] = {}

    def targets(self, actions: Iterable[str], categories: Sequence[str] = ()) -> tuple[Target, ...]:
        """The actions by the type of what they are asked of."""
        kinds: dict[str, list[str]] = {}
        for name in actions:
            action = self.ground.schema.actions[EntityUid("Action", name)]
            for kind in action.resources if PERSON in action.principals else ():
                kinds.setdefault(kind, []).append(name)
        return tuple(
            Target(kind, tuple(names), tuple(categories) if kind == RECORD else ())
            for kind, names in kinds.items()
            if kind == RECORD or not categories
        )

    def all_actions(self) -> tuple[str, ...]:
        """Every action that a person can ask for."""
        return tuple(
            uid.id for uid, action in self.version.schema.actions.items() if action.resources
        )

    def question(self, who: Who, target: Target) -> Question:
        """The policies as formulas, for such a person and such a thing."""
        index = (who, target.kind, target.categories)
        if index not in self._questions:
            if who not in self._scenes:
                if who not in self._shared:
                    self._shared[who] = Shared.of(self.ground, who)
                self._scenes[who] = Scene(self.ground, who, self._shared[who])
            scene = self._scenes[who]
            thing = (
                scene.record(target.categories)
                if target.kind == RECORD
                else scene.thing(target.kind)
            )
            self._questions[index] = Question(scene, thing)
        return self._questions[index]

    def search(
        self, who: Who, target: Target, wanted: Wanted, stands: Stands, *, plain: bool = True
    ) -> Found:
        """A request for which ``wanted``, and which ``stands`` when it is decided again.

        ``plain``: as plain a one as there is, to be shown to people.
        """
        try:
            question = self.question(who, target)
            model = self._ask(question, _any_action(question, target, wanted))
            if isinstance(model, Nothing | Unknown):
                return model
            if not plain and (example := _example(question, model, target, wanted, stands)):
                return example
            # There seems to be one: the plainest is looked for first.
            return self._plainest(who, target, wanted, stands)
        except Unencodable as reason:
            return Unknown(f"not translated: {reason}")

    def are_possible(
        self, who: Who, targets: Iterable[Target], wanted: Wanted, stands: Stands
    ) -> Found:
        """A request for some of the targets that ``wanted`` is true of, any one."""
        found: Found = Nothing()
        for target in targets:
            one = self.search(who, target, wanted, stands, plain=False)
            if isinstance(one, Example):
                return one
            if isinstance(one, Unknown):
                found = one
        return found

    def _plainest(self, who: Who, target: Target, wanted: Wanted, stands: Stands) -> Found:
        alone = Who(who.roles, others=False, only=True)
        reason = Unknown(SPURIOUS)
        for whom in dict.fromkeys((alone, who)):
            question = self.question(whom, target)
            broken = _any_action(question, target, wanted)
            for wish in dict.fromkeys(self._wishes(question, target.actions)):
                model = self._ask(question, both(broken, wish))
                if isinstance(model, Nothing):
                    continue
                if isinstance(model, Unknown):
                    reason = model
                    continue
                if example := _example(question, model, target, wanted, stands):
                    return example
        return reason

    def _ask(self, question: Question, formula: Truth) -> Model | Nothing | Unknown:
        return question.scene.session.satisfiable(
            all_of((formula, question.thing.within, _is_told(question))),
            timeout_ms=self._timeout_ms,
        )

    def _wishes(self, question: Question, actions: tuple[str, ...]) -> tuple[Truth, ...]:
        """A moment and a purpose that the gate would let pass, and a row like any other, first with
        a purpose that the role itself names; the former alone; anything."""
        scene = question.scene
        context = scene.context(actions[0]).fields
        usual: list[Truth] = []
        named: list[Truth] = []
        for name, (_, value) in context.items():
            if isinstance(value, SymMeasure) and name == "now":
                ms = (self._usual.now - _EPOCH) // timedelta(milliseconds=1)
                usual.append(same_number(value.term, ms))
            elif isinstance(value, SymString) and name == "source":
                source = SymString(self._usual.source)
                usual.append(scene.shared.sets.equal(value, source))
            elif isinstance(value, SymEntity) and name == "purpose":
                usual.append(self._claimable(question, value))
                named.append(self._claimable(question, value, narrower=False))
        # What only an application could say is said where it matters alone.
        unsaid = [negated(there) for there, _ in context.values() if there is not True]
        row: list[Truth] = []
        bare: list[Truth] = []
        for name, (there, value) in question.thing.attributes.fields.items():
            if name == "patient":
                row.append(there)
            elif there is not True:
                bare.append(negated(there))
            elif isinstance(value, SymSet) and name == "age_bands":
                row.append(scene.shared.sets.is_empty(value))
        bare += [
            negated(there)
            for name, (_, value) in scene.person.part.fields.items()
            if isinstance(value, SymSet) and name in _SELDOM
            for there, _ in value.items
        ]
        plain = [*usual, *unsaid, *row, *bare]
        said = [*usual, *row, *bare]
        return (
            *(all_of(wish) for wish in ([*plain, *named], plain, said, [*usual, *row], usual)),
            True,
        )

    def _claimable(self, question: Question, purpose: SymEntity, *, narrower: bool = True) -> Truth:
        book, universe = self.version.roles, question.scene.universe
        wishes: list[Truth] = []
        for name, held in question.scene.person.part_roles.items():
            role = book.roles.get(name)
            listed = [
                purpose_name
                for purpose_name in book.purposes
                if role
                and set(role.purposes)
                & (self.ground.closed["Purpose"][purpose_name] if narrower else {purpose_name})
            ]
            codes = [universe.code(EntityUid("Purpose", n)) for n in listed]
            wishes.append(implies(held, any_of(same_number(purpose.code, c) for c in codes)))
        return all_of(wishes)


def _any_action(question: Question, target: Target, wanted: Wanted) -> Truth:
    return any_of(wanted(question, action) for action in target.actions)


def _example(
    question: Question, model: Model, target: Target, wanted: Wanted, stands: Stands
) -> Example | None:
    """The model's request, for an action of which it says what is looked for; decided again."""
    reading = Reading(question.scene.universe, model, NAMES)
    for action in target.actions:
        if reading.truth(wanted(question, action)):
            example = example_of(question, reading, action)
            if stands(example):
                return example
    return None


def _is_told(question: Question) -> Truth:
    """An assignment whose reference is no text contributes none (``rolebook.person_entity``)."""
    sets, part = question.scene.shared.sets, question.scene.person.part.fields
    return all_of(
        implies(there, negated(sets.equal(value, SymString(""))))
        for _, held in part.values()
        if isinstance(held, SymSet)
        for there, value in held.items
        if isinstance(value, SymString)
    )


_SELDOM: Final = frozenset({"patients", "references"})
"""What most assignments are without."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def ground_of(version: PolicyVersion, extra: Iterable[Expr] = ()) -> Ground:
    """What all questions about a version rest on; ``extra``: conditions they will mention."""
    policies = version.policies.policies
    return Ground(
        _as_supplied(version.schema),
        policies,
        closed_types(version),
        frozenset(FROM_ASSIGNMENT),
        texts=uses_texts([*(p.condition() for p in policies), *extra]),
    )


_CONTEXT: Final = frozenset({"purpose", "now", "source"})
"""The circumstances that the gate supplies (``DecisionPoint.env``)."""


def _as_supplied(schema: Schema) -> Schema:
    """The schema with no more promised of a request than the gate keeps, whatever it says.

    A scalar of a record may be absent from any table, a person has what her assignments make, and
    circumstances are the purpose, the moment and the source.
    """

    def kept(
        attributes: Mapping[str, Attribute], supplied: Callable[[str, Attribute], bool]
    ) -> dict[str, Attribute]:
        return {
            name: replace(a, required=a.required and supplied(name, a))
            for name, a in attributes.items()
        }

    entities = dict(schema.entities)
    for kind, supplied in _SUPPLIED.items():
        if kind in entities:
            held = entities[kind]
            entities[kind] = replace(held, attributes=kept(held.attributes, supplied))
    actions = {
        uid: replace(
            a, context=RecordType(kept(a.context.attributes, lambda name, _: name in _CONTEXT))
        )
        for uid, a in schema.actions.items()
    }
    return replace(schema, entities=entities, actions=actions)


_SUPPLIED: Final[Mapping[str, Callable[[str, Attribute], bool]]] = {
    PERSON: lambda name, _: name in FROM_ASSIGNMENT,
    RECORD: lambda name, a: name == CATEGORY or isinstance(a.type, SetType),
}


def closed_types(version: PolicyVersion) -> Closed:
    """Roles and purposes: all there are, and what each is in."""
    entities = version.roles.entities()

    def ancestors(kind: str, name: str) -> frozenset[str]:
        return frozenset(uid.id for uid in entities.ancestors(EntityUid(kind, name)))

    return {
        "Role": {name: ancestors("Role", name) for name in version.roles.roles},
        "Purpose": {name: ancestors("Purpose", name) for name in version.roles.purposes},
    }


__all__ = ["SPURIOUS", "Found", "Prover", "Target", "Who", "closed_types", "ground_of"]
