"""What changes from one policy version to another, for every role, action and category.

The rules kept (45 CFR 164.308(a)(8), evaluation in response to change): a cell is *unchanged* when
that is proved over every request of people whose assignments are all of the role (where nobody's
answer changes, whatever roles she holds, that is what was proved); it is *changed* when a request is
shown that both versions were asked by the reference meaning (``chartgate.app.levels``); everything
else is *unknown*, with the reason. Nothing is guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.proof_diff import Comparison
from chartgate.app.proof_example import Example
from chartgate.app.prover import Found
from chartgate.app.version_facts import Facts, facts_of
from chartgate.cedar.ast import Policy, PolicySet
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import RECORD
from chartgate.targets.smt.solve import Nothing, Unknown

_POOL: Final = 8
"""How many examples of a change are tried on the next role before the solver is asked."""
_LEVELS: Final = {action: level for level, action in VIEW_ACTIONS.items()}


SEVERAL: Final = "several roles together"
"""The role of a cell that changes for people with several roles only."""


class Verdict(StrEnum):
    """What became of a cell."""

    UNCHANGED = "unchanged"
    ALLOWED = "newly allowed"
    DENIED = "newly denied"
    RAISED = "level raised"
    LOWERED = "level lowered"
    BOTH = "more for some requests, less for others"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Shown:
    """A request whose answer changes: what it was and is (a level, or allowed and refused)."""

    example: Example
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One role, action and category (``None``: the action is not about records)."""

    role: str
    """A role, or ``SEVERAL``."""
    action: str
    category: str | None
    verdict: Verdict
    more: Shown | None = None
    less: Shown | None = None
    why: str = ""
    """What kept a cell, or a half of it, from being decided."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The purposes that people of a role may claim now and might not before, and the reverse.

    The gate refuses a claim before any policy is asked; cells are about the policies alone.
    """

    role: str
    more: tuple[str, ...]
    less: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """What differs between two versions: in what they say, and in what they decide."""

    before: PolicyVersion
    after: PolicyVersion
    facts: Facts
    cells: tuple[Cell, ...]
    """Every cell; empty when what decides is the same in both, which is proof enough."""
    claims: tuple[Claims, ...] = ()

    @property
    def changed(self) -> tuple[Cell, ...]:
        """The cells that are not unchanged."""
        return tuple(cell for cell in self.cells if cell.verdict is not Verdict.UNCHANGED)

    @property
    def is_same(self) -> bool:
        """Whether every request there can be has the answer that it had."""
        return not self.changed and not self.claims


@dataclass(frozen=True, slots=True)
class Asked:
    """What can be asked of either version."""

    roles: tuple[str, ...]
    about: tuple[tuple[str, str | None], ...]
    """Each action with each category, or with none."""

    @staticmethod
    def of(before: PolicyVersion, after: PolicyVersion) -> "Asked":
        """Every role, action and category of either version."""
        actions: dict[str, None] = {}
        about_records: set[str] = set()
        categories: dict[str, None] = {}
        for schema in (before.schema, after.schema):
            for uid, action in schema.actions.items():
                if action.resources:
                    actions[uid.id] = None
                if RECORD in action.resources:
                    about_records.add(uid.id)
            kind = schema.entities.get("Category")
            categories |= dict.fromkeys((kind.enum or ()) if kind else ())
        return Asked(
            tuple(dict.fromkeys((*before.roles.roles, *after.roles.roles))),
            tuple(
                (action, category)
                for action in actions
                for category in (categories if action in about_records else (None,))
            ),
        )


def policy_diff(
    before: PolicyVersion,
    after: PolicyVersion,
    compare: Callable[[], Comparison],
    *,
    progress: Callable[[int, int], None] = lambda _, __: None,
) -> PolicyDiff:
    """Compare two versions; ``compare`` is made when what they say leaves the answer open."""
    facts = facts_of(before, after)
    claims = claims_changed(before, after)
    if facts.same_meaning:
        return PolicyDiff(before, after, facts, (), claims)
    asked = Asked.of(before, after)
    diff = _Diff(before, after, compare(), asked.roles)
    cells: list[Cell] = []
    for number, (action, category) in enumerate(asked.about, start=1):
        cells += diff.cells(action, category)
        progress(number, len(asked.about))
    order = {role: n for n, role in enumerate((*asked.roles, SEVERAL))}
    return PolicyDiff(
        before, after, facts, tuple(sorted(cells, key=lambda cell: order[cell.role])), claims
    )


def claims_changed(before: PolicyVersion, after: PolicyVersion) -> tuple[Claims, ...]:
    """Which purposes each role may claim otherwise."""
    old, new = _claimable(before), _claimable(after)
    found = []
    for role in dict.fromkeys((*old, *new)):
        one, other = old.get(role, frozenset()), new.get(role, frozenset())
        if one != other:
            found.append(Claims(role, tuple(sorted(other - one)), tuple(sorted(one - other))))
    return tuple(found)


