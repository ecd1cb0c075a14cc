"""What changes from one policy version to another, for every role, action and category.

The rules kept (45 CFR 164.308(a)(8), evaluation in response to change): a cell is *unchanged* when
that is proved over every request of people who hold the role; it is *changed* when a request is
shown that both versions were asked by the reference meaning (``chartgate.app.levels``); everything
else is *unknown*, with the reason. Nothing is guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.proof_diff import Comparison
from chartgate.app.proof_example import Example
from chartgate.app.version_facts import Facts, facts_of
from chartgate.model.disclosure import VIEW_ACTIONS, Disclosure
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import RECORD
from chartgate.targets.smt.solve import Unknown

_LEVELS: Final = {action: level for level, action in VIEW_ACTIONS.items()}


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
    with_other_roles: bool = False

    @property
    def changed(self) -> tuple[Cell, ...]:
        """The cells that are not unchanged."""
        return tuple(cell for cell in self.cells if cell.verdict is not Verdict.UNCHANGED)

    @property
    def is_same(self) -> bool:
        """Whether every request there can be has the answer that it had."""
        return not self.changed and not self.claims


def questions(
    before: PolicyVersion, after: PolicyVersion
) -> tuple[tuple[str, str, str | None], ...]:
    """Every role, action and category of either version."""
    roles = dict.fromkeys((*before.roles.roles, *after.roles.roles))
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
    return tuple(
        (role, action, category)
        for role in roles
        for action in actions
        for category in (categories if action in about_records else (None,))
    )


def policy_diff(
    before: PolicyVersion,
    after: PolicyVersion,
    compare: Callable[[], Comparison],
    *,
    with_other_roles: bool = False,
    progress: Callable[[int, int], None] = lambda _, __: None,
) -> PolicyDiff:
    """Compare two versions; ``compare`` is made when what they say leaves the answer open."""
    facts = facts_of(before, after)
    claims = claims_changed(before, after)
    if facts.same_meaning:
        return PolicyDiff(before, after, facts, (), claims, with_other_roles)
    asked = questions(before, after)
    diff = _Diff(before, after, compare(), with_other_roles)
    cells = []
    for number, question in enumerate(asked, start=1):
        cells.append(diff.cell(*question))
        progress(number, len(asked))
    return PolicyDiff(before, after, facts, tuple(cells), claims, with_other_roles)


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
    def __init__(
        self, before: PolicyVersion, after: PolicyVersion, comparison: Comparison, others: bool
    ) -> None:
        self._before = before
        self._after = after
        self._comparison = comparison
        self._others = others

    def cell(self, role: str, action: str, category: str | None) -> Cell:
        """The verdict on one cell."""
        found = self._comparison.differences(role, action, category, others=self._others)
        halves = (found.newly_allowed, found.newly_denied)
        more, less = (self._shown(half) if isinstance(half, Example) else None for half in halves)
        why = "; ".join(dict.fromkeys(h.why for h in halves if isinstance(h, Unknown)))
        return Cell(role, action, category, _verdict(more, less, why), more, less, why)

    def _shown(self, example: Example) -> Shown:
        return Shown(example, answer(example, self._before), answer(example, self._after))


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
