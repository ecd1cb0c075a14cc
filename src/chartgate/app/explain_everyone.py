"""One question put to everyone at once, exactly: people who look alike to the policies are asked once.

The rule kept: Cedar knows an entity only by whether it *is* a named one and by what is stored of it,
so two people who differ only in names that no policy, record or circumstance mentions get the same
answer. Each is therefore asked under a stand-in for every name of hers that is not mentioned; who is
mentioned (on the care team, as the author, in a policy) is asked as herself. A permit is asked of
each assignment alone, a forbid of the whole person, as ``chartgate.app.levels`` says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from chartgate.app.entitlement import known_families, milliseconds
from chartgate.app.explain_alike import Clock, Held, Purposes, StandIns, clock_of
from chartgate.app.explain_question import VIEWS, Question, context_of, resource_of
from chartgate.app.explain_records import every, some, surely_includes, tidied
from chartgate.app.explain_reduced import (
    Ground,
    Known,
    Reduced,
    in_context,
    looks_into_strings,
    names_in,
    names_of,
    read_of_the_person,
    reduced,
)
from chartgate.app.explain_shares import Asked, Granted, Rule, Share
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.rolebook import person_entity
from chartgate.cedar.entities import Entities
from chartgate.cedar.evaluate import Env
from chartgate.cedar.values import CedarSet, RecordValue, Value
from chartgate.errors import Refused
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import attribute_kinds, record_attributes, set_attributes
from chartgate.targets.formula import ALWAYS, NEVER, Formula
from chartgate.targets.partial import Known as KnownRow
from chartgate.targets.partial import RowShape, specialise


class CannotBeTold(Refused):
    """A policy asks something that has no answer while a part of the record is not known."""

    code = "cannot_be_told"


class Everyone:
    """A question without its person. ``known``: what is known of the record; an attribute that is
    not in it is left open, and answers say for which records they hold."""

    def __init__(
        self,
        ground: Ground,
        question: Question,
        known: Known,
        *,
        base: Mapping[tuple[str, int], tuple[Reduced, ...]] | None = None,
    ) -> None:
        version = ground.version
        self._ground: Final = ground
        self._question: Final = question
        self._known: Final = known
        self._hierarchy: Final = ground.hierarchy
        self._roles: Final[dict[str, frozenset[str]]] = {}
        labels: tuple[str | None, ...] = question.labels or (None,)
        self._labels: Final = labels
        self._shape: Final = _shape(version) if question.labels else _NO_ROW
        # First without the sets of people, which are asked again without one of them.
        teams = {n: v for n, v in known.items() if isinstance(v, CedarSet) and _of_people(v)}
        rest = {n: v for n, v in known.items() if n not in teams}
        self._base: Final = base or {
            (action, number): reduced(
                ground.about(EntityUid("Action", action)),
                self._env(action, number, _NOBODY, self._hierarchy, question.purpose),
                rest if label is None else {**rest, "category": EntityUid("Category", label)},
            )
            for action in question.actions()
            for number, label in enumerate(labels)
        }
        self._reduced: Final = {
            (action, number): reduced(
                policies,
                self._env(action, number, _NOBODY, self._hierarchy, question.purpose),
                teams,
            )
            for (action, number), policies in self._base.items()
        }
        everything = [r for rs in self._reduced.values() for r in rs]
        fixed = {*names_of(RecordValue(question.context)), question.source}
        kinds = attribute_kinds(version.schema) if question.labels else {}
        open_kinds = frozenset(kinds[a] for a in kinds if a not in {*known, "category"})
        kept = open_kinds | ({"String"} if looks_into_strings(everything) else set())
        mentioned = names_in(everything) | fixed
        forbids = [r for r in everything if r.policy.effect == "forbid"]
        self._names: Final = StandIns(mentioned, kept, read_of_the_person(everything))
        # A condition that may bring her name into the words is not shared between names.
        self._to_forbids: Final = StandIns(
            names_in(forbids) | fixed,
            kept,
            read_of_the_person(forbids),
            names_kept="User" in open_kinds,
        )
        self._barred: Final = names_in(forbids).union(
            *(r.roles or () for r in everything if r.policy.effect == "forbid")
        )
        self._purposes: Final = Purposes(ground, mentioned, kept="Purpose" in open_kinds)
        self._clock: Final = clock_of(
            (
                r.condition
                for r in everything
                if any("context" in part.variables for part in r.parts)
            ),
            self._env(question.actions()[0], 0, _NOBODY, self._hierarchy, question.purpose),
            now_ms=milliseconds(question.at),
        )
        self._asked: Final[dict[str, tuple[Asked, ...]]] = {}
        self._parts: Final[dict[object, tuple[Granted, ...]]] = {}
        self._wholes: Final[dict[object, dict[tuple[int, int], Formula]]] = {}
        self._answers: Final[dict[tuple[str, Held], tuple[Share, ...]]] = {}
        self._later: Final[dict[int, Everyone]] = {}
        self._rules: Final[dict[tuple[Rule, str, bool], Formula]] = {}

    def alike(self, person: Person, live: Iterable[Assignment]) -> Held:
        """The person as the policies see her: unmentioned names replaced, times left out."""
        return self._names.stand_in(person.name, live)

    def purposes(self, live: Iterable[Assignment]) -> tuple[str, ...]:
        """The purposes that the holder of these assignments may claim."""
        return self._purposes.claimed_by(live)

    # --- answers -----------------------------------------------------------------------------

    def answer(self, held: Held, purpose: str) -> tuple[Share, ...]:
        """What they may who look like ``held``, most first; nothing = not at all.

        The purpose must be one that they may claim. Names in the conditions are stand-ins.
        """
        purpose = self._purposes.kind_of(purpose)
        found = self._answers.get((purpose, held))
        if found is None:
            found = self._answers[purpose, held] = self._answer(held, purpose)
        return found

    def _answer(self, held: Held, purpose: str) -> tuple[Share, ...]:
        name, live = held
        if not live:
            return ()
        asked = self._asked_for(purpose)
        granted = [self._part(name, a, purpose, asked) for a in live]
        if not any(granted):
            return ()
        spared = self._whole(name, live, purpose, asked)
        shares: list[Share] = []
        reached: Formula = NEVER
        for rank in sorted({one.rank for one in asked}, reverse=True):
            by_label = [
                every(
                    (
                        some(
                            g.when for gs in granted for g in gs if g.rank >= rank and g.label == n
                        ),
                        *(f for (at, of), f in spared.items() if at <= rank and of == n),
                    )
                )
                for n in range(len(self._labels))
            ]
            when = tidied(every(by_label))
            if when in (NEVER, reached) or surely_includes(reached, when):
                continue
            giving = [(i, g) for i, gs in enumerate(granted) for g in gs if g.rank >= rank]
            shares.append(
                Share(
                    rank,
                    when,
                    tuple(dict.fromkeys(g.policy for _, g in giving)),
                    tuple(dict.fromkeys(i for i, _ in giving)),
                )
            )
            reached = when
            if when == ALWAYS:
                break
        return tuple(shares)

    def _asked_for(self, purpose: str) -> tuple[Asked, ...]:
        found = self._asked.get(purpose)
        if found is None:
            found = self._asked[purpose] = tuple(
                self._index(action, label, policies, purpose)
                for (action, label), policies in self._reduced.items()
            )
        return found

    def _index(self, action: str, label: int, policies: tuple[Reduced, ...], purpose: str) -> Asked:
        env = self._env(action, label, _NOBODY, self._hierarchy, purpose)
        left = [
            Rule(
                r.policy,
                r.roles,
                r.condition,
                of_nobody=not any("principal" in part.variables for part in r.parts),
                of_context=any("context" in part.variables for part in r.parts),
                same=self._ground.same(r),
            )
            for r in in_context(policies, env)
        ]
        by_role: dict[str, list[Rule]] = {}
        for one in left:
            for role in one.roles or () if one.policy.effect == "permit" else ():
                by_role.setdefault(role, []).append(one)
        return Asked(
            action=action,
            rank=int(VIEWS.get(action, 1)),
            label=label,
            always=tuple(r for r in left if r.policy.effect == "permit" and r.roles is None),
            by_role={role: tuple(rs) for role, rs in by_role.items()},
            forbids=tuple(r for r in left if r.policy.effect == "forbid"),
        )

    def _part(
        self, name: str, assignment: Assignment, purpose: str, asked: tuple[Asked, ...]
    ) -> tuple[Granted, ...]:
        """What the permits give to one assignment alone."""
        key = (name, assignment, purpose)
        found = self._parts.get(key)
        if found is None:
            entities = self._of(name, (assignment,))
            below = self._below(assignment.role)
            found = self._parts[key] = tuple(
                Granted(one.policy.id, ask.rank, ask.label, when)
                for ask in asked
                for one in dict.fromkeys(
                    (*ask.always, *(r for role in below for r in ask.by_role.get(role, ())))
                )
                if (when := self._when(one, ask, name, (assignment,), entities, purpose, of=True))
                != NEVER
            )
        return found

    def _whole(
        self, name: str, live: tuple[Assignment, ...], purpose: str, asked: tuple[Asked, ...]
    ) -> dict[tuple[int, int], Formula]:
        """Which records the forbids spare, by level and label."""
        # Of roles the forbids know only what they name; of assignments, all that are held.
        alike, held = self._to_forbids.stand_in(name, live)
        key = (
            alike,
            frozenset(
                (self._below(a.role) & self._barred, a.department, a.reference, a.patient)
                for a in held
            ),
            purpose,
        )
        found = self._wholes.get(key)
        if found is None:
            entities = self._of(name, live)
            below = frozenset().union(*(self._below(a.role) for a in live))
            found = {}
            for ask in asked:
                spared = [
                    self._when(one, ask, name, live, entities, purpose, of=False)
                    for one in ask.forbids
                    if one.roles is None or one.roles & below
                ]
                found[ask.rank, ask.label] = every(spared)
            self._wholes[key] = found
        return found

    def _when(
        self,
        one: Rule,
        ask: Asked,
        name: str,
        live: tuple[Assignment, ...],
        entities: Entities,
        purpose: str,
        *,
        of: bool,
    ) -> Formula:
        """For which records the reduced policy is true (``of``), or false."""
        if one.of_nobody:
            found = self._rules.get((one, purpose, of))
            if found is None:
                found = self._rules[one, purpose, of] = self._told(
                    one, ask, name, entities, purpose, of=of
                )
            return found
        if one.same is None or one.of_context or not self._question.labels:
            return self._told(one, ask, name, entities, purpose, of=of)
        key = (one.same, ask.action, name, live, of)
        shared = self._ground.told.get(key)
        if shared is None:
            shared = self._told(one, ask, name, entities, purpose, of=of)
            self._ground.told[key] = shared
        return shared

    def _told(
        self, one: Rule, ask: Asked, name: str, entities: Entities, purpose: str, *, of: bool
    ) -> Formula:
        env = self._env(ask.action, ask.label, name, entities, purpose)
        try:
            outcome = specialise(one.condition, KnownRow(env, self._shape))
        except AssertionError:
            raise CannotBeTold(
                f"{one.policy.origin}: policy {one.policy.id} asks something of the record that "
                "can only be told when all of it is known: name its attributes with --record"
            ) from None
        return outcome.true if of else outcome.false

    def _of(self, name: str, live: tuple[Assignment, ...]) -> Entities:
        person = Person(name, name, name, active=True, assignments=live)
        return self._hierarchy.with_(person_entity(person, live))

    def _below(self, role: str) -> frozenset[str]:
        found = self._roles.get(role)
        if found is None:
            uids = self._hierarchy.ancestors(EntityUid("Role", role))
            found = self._roles[role] = frozenset(uid.id for uid in uids)
        return found

    def _env(self, action: str, label: int, name: str, entities: Entities, purpose: str) -> Env:
        resource, entity = resource_of(_bare(self._question), self._labels[label])
        return Env(
            EntityUid("User", name),
            EntityUid("Action", action),
            resource,
            context_of(self._question, purpose),
            entities.with_(entity),
        )

    def without(self, name: str, member: Value) -> "Everyone":
        """The same question with one member out of a set of people of the record."""
        held = self._known[name]
        assert isinstance(held, CedarSet)
        left = CedarSet.of(v for v in held if v != member)
        known = {**self._known, name: left}
        # What was reduced without the sets stays as it is, unless the set is no longer one of people.
        return Everyone(self._ground, self._question, known, base=self._base if left else None)

    @property
    def clock(self) -> Clock:
        """When, after now, the policies may answer otherwise."""
        return self._clock

    def later(self, at: datetime) -> "Everyone":
        """The same question at a later time."""
        passed = self._clock.passed(at)
        if passed == 0:
            return self
        found = self._later.get(passed)
        if found is None:
            question = replace(self._question, at=at)
            found = self._later[passed] = Everyone(self._ground, question, self._known)
        return found


_NOBODY: Final = "\0nobody"
_NO_ROW: Final = RowShape(frozenset(), frozenset(), frozenset(), {})


def _bare(question: Question) -> Question:
    """Without the record: what is known of it stands in the conditions."""
    return replace(question, record=RecordValue()) if question.record else question


def _shape(version: PolicyVersion) -> RowShape:
    """A row of which everything is open."""
    sets = set_attributes(version.schema)
    return RowShape(
        scalars=frozenset(record_attributes(version.schema)) - sets - {"category"},
        sets=sets,
        declared_sets=sets,
        kinds=attribute_kinds(version.schema),
        families=known_families(version.roles, version.schema),
    )


def _of_people(members: CedarSet) -> bool:
    return any(isinstance(member, EntityUid) and member.type == "User" for member in members)
