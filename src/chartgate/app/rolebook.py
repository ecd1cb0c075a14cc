"""Roles and purposes as the policies know them: hierarchies, titles, default purposes.

Roles, departments and relationships come only from the control plane; a purpose is a *claim*,
limited by role and recorded as claimed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chartgate.cedar.ast import Expr, Literal, PolicySet
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.errors import Misconfigured, Refused
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import children


class UnknownName(Misconfigured):
    """A policy or assignment names a role or purpose that does not exist."""

    code = "unknown_name"


class PurposeRefused(Refused):
    """The claimed purpose is not one of the person's roles'."""

    code = "purpose_refused"


@dataclass(frozen=True, slots=True)
class Role:
    """A role: the roles it is in, and the purposes that people who hold it may claim."""

    name: str
    title: str
    parents: tuple[str, ...]
    default_purpose: str
    purposes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleBook:
    """All roles, and the purpose hierarchy (purpose -> the purposes it is in)."""

    roles: Mapping[str, Role]
    purposes: Mapping[str, tuple[str, ...]]

    def entities(self) -> Entities:
        """The role and purpose hierarchies as Cedar entities."""
        return Entities(
            (
                *(
                    Entity(
                        EntityUid("Role", role.name),
                        parents=frozenset(EntityUid("Role", p) for p in role.parents),
                    )
                    for role in self.roles.values()
                ),
                *(
                    Entity(
                        EntityUid("Purpose", purpose),
                        parents=frozenset(EntityUid("Purpose", p) for p in parents),
                    )
                    for purpose, parents in self.purposes.items()
                ),
            )
        )

    def default_purpose(self, assignments: Iterable[Assignment]) -> str | None:
        """The purpose assumed when none is claimed: that of the first live assignment."""
        for assignment in assignments:
            role = self.roles.get(assignment.role)
            if role is not None and role.default_purpose:
                return role.default_purpose
        return None

    def check_claim(self, purpose: str, assignments: Iterable[Assignment]) -> None:
        """Raise ``PurposeRefused`` unless a live role may claim the purpose, or a wider one."""
        if purpose not in self.purposes:
            raise PurposeRefused("that is not a purpose of use")
        wider = {uid.id for uid in self.entities().ancestors(EntityUid("Purpose", purpose))}
        held = [self.roles[a.role] for a in assignments if a.role in self.roles]
        if not any(wider & set(role.purposes) for role in held):
            raise PurposeRefused(f"none of your roles may act for the purpose {purpose}")

    def check_policies(self, policies: PolicySet) -> None:
        """Raise ``UnknownName`` when a policy names a role or purpose that does not exist."""
        for policy in policies.policies:
            for uid in _entities_in(policy.condition()):
                known: Mapping[str, object] | None = {
                    "Role": self.roles,
                    "Purpose": self.purposes,
                }.get(uid.type)
                if known is not None and uid.id not in known:
                    raise UnknownName(f"{policy.origin}: policy {policy.id}: unknown {uid}")


def read_rolebook(roles: Mapping[str, Any], purposes: Mapping[str, Any]) -> RoleBook:
    """From the parsed ``roles.toml`` and ``purposes.toml``; raises ``UnknownName``."""
    book = RoleBook(
        roles={
            name: Role(
                name=name,
                title=str(spec.get("title", name)),
                parents=tuple(spec.get("parents", ())),
                default_purpose=str(spec.get("default_purpose", "")),
                purposes=tuple(spec.get("purposes", ())),
            )
            for name, spec in roles.get("roles", roles).items()
        },
        purposes={
            name: tuple(parents) for name, parents in purposes.get("purposes", purposes).items()
        },
    )
    for role in book.roles.values():
        _all_known(role.parents, book.roles, f"role {role.name}: parent")
        claimed = (*role.purposes, *([role.default_purpose] if role.default_purpose else ()))
        _all_known(claimed, book.purposes, f"role {role.name}: purpose")
    for name, parents in book.purposes.items():
        _all_known(parents, book.purposes, f"purpose {name}: parent")
    return book


def person_entity(person: Person, assignments: Iterable[Assignment]) -> Entity:
    """The person as Cedar sees her, with exactly these assignments counting."""
    live = tuple(assignments)
    return Entity(
        EntityUid("User", person.name),
        attrs=RecordValue(
            (
                (
                    "departments",
                    CedarSet.of(
                        EntityUid("Department", name)
                        for name in sorted({a.department for a in live if a.department})
                    ),
                ),
                (
                    "references",
                    CedarSet.of(sorted({a.reference for a in live if a.reference})),
                ),
                (
                    "patients",
                    CedarSet.of(
                        EntityUid("Patient", key)
                        for key in sorted({a.patient for a in live if a.patient})
                    ),
                ),
            )
        ),
        parents=frozenset(EntityUid("Role", a.role) for a in live),
    )


def _all_known(names: Iterable[str], known: Mapping[str, object], where: str) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(f"{where} {name!r} does not exist")


def _entities_in(expr: Expr) -> Iterable[EntityUid]:
    if isinstance(expr, Literal):
        if isinstance(expr.value, EntityUid):
            yield expr.value
        return
    for child in children(expr):
        yield from _entities_in(child)
