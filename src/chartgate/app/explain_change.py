"""The smallest change that would allow: found by trying, shown only when the engine says yes.

The rules kept: only what the role book, the policies and the schema already know is suggested; each
suggestion was decided again, with all policies, before it is given; of changes that include one
another only the smaller is kept; whatever needs somebody else's approval says whose. Nothing here
changes anything.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import combinations, product
from typing import Final

from chartgate.app.explain import Explanation
from chartgate.app.explain_conjuncts import Verdict, conjuncts_of, verdict_of
from chartgate.app.explain_question import Question, Reached, decide, judging
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.cedar.ast import Expr, GetAttr, HasAttr, Literal, Policy, PolicySet, Var
from chartgate.cedar.entities import Entities
from chartgate.cedar.schema import EntityRef, PrimitiveType, SetType
from chartgate.cedar.values import CedarSet, RecordValue, Value
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import children, record_attributes

REFERENCE: Final = "\0a reference"
"""Stands for a ticket or agreement that there is not yet."""
_BREAK_GLASS: Final = "BTG"
_MOST_SINGLES: Final = 120
_MOST_PAIRS: Final = 4000


class By(StrEnum):
    """Who must act for a change to come about."""

    HERSELF = "the person herself; what she claims is recorded"
    ROLES = "needs somebody who assigns roles"
    CARE = "needs the patient's care to be so: nobody gives it to herself"
    NOBODY = "a fact about the record, which nobody can assign"


class Kind(StrEnum):
    """What kind of change; a pair holds at most one of each."""

    PURPOSE = "purpose"
    ASSIGNMENT = "assignment"
    END = "end"
    CARE = "care"
    AUTHOR = "author"
    CONTEXT = "context"
    ACTIVE = "active"


Situation = tuple[Person, Question]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that could be otherwise."""

    kind: Kind
    words: str
    by: By
    cost: int
    apply: Callable[[Situation], Situation] = field(compare=False, repr=False)
    families: tuple[str, ...] = ()
    """Its own name first: of changes of one name that do the same, the cheapest is told. Then the
    names of those that make it superfluous where they do the same."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Changes that together reach more, as the engine decided."""

    changes: tuple[Change, ...]
    reached: Reached

    @property
    def cost(self) -> int:
        return sum(change.cost for change in self.changes)

    @property
    def needs_approval(self) -> bool:
        """Whether somebody else must agree."""
        return any(change.by is not By.HERSELF for change in self.changes)


def suggestions(version: PolicyVersion, explanation: Explanation) -> tuple[Suggestion, ...]:
    """The smallest changes that reach what was asked; where none does, those that reach most."""
    if explanation.as_asked:
        return ()
    start = (explanation.person, explanation.question)
    near = _relevant(version, explanation.question)
    hierarchy = version.roles.entities()
    singles = list(_candidates(version, near, explanation, hierarchy))[:_MOST_SINGLES]

    def reached(changes: Iterable[Change], policies: PolicySet) -> Reached:
        person, question = start
        for change in changes:
            person, question = change.apply((person, question))
        return decide(judging(version, person, question), policies)

    floor, wanted = explanation.reached.rank, explanation.question.wanted
    found: dict[tuple[Change, ...], int] = {(c,): reached((c,), near).rank for c in singles}
    if max(found.values(), default=0) < wanted:
        pairs = [p for p in combinations(singles, 2) if _together(*p)]
        pairs.sort(key=lambda pair: pair[0].cost + pair[1].cost)
        found |= {pair: reached(pair, near).rank for pair in pairs[:_MOST_PAIRS]}
    best = min(max(found.values(), default=0), wanted)
    if best <= floor:
        return ()
    kept: list[Suggestion] = []
    told: set[tuple[str, ...]] = set()
    enough = [changes for changes, rank in found.items() if rank >= best]
    for changes in sorted(enough, key=_order):
        names = [c.families or (c.words,) for c in changes]
        if any(tuple(sorted(same)) in told for same in product(*names)):
            continue
        if any(set(s.changes) <= set(changes) for s in kept):
            continue
        verified = reached(changes, version.policies)
        if verified.rank >= best:
            told.add(tuple(sorted(own for own, *_ in names)))
            kept.append(Suggestion(changes, verified))
    return tuple(kept)


def _order(changes: tuple[Change, ...]) -> tuple[int, int, tuple[str, ...]]:
    by = list(By)
    return (
        sum(c.cost for c in changes),
        max(by.index(c.by) for c in changes),
        tuple(c.words for c in changes),
    )


def _together(one: Change, other: Change) -> bool:
    return one.kind is not other.kind and not {one.kind, other.kind} <= {Kind.CARE, Kind.AUTHOR}


