"""Roles and purposes as the policies know them: hierarchies, titles, default purposes.

Roles, departments and relationships come only from the control plane; a purpose is a *claim*,
limited by role and recorded as claimed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from chartgate.cedar.ast import PolicySet
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.text import uid_text
from chartgate.cedar.values import CedarSet, RecordValue
from chartgate.errors import Misconfigured, Refused
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.targets.admissible import entities_in


class UnknownName(Misconfigured):
    """A policy or assignment names a role or purpose that does not exist."""

    code = "unknown_name"


class PurposeRefused(Refused):
    """The claimed purpose is not one of the person's roles'."""

    code = "purpose_refused"


@dataclass(frozen=True, slots=True)
class Role:
    """A role: the roles it is in, and the purposes that people who hold it may claim.

    ``break_glass``: the categories for which the emergency procedure is open to those who hold it
    (45 CFR 164.312(a)(2)(ii)). It opens nothing: it says whom to tell of the procedure.
    """

    name: str
    title: str
    parents: tuple[str, ...]
    default_purpose: str
    purposes: tuple[str, ...]
    break_glass: tuple[str, ...] = ()


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

    def known_of(self, person: Person) -> Person:
        """The person with the assignments whose role is in the book: another counts for nothing.

        Policies are proved for the roles of their own book; a role that only the control plane
        knows must not even be a person's "some assignment".
        """
        kept = tuple(a for a in person.assignments if a.role in self.roles)
        return person if len(kept) == len(person.assignments) else replace(person, assignments=kept)

    def check_policies(self, policies: PolicySet) -> None:
        """Raise ``UnknownName`` when a policy names a role or purpose that does not exist."""
        for policy in policies.policies:
            for uid in sorted(entities_in(policy.condition())):
                known: Mapping[str, object] | None = {
                    "Role": self.roles,
                    "Purpose": self.purposes,
                }.get(uid.type)
                if known is not None and uid.id not in known:
                    raise UnknownName(
                        f"{policy.origin}: policy {policy.id}: unknown {uid_text(uid)}"
                    )

    def check_categories(self, categories: Iterable[str]) -> None:
        """Raise ``UnknownName`` when a role breaks the glass for a category that there is not."""
        known = dict.fromkeys(categories)
        for role in self.roles.values():
            where = f"roles.toml: role {role.name!r}: break_glass: category"
            _all_known(role.break_glass, known, where)


def read_rolebook(roles: Mapping[str, Any], purposes: Mapping[str, Any]) -> RoleBook:
    """From the parsed ``roles.toml`` and ``purposes.toml``; raises ``UnknownName``.

    Read strictly: a misspelt key, a word where a list belongs, or a role that is in itself would
    each give somebody other rights than were meant.
    """
    found = _table(roles.get("roles", roles), "roles.toml")
    book = RoleBook(
        roles={name: _role(name, spec) for name, spec in found.items()},
        purposes={
            name: _listed(parents, f"purposes.toml: purpose {name!r}")
            for name, parents in _table(purposes.get("purposes", purposes), "purposes.toml").items()
        },
    )
    for role in book.roles.values():
        where = f"roles.toml: role {role.name!r}"
        _all_known(role.parents, book.roles, f"{where}: parent")
        claimed = (*role.purposes, *([role.default_purpose] if role.default_purpose else ()))
        _all_known(claimed, book.purposes, f"{where}: purpose")
    for name, parents in book.purposes.items():
        _all_known(parents, book.purposes, f"purposes.toml: purpose {name!r}: parent")
    _no_cycle({role.name: role.parents for role in book.roles.values()}, "roles.toml: role")
    _no_cycle(book.purposes, "purposes.toml: purpose")
    return book


_ROLE_KEYS: Final = frozenset({"title", "parents", "default_purpose", "purposes", "break_glass"})


def _role(name: str, spec: object) -> Role:
    where = f"roles.toml: role {name!r}"
    told = _table(spec, where)
    if strange := sorted(set(told) - _ROLE_KEYS):
        raise UnknownName(f"{where}: unknown key {strange[0]!r}")
    title, purpose = told.get("title", name), told.get("default_purpose", "")
    if not isinstance(title, str) or not isinstance(purpose, str):
        raise UnknownName(f"{where}: title and default_purpose are strings")
    return Role(
        name=name,
        title=title,
        parents=_listed(told.get("parents", []), f"{where}: parents"),
        default_purpose=purpose,
        purposes=_listed(told.get("purposes", []), f"{where}: purposes"),
        break_glass=_listed(told.get("break_glass", []), f"{where}: break_glass"),
    )


def _table(form: object, where: str) -> Mapping[str, Any]:
    if not isinstance(form, Mapping):
        raise UnknownName(f"{where}: not a table")
    return form


def _listed(form: object, where: str) -> tuple[str, ...]:
    if not isinstance(form, list | tuple) or not all(isinstance(name, str) for name in form):
        raise UnknownName(f"{where}: not a list of names")
    return tuple(form)


def _no_cycle(parents: Mapping[str, tuple[str, ...]], what: str) -> None:
    """Names that come to themselves: each would be in all of the others."""
    # Kahn's order: what has no parents left is settled, and takes itself off its children.
    below: dict[str, list[str]] = {}
    waiting = {name: len(set(above)) for name, above in parents.items()}
    for name, above in parents.items():
        for one in set(above):
            below.setdefault(one, []).append(name)
    settled = [name for name, count in waiting.items() if not count]
    for name in settled:
        for child in below.get(name, ()):
            waiting[child] -= 1
            if not waiting[child]:
                settled.append(child)
    left = {name for name, count in waiting.items() if count}
    if left:
        name, path = min(left), dict[str, None]()
        while name not in path:
            path[name] = None
            name = min(left.intersection(parents[name]))
        raise UnknownName(f"{what} {name!r} is in itself: {_circle(list(path), name)}")


def _circle(path: list[str], name: str) -> str:
    return " in ".join(repr(one) for one in (*path[path.index(name) :], name))


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
