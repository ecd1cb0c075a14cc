"""What the control plane holds at one epoch: frozen, complete, shared by every session of a node.

The rule kept: a decision reads one snapshot and nothing else about people, so everything it used
belongs together. Expiry is not in the snapshot: whoever asks names the time, and an assignment or
credential that has ended needs no reload to stop working. The next snapshot shares with this one
whatever did not change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from chartgate.adapters.control_plane_people import (
    Holder,
    PeopleView,
    StoredPerson,
    View,
    instant,
)
from chartgate.adapters.control_plane_services import Services
from chartgate.adapters.control_plane_table import SharedTable
from chartgate.model.principal import Person


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
class GrantRow:
    """A grant as the tables have it, not ended: hearsay until its approval was verified."""

    id: str
    person_uid: str
    policy: str
    valid_until: datetime
    entry: bytes
    proof: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What differs from the snapshot before."""

    everything: bool = False
    """All of it may; the sets say nothing then."""
    names: frozenset[str] = frozenset()
    """Login names, old and new, of people whose rows or assignments changed."""
    grants: frozenset[str] = frozenset()
    """Ids; whether a grant still is there is for the snapshot to say."""
    roles: bool = False
    services: bool = False
    policies: bool = False
    """A step of a version of the policies or of a data map was filed."""


EVERYTHING = Changed(everything=True, roles=True, services=True, policies=True)


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
    grants: Mapping[str, GrantRow] = field(default_factory=SharedTable, repr=False)
    """By id; those that were not ended and may still count."""
    services: Services = field(default_factory=Services, repr=False)
    changed: Changed = EVERYTHING
    mark: str = ""
    """Of the change that made the epoch: another history has another."""
    stored: "Stored" = field(
        default_factory=lambda: Stored(SharedTable(), SharedTable()), repr=False
    )

    def person_of(self, uid: str) -> Person | None:
        """The person of a uid, whatever she is called now."""
        found = self.stored.by_uid.get(uid)
        return None if found is None else self.stored.holder.person(found)

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


@dataclass(frozen=True, slots=True)
class Stored:
    """The rows behind a snapshot, for the one that follows it."""

    by_name: SharedTable[StoredPerson]
    by_uid: SharedTable[StoredPerson]
    holder: Holder = field(default_factory=Holder)


PersonRow = tuple[str, str, str, bool, str | None, bytes | None, bytes | None, bytes | str | None]
RoleRow = tuple[str, str, str | None, list[str], list[str]]


def stored_person(row: PersonRow) -> StoredPerson:
    """A row of the queries beside the schema."""
    uid, name, full_name, active, verifier, until, times, words = row
    return StoredPerson(
        uid,
        name,
        full_name,
        active,
        verifier,
        None if until is None else int.from_bytes(until, "big", signed=True),
        times or b"",
        words.encode() if isinstance(words, str) else words or b"",
    )


def build_snapshot(
    *,
    epoch: int,
    mark: str,
    loaded_at: datetime,
    roles: Iterable[RoleRow],
    persons: Iterable[StoredPerson],
    grants: Iterable[GrantRow],
    services: Services,
) -> ControlPlaneSnapshot:
    """Everything, from rows in the order of the queries beside the schema."""
    listed = list(persons)
    stored = Stored(
        SharedTable((one.name, one) for one in listed),
        SharedTable((one.uid, one) for one in listed),
    )
    return ControlPlaneSnapshot(
        roles=read_roles(roles),
        epoch=epoch,
        mark=mark,
        loaded_at=loaded_at,
        grants=SharedTable((grant.id, grant) for grant in grants),
        services=services,
        **_views(stored),
    )


def next_snapshot(
    before: ControlPlaneSnapshot,
    *,
    epoch: int,
    mark: str,
    loaded_at: datetime,
    persons: Iterable[StoredPerson],
    grants: Iterable[GrantRow],
    grant_ids: frozenset[str],
    roles: Iterable[RoleRow] | None,
    services: Services | None,
    policies: bool,
) -> ControlPlaneSnapshot:
    """``before`` with what was read anew; ``None`` where nothing was.

    Of people there are new rows, never fewer; of ``grant_ids`` those without a row have ended.
    """
    fresh = list(persons)
    old = [found for one in fresh if (found := before.stored.by_uid.get(one.uid)) is not None]
    stored = Stored(
        before.stored.by_name.changed(
            ((one.name, one) for one in fresh), (one.name for one in old)
        ),
        before.stored.by_uid.changed((one.uid, one) for one in fresh),
        before.stored.holder,
    )
    held = before.grants
    assert isinstance(held, SharedTable)
    return replace(
        before,
        roles=before.roles if roles is None else read_roles(roles),
        epoch=epoch,
        mark=mark,
        loaded_at=loaded_at,
        grants=held.changed(((grant.id, grant) for grant in grants), grant_ids),
        services=before.services if services is None else services,
        changed=Changed(
            names=frozenset(one.name for one in (*old, *fresh)),
            grants=grant_ids,
            roles=roles is not None,
            services=services is not None,
            policies=policies,
        ),
        **_views(stored),
    )


def read_roles(rows: Iterable[RoleRow]) -> Mapping[str, RoleRecord]:
    """Roles by name."""
    return MappingProxyType(
        {
            name: RoleRecord(name, title, default, tuple(purposes), tuple(parents))
            for name, title, default, purposes, parents in rows
        }
    )


def _views(stored: Stored) -> dict[str, Any]:
    return {
        "persons": PeopleView(stored.by_name, stored.holder),
        "credentials": View(stored.by_name, _credential),
        "names": View(stored.by_uid, _full_name),
        "stored": stored,
    }


def _credential(stored: StoredPerson) -> Credential | None:
    if not stored.active or stored.verifier is None or stored.until is None:
        return None
    return Credential(stored.verifier, instant(stored.until))


def _full_name(stored: StoredPerson) -> str:
    return stored.full_name
