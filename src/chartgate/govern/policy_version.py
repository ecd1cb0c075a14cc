"""How a version of the policies comes into force: a state table, and who may take which step.

The rules kept (45 CFR 164.308(a)(8), evaluation; 164.316(b)(1), (b)(2)(i): policies and the actions
taken on them are documented and kept): a version is its content, named by its hash; it is checked
in order, a stage that was not passed is never jumped; nobody approves what she proposed; what was
approved was compared with what is in force at that moment, else the comparison is made anew; a pair
of state and step that is not in the table is illegal. Data maps go the same way, without the
scenarios and invariants that only policies have.

Nothing here knows whether a step is in the log: callers fold only steps that are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from chartgate.errors import Refused

POLICIES: Final = "policies"
MAP: Final = "map:"


class State(StrEnum):
    """Where a version is."""

    DRAFT = "draft"
    VALIDATED = "validated"
    TESTED = "scenarios passed"
    PROVED = "invariants proved"
    COMPARED = "ready for approval"
    APPROVED = "approved"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"


class Step(StrEnum):
    """What moves it; the words of the ``policy_step`` event."""

    PUSHED = "pushed"
    VALIDATED = "validated"
    TESTED = "scenarios_passed"
    PROVED = "invariants_proved"
    COMPARED = "compared"
    SHIPPED = "shipped"
    """Taken as it came with the software, which was checked before its release."""
    APPROVED = "approved"
    ACTIVATED = "activated"
    ROLLED_BACK = "rolled_back"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"


class Guard(StrEnum):
    """What must hold besides the state."""

    ANOTHER_PERSON = "somebody else than who proposed it"
    PROPOSER = "who proposed it"
    COMPARISON_STANDS = "compared with what is in force now"
    NEXT_GENERATION = "one generation after what is in force"
    WAS_IN_FORCE = "what was in force before"
    NOTHING_OF_OURS_IN_FORCE = "nothing in force but what was shipped"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may take a step, as an action of the policies themselves, and what it takes."""

    permission: str
    guards: tuple[Guard, ...] = ()


RULES: Final[Mapping[Step, Rule]] = MappingProxyType(
    {
        Step.PUSHED: Rule("edit_policy"),
        Step.VALIDATED: Rule("edit_policy"),
        Step.TESTED: Rule("edit_policy"),
        Step.PROVED: Rule("edit_policy"),
        Step.COMPARED: Rule("edit_policy"),
        Step.SHIPPED: Rule("edit_policy", (Guard.NOTHING_OF_OURS_IN_FORCE,)),
        Step.APPROVED: Rule("approve_policy", (Guard.ANOTHER_PERSON, Guard.COMPARISON_STANDS)),
        Step.ACTIVATED: Rule("activate_policy", (Guard.COMPARISON_STANDS, Guard.NEXT_GENERATION)),
        Step.ROLLED_BACK: Rule("activate_policy", (Guard.WAS_IN_FORCE, Guard.NEXT_GENERATION)),
        Step.WITHDRAWN: Rule("edit_policy", (Guard.PROPOSER,)),
        Step.REFUSED: Rule("approve_policy", (Guard.ANOTHER_PERSON,)),
    }
)

_PENDING: Final = (
    State.DRAFT,
    State.VALIDATED,
    State.TESTED,
    State.PROVED,
    State.COMPARED,
    State.APPROVED,
)
_OVER: Final = (State.SUPERSEDED, State.WITHDRAWN, State.REFUSED)

_COMMON: Final[Mapping[tuple[State | None, Step], State]] = {
    (None, Step.PUSHED): State.DRAFT,
    # Pushed again, it is checked again: by another person it is hers too.
    **{(state, Step.PUSHED): State.DRAFT for state in _PENDING},
    **{(state, Step.PUSHED): State.DRAFT for state in _OVER},
    (State.DRAFT, Step.VALIDATED): State.VALIDATED,
    (State.DRAFT, Step.SHIPPED): State.COMPARED,
    (State.COMPARED, Step.APPROVED): State.APPROVED,
    (State.APPROVED, Step.ACTIVATED): State.ACTIVE,
    # Whatever became of it since: nobody stands in the way of going back.
    **{(state, Step.ROLLED_BACK): State.ACTIVE for state in (*_PENDING, *_OVER)},
    **{(state, Step.WITHDRAWN): State.WITHDRAWN for state in _PENDING},
    **{(state, Step.REFUSED): State.REFUSED for state in (State.COMPARED, State.APPROVED)},
}

TRANSITIONS: Final[Mapping[tuple[State | None, Step], State]] = MappingProxyType(
    {
        **_COMMON,
        (State.VALIDATED, Step.TESTED): State.TESTED,
        (State.TESTED, Step.PROVED): State.PROVED,
        (State.PROVED, Step.COMPARED): State.COMPARED,
    }
)
"""Of policies: (state, step) -> the state after it; a pair that is absent is illegal."""

MAP_TRANSITIONS: Final[Mapping[tuple[State | None, Step], State]] = MappingProxyType(
    {**_COMMON, (State.VALIDATED, Step.COMPARED): State.COMPARED}
)
"""Of data maps."""


class IllegalStep(Refused):
    """The version is not where this step starts from, or what the step needs does not hold."""

    code = "illegal_policy_step"


class OwnDraft(IllegalStep):
    """Somebody would approve what she proposed herself."""

    code = "own_draft"


@dataclass(frozen=True, slots=True)
class Taken:
    """A step somebody took."""

    step: Step
    content: str
    """The content hash of the version."""
    person: str
    """uid."""
    at: str
    proposer: str = ""
    generation: int = 0
    previous: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """One version and how it came to where it is."""

    content: str
    state: State
    proposers: tuple[str, ...]
    """uids of everybody who pushed it; the first is the proposer."""
    approver: str = ""
    compared_with: str | None = None
    """Hash of what was in force when it was compared; empty when nothing was."""
    is_shipped: bool = False
    steps: tuple[Taken, ...] = ()

    @property
    def proposer(self) -> str:
        """uid of who pushed it first."""
        return self.proposers[0]


