"""Separation of duties: what no single person should be able to do together (164.308(a)(3)-(4)).

``policies/duties.toml`` lists pairs of duties. A role, or two roles that one person may hold, is
in conflict when some permit gives her an action of the one and some permit an action of the other,
and no guardrail takes it away. Permits are counted for each role alone and forbids for the person
as a whole, as decisions count them. The rule kept: a forbid counts only where it is certain to
hold for those roles, so a conflict may be told that a finer condition excludes, and none is
hidden.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, zip_longest
from typing import Any, Final

from chartgate.app.lint_facts import ANYTHING, Certain, Facts
from chartgate.app.lint_finding import Finding, Severity
from chartgate.app.policy_bundle import DUTIES, InvalidBundle, PolicyVersion

_KEYS: Final = frozenset({"title", "one", "other", "clause", "accepted", "because"})


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two lists of actions that should not meet; ``accepted`` roles may have both, and why."""

    title: str
    one: tuple[str, ...]
    other: tuple[str, ...]
    clause: str
    accepted: frozenset[str] = frozenset()
    because: str = ""
    line: int = 1


def read_duties(document: Mapping[str, Any]) -> tuple[Conflict, ...]:
    """From the parsed ``duties.toml``; raises ``InvalidBundle``."""
    if strange := sorted(set(document) - {"conflict"}):
        raise InvalidBundle(f"{DUTIES}: unknown key {strange[0]!r}")
    forms = document.get("conflict", [])
    if not isinstance(forms, list):
        raise InvalidBundle(f"{DUTIES}: conflict is a list of tables: [[conflict]]")
    return tuple(_conflict(form, f"{DUTIES}: conflict {n}") for n, form in enumerate(forms, 1))


def _conflict(form: Any, where: str) -> Conflict:
    if not isinstance(form, dict):
        raise InvalidBundle(f"{where}: not a table")
    if strange := sorted(set(form) - _KEYS):
        raise InvalidBundle(f"{where}: unknown key {strange[0]!r}")
    texts = [form.get(key, "") for key in ("title", "clause", "because")]
    lists = [form.get(key, []) for key in ("one", "other", "accepted")]
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists
    ):
        raise InvalidBundle(f"{where}: title, clause and because are strings, the others lists")
    title, clause, because = texts
    one, other, accepted = lists
    if not title or not one or not other:
        raise InvalidBundle(f"{where}: needs title, one and other")
    if accepted and not because:
        raise InvalidBundle(f"{where}: says who may have both, but not because of what")
    return Conflict(title, tuple(one), tuple(other), clause, frozenset(accepted), because)


def duties_of(version: PolicyVersion) -> tuple[Conflict, ...]:
    """The version's conflicts of duties; none where its folder has no ``duties.toml``.

    Raises ``InvalidBundle`` when one names an action or a role that does not exist.
    """
    if DUTIES not in version.bundle.files:
        return ()
    lines = version.bundle.text(DUTIES).split("\n")
    places = [n for n, line in enumerate(lines, 1) if line.strip().startswith("[[conflict]]")]
    read = tuple(
        replace(conflict, line=place)
        for conflict, place in zip_longest(
            read_duties(version.bundle.toml(DUTIES)), places, fillvalue=1
        )
        if isinstance(conflict, Conflict)
    )
    actions = {uid.id for uid in version.schema.actions}
    for conflict in read:
        for name in (*conflict.one, *conflict.other):
            if name not in actions:
                raise InvalidBundle(f"{DUTIES}: {conflict.title!r}: no action {name!r}")
        for name in sorted(conflict.accepted):
            if name not in version.roles.roles:
                raise InvalidBundle(f"{DUTIES}: {conflict.title!r}: no role {name!r}")
    return read


class _Powers:
    """Which permits give a role an action, and what guardrails leave of them."""

    def __init__(self, facts: Facts) -> None:
        self.every = facts.categories or ANYTHING
        self.roles_of = facts.roles_of
        self.given: dict[tuple[str, str], frozenset[str]] = {}
        self.forbids: dict[str, list[Certain]] = {}
        for policy in facts.version.policies.policies:
            names = {uid.id for uid in facts.actions(policy)}
            if policy.effect == "forbid":
                certain = facts.certainty(policy)
                if certain is not None:
                    for name in names:
                        self.forbids.setdefault(name, []).append(certain)
                continue
            limit = facts.category_limit(policy)
            for role in facts.held_by(policy):
                for name in names:
                    before = self.given.get((role, name), frozenset())
                    self.given[role, name] = before | (self.every if limit is None else limit)

    def has(self, role: str, action: str, held: frozenset[str]) -> bool:
        """Whether the person's guardrails leave standing something that the role is given."""
        left = self.given.get((role, action), frozenset())
        if not left:
            return False
        above = frozenset().union(*(self.roles_of[one] for one in held))
        for forbid in self.forbids.get(action, ()):
            if all(above & wanted for wanted in forbid.roles):
                left -= forbid.categories
        return bool(left)


def conflicts(facts: Facts, duties: tuple[Conflict, ...]) -> Iterator[Finding]:
    """Roles in conflict with themselves, and pairs of roles that are so only together."""
    powers = _Powers(facts)
    roles = sorted(facts.version.roles.roles)
    for duty in duties:
        single = set()
        for role in roles:
            both = _meet(powers, duty, (role,))
            if both:
                single.add(role)
                yield _told(duty, (role,), both)
        pairs = {}
        for pair in combinations([role for role in roles if role not in single], 2):
            # Who holds a role holds those above it: such a pair is the one role alone.
            if any(above in pair for role in pair for above in facts.roles_of[role] - {role}):
                continue
            both = _meet(powers, duty, pair)
            if both:
                pairs[pair] = both
        yield from _grouped(duty, pairs)


def _meet(powers: _Powers, duty: Conflict, roles: tuple[str, ...]) -> tuple[str, str] | None:
    held = frozenset(roles)
    for one in duty.one:
        for other in duty.other:
            if any(powers.has(role, one, held) for role in roles) and any(
                powers.has(role, other, held) for role in roles
            ):
                return one, other
    return None


def _grouped(duty: Conflict, pairs: dict[tuple[str, str], tuple[str, str]]) -> Iterator[Finding]:
    """One finding for each role with all the roles it conflicts with, widest first."""
    left = dict(pairs)
    while left:
        counted = Counter(role for pair in left for role in pair)
        most = max(sorted(counted), key=lambda role: counted[role])
        mine = sorted(pair for pair in left if most in pair)
        partners = sorted({role for pair in mine for role in pair} - {most})
        both = left[mine[0]]
        for pair in mine:
            del left[pair]
        yield _told(duty, (most, *partners), both)


def _told(duty: Conflict, roles: tuple[str, ...], both: tuple[str, str]) -> Finding:
    who, partners = roles[0], roles[1:]
    if partners:
        who = f"{who} together with {' or '.join(partners)}"
    cited = f" ({duty.clause})" if duty.clause else ""
    what = f"{duty.title}{cited}, but {who} may {both[0]} and {both[1]}"
    severity, rule = Severity.WARNING, "conflicting-duties"
    advice = "forbid it to whoever holds the one role, or do not give both to one person"
    if all(role in duty.accepted for role in roles):
        severity, rule, advice = Severity.NOTE, "duties-accepted", f"accepted: {duty.because}"
    elif not partners:
        severity = Severity.ERROR
        advice = f"split the role, or accept it in {DUTIES} and say because of what"
    return Finding(severity, rule, DUTIES, duty.line, "", f"{what}: {advice}")