def _claimable(version: PolicyVersion) -> dict[str, frozenset[str]]:
    book = version.roles
    hierarchy = book.entities()
    wider = {
        name: {uid.id for uid in hierarchy.ancestors(EntityUid("Purpose", name))}
        for name in book.purposes
    }
    return {
        role.name: frozenset(name for name in wider if wider[name] & set(role.purposes))
        for role in book.roles.values()
    }


class _Diff:
    """The cells of one action and category at a time: first everybody at once, whatever roles they
    hold; role by role only what can change for somebody."""

    def __init__(
        self,
        before: PolicyVersion,
        after: PolicyVersion,
        comparison: Comparison,
        roles: tuple[str, ...],
    ) -> None:
        self._before = before
        self._after = after
        self._comparison = comparison
        self._roles = roles
        self._claimable = (_claimable(before), _claimable(after))
        self._pool: dict[tuple[bool, str], list[Example]] = {}
        self._concerning: dict[tuple[str, str, str], PolicySet] = {}

    def cells(self, action: str, category: str | None) -> list[Cell]:
        """One cell for each role, and one for several roles together if only those change."""
        anyone = [self._half(None, action, category, is_more=more) for more in (True, False)]
        if all(isinstance(half, Nothing) for half in anyone):
            return [Cell(role, action, category, Verdict.UNCHANGED) for role in self._roles]
        found = [
            self._cell(
                role,
                action,
                category,
                *(
                    half
                    if isinstance(half, Nothing)
                    else self._half(role, action, category, is_more=more)
                    for half, more in zip(anyone, (True, False), strict=True)
                ),
            )
            for role in self._roles
        ]
        if all(cell.verdict is Verdict.UNCHANGED for cell in found):
            found.append(self._cell(SEVERAL, action, category, *anyone))
        return found

    def _cell(self, role: str, action: str, category: str | None, more: Found, less: Found) -> Cell:
        gained, lost = self._shown(more), self._shown(less)
        why = "; ".join(dict.fromkeys(h.why for h in (more, less) if isinstance(h, Unknown)))
        return Cell(role, action, category, _verdict(gained, lost, why), gained, lost, why)

    def _half(self, role: str | None, action: str, category: str | None, *, is_more: bool) -> Found:
        known = self._pool.setdefault((is_more, action), [])
        if role is not None:
            for example in known:
                moved = self._moved(example, role, category)
                if moved is not None and self._differs(moved, is_more=is_more):
                    return moved
        ask = self._comparison.newly_allowed if is_more else self._comparison.newly_denied
        found = ask(role, action, category, others=role is None)
        if isinstance(found, Example) and len(found.who.assignments) == 1:
            known.insert(0, found)
            del known[_POOL:]
        return found

    def _moved(self, example: Example, role: str, category: str | None) -> Example | None:
        """The same request by somebody of the role, if she may claim its purpose at all."""
        held = tuple(dict.fromkeys(replace(a, role=role) for a in example.who.assignments))
        if not any(example.purpose in book.get(role, ()) for book in self._claimable):
            return None
        return replace(example, who=replace(example.who, assignments=held), category=category)

    def _differs(self, example: Example, *, is_more: bool) -> bool:
        sides = (self._after, self._before) if is_more else (self._before, self._after)
        allows, denies = (example.is_allowed(version.policies, version.roles) for version in sides)
        return allows and not denies

    def _shown(self, found: Found) -> Shown | None:
        if not isinstance(found, Example):
            return None
        return Shown(found, answer(found, self._before), answer(found, self._after))


def _concerning(version: PolicyVersion, role: str, action: str) -> PolicySet:
    """The policies whose scope does not rule out the role or the action: the others are false,
    since the scope comes first and cannot fail."""
    above = version.roles.entities().ancestors(EntityUid("Role", role))
    actions = set(VIEW_ACTIONS.values()) if action in _LEVELS else {action}
    grouped = any(known.parents for known in version.schema.actions.values())

    def concerns(policy: Policy) -> bool:
        whom, what = policy.principal, policy.action
        if whom.op == "in" and all(
            isinstance(uid, EntityUid) and uid.type == "Role" and uid not in above
            for uid in whom.entities
        ):
            return False
        return (
            grouped
            or what.op == "all"
            or any(isinstance(uid, EntityUid) and uid.id in actions for uid in what.entities)
        )

    kept = tuple(policy for policy in version.policies.policies if concerns(policy))
    return PolicySet(kept, version.policies.hash)


def answer(example: Example, version: PolicyVersion) -> str:
    """The level that is seen, or whether the action is allowed."""
    if example.action in _LEVELS:
        return example.level(version.policies, version.roles).label
    return "allowed" if example.is_allowed(version.policies, version.roles) else "refused"


def _verdict(more: Shown | None, less: Shown | None, why: str) -> Verdict:
    if more and less:
        return Verdict.BOTH
    if why and not (more or less):
        return Verdict.UNKNOWN
    if more:
        nothing = more.before in {Disclosure.WITHHELD.label, "refused"}
        return Verdict.ALLOWED if nothing else Verdict.RAISED
    if less:
        nothing = less.after in {Disclosure.WITHHELD.label, "refused"}
        return Verdict.DENIED if nothing else Verdict.LOWERED
    return Verdict.UNCHANGED