@dataclass(frozen=True, slots=True)
class Shelf:
    """All versions of one subject, and which is in force."""

    subject: str
    versions: Mapping[str, Version] = field(default_factory=lambda: MappingProxyType({}))
    in_force: tuple[str, ...] = ()
    """Content hashes: what is in force last, before it what a rollback goes back to."""
    generation: int = 0

    @property
    def active(self) -> str:
        """What is in force; empty when nothing is."""
        return self.in_force[-1] if self.in_force else ""

    @property
    def before(self) -> str:
        """What a rollback would put in force; empty when there is nothing to go back to."""
        return self.in_force[-2] if len(self.in_force) > 1 else ""

    def state_of(self, content: str) -> State | None:
        """Where a version is; ``None`` when nobody pushed it."""
        found = self.versions.get(content)
        return None if found is None else found.state

    def on(self, taken: Taken) -> "Shelf":
        """The shelf after the step; raises ``IllegalStep``."""
        version = self.versions.get(taken.content)
        state = None if version is None else version.state
        table = MAP_TRANSITIONS if self.subject.startswith(MAP) else TRANSITIONS
        after = table.get((state, taken.step))
        if after is None:
            where = state or "not in the store"
            raise IllegalStep(f"{taken.content[:12]} is {where}: {_hindrance(state, taken.step)}")
        for guard in RULES[taken.step].guards:
            self._check(guard, taken, version)
        moved = _moved(version, taken, after)
        versions = {**self.versions, taken.content: moved}
        if after is not State.ACTIVE:
            return replace(self, versions=MappingProxyType(versions))
        if self.active:
            versions[self.active] = replace(versions[self.active], state=State.SUPERSEDED)
            versions[taken.content] = moved
        is_back = taken.step is Step.ROLLED_BACK
        stack = self.in_force[:-1] if is_back else (*self.in_force, taken.content)
        return Shelf(self.subject, MappingProxyType(versions), stack, taken.generation)

    def after(self, steps: Iterable[Taken]) -> "Shelf":
        """The shelf after several steps."""
        shelf = self
        for taken in steps:
            shelf = shelf.on(taken)
        return shelf

    def _check(self, guard: Guard, taken: Taken, version: Version | None) -> None:
        assert version is not None
        short = taken.content[:12]
        match guard:
            case Guard.ANOTHER_PERSON:
                if taken.person in version.proposers:
                    raise OwnDraft(
                        f"whoever proposed {short} cannot decide on it: a second person must"
                    )
            case Guard.PROPOSER:
                if taken.person not in version.proposers:
                    raise IllegalStep(f"only who proposed {short} withdraws it; others refuse it")
            case Guard.COMPARISON_STANDS:
                if version.compared_with != self.active:
                    raise IllegalStep(
                        f"{short} was compared with {(version.compared_with or 'nothing')[:12]}, "
                        f"but {(self.active or 'nothing')[:12]} is in force now: push it again"
                    )
            case Guard.NEXT_GENERATION:
                if taken.generation != self.generation + 1 or taken.previous != self.active:
                    raise IllegalStep(f"{short}: not the step after generation {self.generation}")
            case Guard.WAS_IN_FORCE:
                if taken.content != self.before:
                    raise IllegalStep(f"{short} is not what was in force before")
            case Guard.NOTHING_OF_OURS_IN_FORCE:
                active = self.versions.get(self.active)
                if active is not None and not active.is_shipped:
                    raise IllegalStep("a version of your own is in force: it is not replaced")


def _moved(version: Version | None, taken: Taken, after: State) -> Version:
    if version is None:
        return Version(taken.content, after, (taken.person,), steps=(taken,))
    changed = replace(version, state=after, steps=(*version.steps, taken))
    match taken.step:
        case Step.PUSHED:
            proposers = version.proposers
            if version.state is State.SUPERSEDED:
                proposers = ()  # two people agreed on it once: proposed anew
            pushed = tuple(dict.fromkeys((*proposers, taken.person)))
            return replace(
                changed, proposers=pushed, approver="", compared_with=None, is_shipped=False
            )
        case Step.COMPARED:
            return replace(changed, compared_with=taken.detail.get("against", ""))
        case Step.SHIPPED:
            against = taken.detail.get("against", "")
            return replace(changed, compared_with=against, is_shipped=True)
        case Step.APPROVED:
            return replace(changed, approver=taken.person)
        case _:
            return changed


def _hindrance(state: State | None, step: Step) -> str:
    """Why the step cannot be taken from there, for whoever tried it."""
    match state, step:
        case State.ACTIVE, Step.PUSHED | Step.APPROVED | Step.ACTIVATED | Step.ROLLED_BACK:
            return "nothing is left to do"
        case State.ACTIVE, Step.WITHDRAWN | Step.REFUSED:
            return "a rollback puts in force what was before"
        case State.APPROVED, Step.APPROVED:
            return "it can be activated"
        case State.COMPARED, Step.ACTIVATED:
            return "somebody other than who proposed it approves it first"
        case (
            State.DRAFT | State.VALIDATED | State.TESTED | State.PROVED,
            Step.APPROVED | Step.ACTIVATED | Step.REFUSED,
        ):
            return "not every check was passed; push it again"
        case (
            State.SUPERSEDED | State.WITHDRAWN | State.REFUSED,
            Step.APPROVED | Step.ACTIVATED,
        ):
            return "push it again first"
        case _:
            return f"it cannot be {step.replace('_', ' ')}"
