"""What the gate decides, over every person, record and circumstance at once.

A person is a set of assignments. A permit is asked of one assignment alone (*the part*), a forbid
of the person as she is (*the whole*); a forbid that cannot be evaluated holds, a permit that cannot
be evaluated does not; a level of seeing is reached where a permit for it or for a higher one holds,
and no forbid of it or of a lower one (``chartgate.app.levels`` is the meaning).

Assumed, beside what ``universe`` says:

1.  She has at least one assignment: without one, the gate refuses whatever purpose she claims. An
    assignment names one role of the role book and contributes at most one member to each set of the
    person's that ``Ground.single`` lists; of any other set it contributes a part. What a person has
    beside her sets may be anything, for the part and for the whole apart.
2.  The person's other assignments are any number of assignments, of the roles that ``Who`` allows.
    So of the whole nothing is assumed but that the part is in it.
3.  The purpose is any of the purposes known, whether or not a role may claim it.
4.  Of what a record says, only its label is sure to be one that the schema lists: a column may hold
    a text that is in no enumeration, and a role or purpose that there is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from chartgate.cedar.ast import Expr, Policy
from chartgate.cedar.schema import Attribute, EntityRef, RecordType, Schema, SetType
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.smt.encode import Asked, Encoder
from chartgate.targets.smt.logic import Truth, any_of, both, either, negated, same_number
from chartgate.targets.smt.sets import Sets
from chartgate.targets.smt.solve import Session
from chartgate.targets.smt.symbols import Rest, Symbol, SymEntity, SymRecord, SymSet, Unencodable
from chartgate.targets.smt.universe import Closed, Universe
from chartgate.targets.smt.worlds import GateWorld

PERSON: Final = "User"
ROLE: Final = "Role"
RECORD: Final = "Record"
CATEGORY: Final = "category"
_DATA: Final = ("resource.", "witness")


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a claim is about. The permit comes from an assignment of one of ``roles`` (none: of any
    role). ``only``: that assignment is the only one. ``others``: the person may hold roles beside
    ``roles``; else any number of assignments of ``roles`` and none of another."""

    roles: tuple[str, ...] = ()
    others: bool = True
    only: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """What all questions about one policy version rest on."""

    schema: Schema
    policies: tuple[Policy, ...]
    closed: Closed
    single: frozenset[str] = frozenset()
    hierarchy: Closed | None = None
    """What roles and purposes are in, where it is not what ``closed`` says: when two versions are
    compared, ``closed`` says which there are in either."""
    texts: bool = False
    """Whether some policy or condition looks into a text (``uses_texts``)."""


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What scenes about the same person share: equal names are equal symbols."""

    universe: Universe
    sets: Sets
    session: Session
    person: "Person"

    @classmethod
    def of(cls, ground: Ground, who: Who) -> "Shared":
        """A new one."""
        universe = Universe(ground.schema, ground.closed, texts=ground.texts, data=_DATA)
        person = _person(universe, ground, who)
        return cls(universe, Sets(universe), Session(universe), person)


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """The person as symbols."""

    uid: SymEntity
    part: SymRecord
    whole: SymRecord
    part_roles: Mapping[str, Truth]
    whole_roles: Mapping[str, Truth]


@dataclass(slots=True, eq=False)
class Scene:
    """One person (of a kind), and all questions about her: they share a solver."""

    ground: Ground
    who: Who
    shared: Shared
    _encoders: dict[tuple["Thing", str, bool], Encoder] = field(init=False, default_factory=dict)
    _relevant: dict[tuple[str, str, str], tuple[Policy, ...]] = field(
        init=False, default_factory=dict
    )

    @property
    def universe(self) -> Universe:
        """Names and facts."""
        return self.shared.universe

    @property
    def person(self) -> Person:
        """Who asks."""
        return self.shared.person

    @property
    def session(self) -> Session:
        """Whom to ask."""
        return self.shared.session

    def record(self, categories: tuple[str, ...]) -> "Thing":
        """A record under one of these labels (none: under any)."""
        made = self.universe.make(_record_type(self.ground.schema, RECORD), "resource", ())
        uid = self.universe.make(EntityRef(RECORD), "resource uid", ())
        assert isinstance(made, SymRecord)
        assert isinstance(uid, SymEntity)
        fields = dict(made.fields)
        there, label = fields[CATEGORY]
        assert isinstance(label, SymEntity)
        listed = categories or self.ground.schema.entities[label.type].enum or ()
        codes = [self.universe.code(EntityUid(label.type, name)) for name in listed]
        if len(codes) == 1:
            fields[CATEGORY] = (there, SymEntity(label.type, codes[0]))
        within = any_of(same_number(label.code, code) for code in codes) if len(codes) > 1 else True
        return Thing(uid, SymRecord(fields), within)

    def thing(self, kind: str) -> "Thing":
        """A resource of another type: of the log and of the store, nothing is kept."""
        uid = self.universe.make(EntityRef(kind), f"{kind} uid", ())
        assert isinstance(uid, SymEntity)
        return Thing(uid, SymRecord({}), True)

    def context(self, action: str) -> SymRecord:
        """The circumstances: one for all actions that share their type."""
        kind = self.ground.schema.actions[EntityUid("Action", action)].context
        made = self.universe.make(kind, f"context {sorted(kind.attributes)}", ())
        assert isinstance(made, SymRecord)
        return made

    def encoder(self, action: str, thing: "Thing", *, whole: bool) -> Encoder:
        """Conditions about the part or the whole, for one action."""
        index = (thing, action, whole)
        if index not in self._encoders:
            p = self.person
            world = GateWorld(
                self.universe,
                ((p.uid, p.whole if whole else p.part), (thing.uid, thing.attributes)),
                (p.uid, p.whole_roles if whole else p.part_roles),
                self.ground.hierarchy or self.ground.closed,
            )
            uid = EntityUid("Action", action)
            asked = Asked(p.uid, uid, thing.uid, self.context(action), world)
            self._encoders[index] = Encoder(self.universe, self.shared.sets, asked)
        return self._encoders[index]

    def relevant(self, action: str, thing: "Thing", effect: str) -> tuple[Policy, ...]:
        """The policies whose scope does not rule out the action and the person at once."""
        index = (action, thing.uid.type, effect)
        if index not in self._relevant:
            encoder = self.encoder(action, thing, whole=effect == "forbid")
            self._relevant[index] = tuple(
                p
                for p in self.ground.policies
                if p.effect == effect
                and not p.is_template
                and encoder.holds(p.action.expression("action"))[0] is not False
                and encoder.holds(p.principal.expression("principal"))[0] is not False
            )
        return self._relevant[index]


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """What is asked for, and what is said of it beside its type."""

    uid: SymEntity
    attributes: SymRecord
    within: Truth


class Question:
    """What the policies come to for one person and one thing."""

    def __init__(self, scene: Scene, thing: Thing) -> None:
        self.scene: Final = scene
        self.thing: Final = thing
        self._known: Final[dict[tuple[str, str], Truth]] = {}

    def holds(self, policy: Policy, action: str) -> Truth:
        """Whether a policy counts: a permit for the part, a forbid for the whole."""
        index = (policy.id, action)
        if index not in self._known:
            forbids = policy.effect == "forbid"
            encoder = self.scene.encoder(action, self.thing, whole=forbids)
            true, fails = encoder.holds(policy.condition())
            self._known[index] = either(true, fails) if forbids else true
        return self._known[index]

    def about(self, action: str, effect: str) -> tuple[Policy, ...]:
        """The policies whose scope leaves the action and the person open."""
        return self.scene.relevant(action, self.thing, effect)

    def is_about(self, policy: Policy, action: str) -> bool:
        """Whether a policy's scope leaves the action and the person open.

        The levels of viewing answer one another: a permit for ``view`` that a forbid cuts short
        still decides ``view_masked``, and a forbid of ``view_masked`` decides ``view``.
        """
        views = tuple(VIEW_ACTIONS.values())
        return any(
            known is policy
            for name in (views if action in views else (action,))
            for known in self.scene.relevant(name, self.thing, policy.effect)
        )

    def some(self, effect: str, action: str, *, but: str | None = None) -> Truth:
        """Whether some policy (but one) counts for an action."""
        return any_of(
            self.holds(policy, action)
            for policy in self.scene.relevant(action, self.thing, effect)
            if policy.id != but
        )

    def reached(self, level: Disclosure, *, but: str | None = None) -> Truth:
        """Whether a level of seeing is reached."""
        permitted = any_of(
            self.some("permit", action, but=but)
            for at, action in VIEW_ACTIONS.items()
            if at >= level
        )
        if permitted is False:
            return False
        barred = any_of(
            self.some("forbid", action, but=but)
            for at, action in VIEW_ACTIONS.items()
            if at <= level
        )
        return both(permitted, negated(barred))

    def allowed(self, action: str, *, but: str | None = None) -> Truth:
        """Whether an action is allowed; of the viewing actions: whether their level is reached."""
        for level, name in VIEW_ACTIONS.items():
            if name == action:
                return self.reached(level, but=but)
        permitted = self.some("permit", action, but=but)
        if permitted is False:
            return False
        return both(permitted, negated(self.some("forbid", action, but=but)))

    def meets(self, condition: Expr, action: str, *, whole: bool) -> Truth:
        """Whether a condition is true, of the part or of the whole."""
        return self.scene.encoder(action, self.thing, whole=whole).holds(condition)[0]

    def fails(self, policy: Policy, action: str) -> Truth:
        """Whether a policy has no value for the person as she is."""
        encoder = self.scene.encoder(action, self.thing, whole=True)
        return encoder.holds(policy.condition())[1]


def _record_type(schema: Schema, kind: str) -> RecordType:
    return RecordType(schema.entities[kind].attributes)


def _person(universe: Universe, ground: Ground, who: Who) -> Person:
    uid = universe.make(EntityRef(PERSON), "person", ())
    assert isinstance(uid, SymEntity)
    part_roles, whole_roles = _roles(universe, ground, who)
    part: dict[str, tuple[Truth, Symbol]] = {}
    whole: dict[str, tuple[Truth, Symbol]] = {}
    for name, attribute in ground.schema.entities[PERSON].attributes.items():
        one, all_ = _attribute(universe, name, attribute, single=name in ground.single)
        there: Truth = True
        if not attribute.required:
            # An assignment that has it makes the person have it.
            there = universe.truth(f"part.{name}?")
        part[name] = (there, one)
        beside: Truth = True if attribute.required else universe.truth(f"whole.{name}?")
        whole[name] = part[name] if who.only else (either(there, beside), all_)
    return Person(uid, SymRecord(part), SymRecord(whole), part_roles, whole_roles)


def _attribute(
    universe: Universe, name: str, attribute: Attribute, *, single: bool
) -> tuple[Symbol, Symbol]:
    kind = attribute.type
    if not isinstance(kind, SetType):
        return universe.make(kind, f"part.{name}", ()), universe.make(kind, f"whole.{name}", ())
    rest = universe.make(kind, f"whole.{name}", ())
    assert isinstance(rest, SymSet)
    if single:
        there = universe.truth(f"part.{name}.has")
        one = SymSet(
            ((there, universe.make(kind.element, f"part.{name}.one", ())),), None, kind.element
        )
        return one, SymSet(one.items, rest.rest, kind.element)
    open_part = universe.make(kind, f"part.{name}", ())
    assert isinstance(open_part, SymSet)
    return open_part, SymSet((), _Union(open_part.rest, rest.rest), kind.element)


class _Union:
    """What is in one of two open sets."""

    def __init__(self, *rests: Rest | None) -> None:
        self._rests: Final = rests

    def has(self, value: Symbol) -> Truth:
        return any_of(rest.has(value) for rest in self._rests if rest is not None)


def _roles(
    universe: Universe, ground: Ground, who: Who
) -> tuple[Mapping[str, Truth], Mapping[str, Truth]]:
    book = ground.closed.get(ROLE)
    if book is None:
        raise Unencodable("people without roles: there is no role book")
    names = who.roles or tuple(book)
    part: dict[str, Truth]
    if len(names) == 1:
        part = {names[0]: True}
    else:
        role = universe.make(EntityRef(ROLE), "role", ())
        assert isinstance(role, SymEntity)
        part = {n: same_number(role.code, universe.code(EntityUid(ROLE, n))) for n in names}
        universe.add(any_of(part.values()))
    if who.only:
        return part, part
    beside = tuple(book) if who.others else names
    whole: dict[str, Truth] = {}
    for name in beside:
        held = part.get(name, False)
        whole[name] = either(
            held, held if beside == names == (name,) else universe.truth(f"also {name}")
        )
    return part, whole