def _relevant(version: PolicyVersion, question: Question) -> PolicySet:
    """The policies that can speak of the question: enough to search with; not to answer by."""
    # Which category it is, and what a row names, no change here can alter.
    fixed = {
        name
        for name, attribute in record_attributes(version.schema).items()
        if not isinstance(attribute.type, SetType) and attribute.type != EntityRef("User")
    }
    nobody = judging(version, Person("", "", "", active=True), question)
    labels: tuple[str | None, ...] = question.labels or (None,)
    envs = [nobody.env(a, label) for a in question.actions() for label in labels]

    def may_hold(policy: Policy) -> bool:
        settled = [e for e, _ in conjuncts_of(policy) if _is_fixed(e, fixed)]
        return any(all(verdict_of(e, env) is not Verdict.FAILS for e in settled) for env in envs)

    kept = tuple(p for p in version.policies.policies if may_hold(p))
    return PolicySet(kept, version.policies.hash)


def _is_fixed(expr: Expr, fixed: set[str]) -> bool:
    """Whether a condition depends on the action and on fixed attributes alone."""
    match expr:
        case GetAttr(Var("resource"), attr) | HasAttr(Var("resource"), attr):
            return attr in fixed
        case Var(name):
            return name == "action"
    return all(_is_fixed(child, fixed) for child in children(expr))


def _candidates(
    version: PolicyVersion, near: PolicySet, explanation: Explanation, hierarchy: Entities
) -> Iterator[Change]:
    yield from _purposes(version, near, explanation)
    yield from _care(version, explanation)
    yield from _context(version, explanation.question)
    yield from _existing(explanation)
    yield from _assignments(version, near, explanation, hierarchy)


def _purposes(
    version: PolicyVersion, near: PolicySet, explanation: Explanation
) -> Iterator[Change]:
    """Another purpose that some role may claim; whether *she* may, the decision says."""
    listed = {p for role in version.roles.roles.values() for p in role.purposes}
    named = {uid.id for policy in near.policies for uid in _uids(policy) if uid.type == "Purpose"}
    hierarchy = version.roles.entities()
    asked = explanation.question.purpose

    def claim(purpose: str) -> Callable[[Situation], Situation]:
        return lambda at: (at[0], replace(at[1], purpose=purpose))

    for purpose in sorted((listed | named) & set(version.roles.purposes) - {asked}):
        above = {uid.id for uid in hierarchy.ancestors(EntityUid("Purpose", purpose))}
        if _BREAK_GLASS in above:
            words = f"break the glass: ask for {purpose}, which is reviewed afterwards"
            yield Change(Kind.PURPOSE, words, By.HERSELF, 4, claim(purpose))
            continue
        words = f"ask for the purpose {purpose} instead of {asked}, if that is why she asks"
        # The wider purpose is the plainer claim: a narrower one is told only where it is needed.
        families = tuple(f"purpose {p}" for p in (purpose, *sorted(above - {purpose})))
        cost = 1 if above <= {purpose} else 2
        yield Change(Kind.PURPOSE, words, By.HERSELF, cost, claim(purpose), families)


def _care(version: PolicyVersion, explanation: Explanation) -> Iterator[Change]:
    """What could be so about the patient's care: her on the team, a department that treats."""
    question, person = explanation.question, explanation.person
    if not question.labels:
        return
    hers = {
        "User": (EntityUid("User", person.name),),
        "Department": tuple(
            EntityUid("Department", name)
            for name in sorted({a.department for a in explanation.live if a.department})
        ),
    }

    def put(name: str, value: EntityUid, *, member: bool) -> Callable[[Situation], Situation]:
        def apply(at: Situation) -> Situation:
            who, what = at
            held = what.record.get(name)
            members = tuple(held) if isinstance(held, CedarSet) else ()
            put_in = CedarSet.of((*members, value)) if member else value
            return who, replace(what, record=RecordValue({**what.record, name: put_in}))

        return apply

    for name, attribute in record_attributes(version.schema).items():
        held, told = attribute.type, name.replace("_", " ")
        if isinstance(held, SetType) and isinstance(held.element, EntityRef):
            for value in hers.get(held.element.name, ()):
                if value.type == "User":
                    words = f"she is put on the patient's {told}"
                else:
                    words = f"the patient comes to be treated in {value.id}"
                yield Change(Kind.CARE, words, By.CARE, 2, put(name, value, member=True))
        elif isinstance(held, EntityRef) and held.name == "User":
            for value in hers["User"]:
                words = f"she is the {told} of the record"
                yield Change(Kind.AUTHOR, words, By.NOBODY, 9, put(name, value, member=False))


def _context(version: PolicyVersion, question: Question) -> Iterator[Change]:
    """Circumstances that are yes or no, such as a stronger login."""
    action = version.schema.actions.get(EntityUid("Action", question.action))
    declared = {} if action is None else action.context.attributes

    def say(name: str) -> Callable[[Situation], Situation]:
        return lambda at: (
            at[0],
            replace(at[1], context=RecordValue({**at[1].context, name: True})),
        )

    for name, attribute in declared.items():
        if attribute.type == PrimitiveType("Bool") and question.context.get(name) is not True:
            words = f"she asks again with {name.replace('_', ' ')}"
            yield Change(Kind.CONTEXT, words, By.HERSELF, 2, say(name))


