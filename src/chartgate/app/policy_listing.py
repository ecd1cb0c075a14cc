"""``chartgate policy list``: each policy in a line, found by the clause it serves or the role it is for.

The rule kept: nothing is left out for being hard to put in few words; what has no short form is told
as "some", never as nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from chartgate.app.clauses import Citation, citations
from chartgate.app.lint_facts import Facts
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.cedar.ast import Policy
from chartgate.cedar.text import uid_text
from chartgate.errors import Refused
from chartgate.model.principal import EntityUid


class UnknownRole(Refused):
    """A role that the policies do not have."""

    code = "unknown_role"


@dataclass(frozen=True, slots=True)
class Listed:
    """A policy in short. ``categories`` is empty when the conditions do not limit them."""

    id: str
    effect: str
    roles: tuple[str, ...]
    who: str
    actions: tuple[str, ...]
    categories: tuple[str, ...]
    clause: str
    owner: str
    review: str
    file: str
    line: int

    @property
    def what(self) -> str:
        """Actions, and the categories they are about."""
        if not self.categories:
            return ", ".join(self.actions)
        return f"{', '.join(self.actions)}: {', '.join(self.categories)}"


def listing(
    version: PolicyVersion, *, clause: Citation | None = None, role: str | None = None
) -> tuple[Listed, ...]:
    """The policies in the order of their files; those that serve a clause, or concern a role.

    A role is concerned by what is said of the roles it is in, and of everybody.
    """
    facts = Facts(version)
    if role is not None and role not in version.roles.roles:
        raise UnknownRole(f"there is no role {role!r} in roles.toml")
    return tuple(
        _listed(policy, facts)
        for policy in version.policies.policies
        if (clause is None or _serves(policy, clause))
        and (role is None or role in facts.held_by(policy))
    )


def _serves(policy: Policy, clause: Citation) -> bool:
    known, _ = citations(policy.annotation("clause") or "")
    return any(citation.is_within(clause) for citation in known)


def _listed(policy: Policy, facts: Facts) -> Listed:
    demands = facts.role_demands(policy)
    limit = facts.category_limit(policy)
    whole = limit is None or limit == facts.categories
    return Listed(
        id=policy.id,
        effect=policy.effect,
        roles=tuple(sorted(frozenset().union(*demands))),
        who=_who(policy, demands),
        actions=_actions(policy, facts),
        categories=() if whole else tuple(_in_order(limit or (), facts)),
        clause=policy.annotation("clause") or "",
        owner=policy.annotation("owner") or "",
        review=policy.annotation("review") or "",
        file=policy.origin.file,
        line=policy.origin.line,
    )


def _actions(policy: Policy, facts: Facts) -> tuple[str, ...]:
    if policy.action.op == "all":
        return ("every action",)
    return tuple(uid.id for uid in facts.actions(policy))


def _who(policy: Policy, demands: Iterable[frozenset[str]]) -> str:
    told = [" or ".join(sorted(names)) for names in demands]
    if told:
        return " and ".join(told)
    people = [uid_text(e) for e in policy.principal.entities if isinstance(e, EntityUid)]
    return people[0] if people else "anybody"


def _in_order(names: Iterable[str], facts: Facts) -> list[str]:
    declared = facts.schema.entities["Category"].enum or () if facts.categories else ()
    kept = set(names)
    return [name for name in declared if name in kept]
