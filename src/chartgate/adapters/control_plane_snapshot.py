"""What the control plane holds at one epoch: frozen, complete, shared by every session of a node.

The rule kept: a decision reads one snapshot and nothing else about people, so everything it used
belongs together. Expiry is not in the snapshot: whoever asks names the time, and an assignment or
credential that has ended needs no reload to stop working.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from chartgate.model.principal import Assignment, Person


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """A role as ``policies/roles.toml`` names it."""

    name: str
    title: str
    default_purpose: str | None = None
    purposes: tuple[str, ...] = ()
    """Purposes of use the role may claim."""
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Credential:
    """What a login is checked against; the password itself is nowhere."""

    scram_verifier: str = field(repr=False)
    valid_until: datetime


@dataclass(frozen=True, slots=True)
class ControlPlaneSnapshot:
    """People, roles and credentials at ``epoch``."""

    persons: Mapping[str, Person]
    """By login name."""
    roles: Mapping[str, RoleRecord]
    credentials: Mapping[str, Credential] = field(repr=False)
    """By login name; only of active persons."""
    epoch: int
    loaded_at: datetime
    names: Mapping[str, str]
    """uid -> full name: how a report names whom the log knows by uid."""

    def credential(self, name: str, *, at: datetime) -> Credential | None:
        """The credential a login by ``name`` may use at ``at``."""
        found = self.credentials.get(name)
        return found if found is not None and at < found.valid_until else None

    def default_purpose(self, person: Person, *, at: datetime) -> str | None:
        """The purpose of a session that states none: of the first live role that has one."""
        for assignment in person.live(at=at):
            role = self.roles.get(assignment.role)
            if role is not None and role.default_purpose is not None:
                return role.default_purpose
        return None

    def purposes(self, person: Person, *, at: datetime) -> frozenset[str]:
        """The purposes the person's live roles may claim."""
        live = (self.roles.get(a.role) for a in person.live(at=at))
        return frozenset(p for role in live if role is not None for p in role.purposes)

    def ancestors(self, role: str) -> frozenset[str]:
        """The role and every role it is in, directly or not."""
        found: set[str] = set()
        waiting = [role]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self.roles[name].parents if name in self.roles else ())
        return frozenset(found)


PersonRow = tuple[str, str, str, bool, str | None, datetime | None]
AssignmentRow = tuple[str, str, str | None, datetime, datetime | None, str | None, str | None]
RoleRow = tuple[str, str, str | None, list[str], list[str]]


def build_snapshot(
    *,
    epoch: int,
    loaded_at: datetime,
    roles: Iterable[RoleRow],
    persons: Iterable[PersonRow],
    assignments: Iterable[AssignmentRow],
) -> ControlPlaneSnapshot:
    """Rows, in the order of the queries beside the schema, to a snapshot."""
    held: dict[str, list[Assignment]] = {}
    for uid, role, department, valid_from, valid_until, reference, patient in assignments:
        held.setdefault(uid, []).append(
            Assignment(role, department, valid_from, valid_until, reference, patient)
        )
    people: dict[str, Person] = {}
    credentials: dict[str, Credential] = {}
    for uid, name, full_name, active, verifier, until in persons:
        people[name] = Person(uid, name, full_name, active, tuple(held.get(uid, ())))
        if active and verifier is not None and until is not None:
            credentials[name] = Credential(verifier, until)
    return ControlPlaneSnapshot(
        persons=MappingProxyType(people),
        roles=MappingProxyType(
            {
                name: RoleRecord(name, title, default, tuple(purposes), tuple(parents))
                for name, title, default, purposes, parents in roles
            }
        ),
        credentials=MappingProxyType(credentials),
        epoch=epoch,
        loaded_at=loaded_at,
        names=MappingProxyType({p.uid: p.full_name for p in people.values()}),
    )