def _existing(explanation: Explanation) -> Iterator[Change]:
    """What is there already: an account to open again, an assignment to renew or to end."""
    person, at = explanation.person, explanation.question.at
    if not person.active:
        yield Change(
            Kind.ACTIVE, "her account is opened again", By.ROLES, 3,
            lambda s: (replace(s[0], active=True), s[1]),
        )  # fmt: skip

    def renew(assignment: Assignment) -> Callable[[Situation], Situation]:
        def apply(situation: Situation) -> Situation:
            who, what = situation
            fresh = replace(assignment, valid_from=min(assignment.valid_from, at), valid_until=None)
            rest = tuple(a for a in who.assignments if a != assignment)
            return replace(who, assignments=(*rest, fresh)), what

        return apply

    def end(assignment: Assignment) -> Callable[[Situation], Situation]:
        def apply(situation: Situation) -> Situation:
            who, what = situation
            return replace(
                who, assignments=tuple(a for a in who.assignments if a != assignment)
            ), what

        return apply

    for assignment in (a for a in explanation.not_live if not a.is_live(at=at)):
        words = f"her assignment as {_held(assignment)} {_over(assignment, at)}: it is renewed"
        yield Change(Kind.ASSIGNMENT, words, By.ROLES, 3, renew(assignment))
    if len(explanation.live) > 1:
        for assignment in explanation.live:
            words = f"her assignment as {_held(assignment)} ends: it bars this"
            yield Change(Kind.END, words, By.ROLES, 4, end(assignment))


def _assignments(
    version: PolicyVersion, near: PolicySet, explanation: Explanation, hierarchy: Entities
) -> Iterator[Change]:
    """A role she could be assigned: hers in another department or with a reference, or another."""
    roles = version.roles.roles
    groups = {parent for role in roles.values() for parent in role.parents}
    named = {
        uid.id
        for policy in near.policies
        if policy.effect == "permit"
        for uid in _uids(policy)
        if uid.type == "Role"
    }
    held = {a.role for a in explanation.live}
    own = sorted({a.department for a in explanation.live if a.department})
    question = explanation.question
    of_record = sorted(_departments(question.record.values()))
    written = sorted(
        {uid.id for p in near.policies for uid in _uids(p) if uid.type == "Department"}
    )
    shown = (v for name, v in question.record.items() if name not in question.hidden)
    unseen = {*of_record} - _departments(shown) - {*own, *written}
    patient = question.record.get("patient")
    about = patient.id if isinstance(patient, EntityUid) else None
    # Where she works, then where the patient is treated, then what policies name.
    places = tuple(dict.fromkeys((*own, *of_record, *written))) or (None,)

    def assign(assignment: Assignment) -> Callable[[Situation], Situation]:
        def apply(at: Situation) -> Situation:
            return replace(at[0], assignments=(*at[0].assignments, assignment)), at[1]

        return apply

    for role in sorted(roles, key=lambda name: (name not in held, name)):
        above = {uid.id for uid in hierarchy.ancestors(EntityUid("Role", role))}
        if role in groups or (named and not above & named):
            continue
        for place in places:
            for reference in (None, REFERENCE):
                for whom in (None, about) if about else (None,):
                    fresh = Assignment(
                        role, place, explanation.question.at, None, reference, patient=whom
                    )
                    cost = 3 + 2 * (role not in held) + (place not in own)
                    cost += place in written and place not in of_record
                    cost += (reference is not None) + 2 * (whom is not None)
                    if role in held:
                        words = f"she holds her role also as {_held(fresh, unseen)}"
                    else:
                        words = f"she is{' also' if held else ''} assigned the role {_held(fresh, unseen)}"
                    name = (f"role {role}",)
                    yield Change(Kind.ASSIGNMENT, words, By.ROLES, cost, assign(fresh), name)


def _departments(values: Iterable[Value]) -> set[str]:
    return {
        uid.id
        for value in values
        for uid in (value if isinstance(value, CedarSet) else (value,))
        if isinstance(uid, EntityUid) and uid.type == "Department"
    }


def _held(assignment: Assignment, unseen: Container[str] = ()) -> str:
    """``unseen``: departments that are not named, since they were looked up."""
    text = assignment.role
    if assignment.department and assignment.department in unseen:
        text += " in a department that has to do with the patient"
    elif assignment.department:
        text += f" in {assignment.department}"
    if assignment.patient:
        text += ", about this patient"
    if assignment.reference:
        named = assignment.reference != REFERENCE
        text += f" ({assignment.reference})" if named else ", with a reference (ticket, agreement)"
    return text


def _over(assignment: Assignment, at: datetime) -> str:
    if at < assignment.valid_from:
        return f"begins on {assignment.valid_from:%Y-%m-%d}"
    return f"ended on {assignment.valid_until:%Y-%m-%d}"


def _uids(policy: Policy) -> Iterator[EntityUid]:
    waiting: list[Expr] = [policy.condition()]
    while waiting:
        expr = waiting.pop()
        if isinstance(expr, Literal) and isinstance(expr.value, EntityUid):
            yield expr.value
        waiting.extend(children(expr))
