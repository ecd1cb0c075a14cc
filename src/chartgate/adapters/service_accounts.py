"""Accounts of applications: added, scoped, given tokens and certificates, and ended.

Rules kept (45 CFR 164.312(d), 164.308(a)(3)): every step is by a signed-in person whom the policies
in force allow it, and in the log before it counts; of a token the tables hold its SHA-256 alone, its
text is shown once; a service has at most two valid tokens, so that one can be replaced without a gap;
what is given is ended, never removed. What was asked for and refused is recorded as well.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg

from chartgate.adapters.control_plane import ControlPlane, UnknownName
from chartgate.adapters.control_plane_services import read_scope, scope_text
from chartgate.adapters.desk import Desk
from chartgate.adapters.policy_in_force import Loaded
from chartgate.adapters.state import Instance, State
from chartgate.errors import Misconfigured, Refused
from chartgate.model.event import ServiceStep
from chartgate.model.principal import Person
from chartgate.model.service import Scope

ADMINISTER: Final = "administer_services"
"""The administrative action that policy must allow."""
MOST_DAYS: Final = 400
"""A token that lives longer is nobody's to watch."""
_CHANNEL: Final = "services"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_.-]{0,62}")
_SECRET_BYTES: Final = 32


class ServiceRefused(Refused):
    """Policy does not let this person administer services; the attempt is in the log."""

    code = "service_refused"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, the only time that its text is anywhere."""

    id: str
    text: str
    valid_until: datetime

    def __repr__(self) -> str:
        return f"IssuedToken(id={self.id!r}, valid_until={self.valid_until!r})"


@dataclass(frozen=True, slots=True)
class ListedToken:
    """A token as the table has it; its secret is nowhere."""

    id: str
    created_at: datetime
    valid_until: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedCertificate:
    """A certificate that a service is known by."""

    id: int
    fingerprint: str | None
    subject: str | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedService:
    """A service with what it is known by."""

    uid: str
    name: str
    title: str
    active: bool
    scope: Scope
    created_at: datetime
    tokens: tuple[ListedToken, ...]
    certificates: tuple[ListedCertificate, ...]


def new_token() -> tuple[str, str]:
    """A token's id and text: ``cgs_<id>_<secret>``, the secret 32 random bytes in base64url."""
    number = secrets.token_hex(4)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
    return number, f"cgs_{number}_{secret}"


def digest_of(token: str) -> bytes:
    """What the tables hold of a token."""
    return hashlib.sha256(token.encode()).digest()


class ServiceDesk(Desk):
    """One sitting: people sign in, and administer services as policy lets them."""

    def __init__(
        self,
        state: State,
        instance: Instance,
        loaded: Loaded,
        control: ControlPlane,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(state, instance, loaded.point, control.snapshot, channel=_CHANNEL, now=now)
        self._control = control

    def add(self, person: Person, name: str, scope: Scope, *, title: str = "") -> str:
        """A new service, without any credential; answers its uid."""
        self._check_name(name)
        uid = f"s_{secrets.token_hex(8)}"
        self._step(person, uid, "added", {"name": name, "scope": scope_text(scope)})
        try:
            with self._control.change() as cursor:
                cursor.execute(
                    "INSERT INTO service (uid, name, title, scope) VALUES (%s, %s, %s, %s)",
                    [uid, name, title, scope_text(scope)],
                )
        except psycopg.errors.UniqueViolation:
            raise Misconfigured("there is a service of that name") from None
        return uid

    def set_scope(self, person: Person, name: str, scope: Scope) -> None:
        """What the service may ask, and is believed, from now on."""
        uid = self._uid(name)
        self._step(person, uid, "scoped", {"scope": scope_text(scope)})
        with self._control.change() as cursor:
            cursor.execute("UPDATE service SET scope = %s WHERE uid = %s", [scope_text(scope), uid])

    def deactivate(self, person: Person, name: str) -> None:
        """None of its credentials counts any more."""
        self._set_active(person, name, "deactivated", active=False)

    def activate(self, person: Person, name: str) -> None:
        """Its credentials count again, those that have not ended."""
        self._set_active(person, name, "activated", active=True)

    def issue_token(self, person: Person, name: str, *, valid_until: datetime) -> IssuedToken:
        """A token, shown once; the third that would be valid at the same time is refused."""
        now = self._now()
        if not now < valid_until <= now + timedelta(days=MOST_DAYS):
            raise Misconfigured(f"a token ends in the future, within {MOST_DAYS} days")
        uid = self._uid(name)
        self._check_room(uid)
        number, text = new_token()
        until = valid_until.astimezone(UTC).isoformat(timespec="seconds")
        self._step(person, uid, "token_issued", {"token": number, "valid_until": until})
        with self._control.change() as cursor:
            cursor.execute(
                "INSERT INTO service_token (id, service_uid, digest, valid_until) "
                "VALUES (%s, %s, %s, %s)",
                [number, uid, digest_of(text), valid_until],
            )
        return IssuedToken(number, text, valid_until)

    def revoke_token(self, person: Person, token_id: str) -> bool:
        """End a token; whether it was not ended yet."""
        with self._control.change() as cursor:
            row = cursor.execute(
                "SELECT service_uid FROM service_token WHERE id = %s", [token_id]
            ).fetchone()
        if row is None:
            raise UnknownName("there is no such token")
        self._step(person, row[0], "token_revoked", {"token": token_id})
        with self._control.change() as cursor:
            cursor.execute(
                "UPDATE service_token SET revoked_at = %s WHERE id = %s AND revoked_at IS NULL",
                [self._now(), token_id],
            )
            return cursor.rowcount == 1

    def pin_certificate(
        self, person: Person, name: str, *, fingerprint: str = "", subject: str = ""
    ) -> int:
        """Know the service by a certificate's SHA-256 (hex), or by a subject of a trusted issuer."""
        uid = self._uid(name)
        fingerprint = fingerprint.lower().replace(":", "")
        self._step(person, uid, "certificate_pinned", _known_by(fingerprint, subject))
        try:
            with self._control.change() as cursor:
                row = cursor.execute(
                    "INSERT INTO service_certificate (service_uid, fingerprint, subject) "
                    "VALUES (%s, %s, %s) RETURNING id",
                    [uid, fingerprint or None, subject or None],
                ).fetchone()
        except psycopg.errors.UniqueViolation:
            raise Misconfigured("a service is known by that certificate already") from None
        return int(row[0]) if row else 0

    def unpin_certificate(self, person: Person, number: int) -> bool:
        """The certificate is nobody's any more; whether it was somebody's."""
        with self._control.change() as cursor:
            row = cursor.execute(
                "SELECT service_uid FROM service_certificate WHERE id = %s", [number]
            ).fetchone()
        if row is None:
            raise UnknownName("there is no such certificate")
        self._step(person, row[0], "certificate_unpinned", {"certificate": str(number)})
        with self._control.change() as cursor:
            cursor.execute(
                "UPDATE service_certificate SET revoked_at = %s "
                "WHERE id = %s AND revoked_at IS NULL",
                [self._now(), number],
            )
            return cursor.rowcount == 1

    def list(self) -> tuple[ListedService, ...]:
        """All services in the order of their names, with everything they were ever known by."""
        with self._control.change() as cursor:
            services = cursor.execute(
                "SELECT uid, name, title, active, scope::text, created_at FROM service ORDER BY name"
            ).fetchall()
            tokens = cursor.execute(
                "SELECT service_uid, id, created_at, valid_until, revoked_at "
                "FROM service_token ORDER BY created_at, id"
            ).fetchall()
            certificates = cursor.execute(
                "SELECT service_uid, id, fingerprint, subject, revoked_at "
                "FROM service_certificate ORDER BY id"
            ).fetchall()
        return tuple(
            ListedService(
                uid,
                name,
                title,
                active,
                read_scope(scope),
                created,
                tuple(ListedToken(*row[1:]) for row in tokens if row[0] == uid),
                tuple(ListedCertificate(*row[1:]) for row in certificates if row[0] == uid),
            )
            for uid, name, title, active, scope, created in services
        )

    def _set_active(self, person: Person, name: str, step: str, *, active: bool) -> None:
        uid = self._uid(name)
        self._step(person, uid, step, {})
        with self._control.change() as cursor:
            cursor.execute("UPDATE service SET active = %s WHERE uid = %s", [active, uid])

    def _step(self, person: Person, service: str, step: str, detail: dict[str, str]) -> int:
        """Record a step that policy allows; raises ``ServiceRefused``, recorded, if it does not."""
        current = self._control.snapshot().person_of(person.uid)
        allowed = self._decide(current, (ADMINISTER,), "")[0]
        index = self._append(
            ServiceStep(
                at=self._at(),
                node=self._instance.node,
                person=person.uid,
                service=service,
                step=step if allowed else "refused",
                detail=detail if allowed else {"step": step},
            )
        )
        if not allowed:
            raise ServiceRefused(
                f"policy does not let {person.name} administer services; "
                f"the attempt is recorded as event {index}"
            )
        return index

    def _uid(self, name: str) -> str:
        with self._control.change() as cursor:
            row = cursor.execute("SELECT uid FROM service WHERE name = %s", [name]).fetchone()
        if row is None:
            raise UnknownName("there is no service of that name")
        return str(row[0])

    def _check_name(self, name: str) -> None:
        """The table sees to it; this says it before anything is recorded."""
        if _NAME.fullmatch(name) is None:
            raise Misconfigured(
                "the name of a service is a small letter or _, then small letters, digits, . _ "
                "and -, 63 at most"
            )
        with self._control.change() as cursor:
            row = cursor.execute("SELECT 1 FROM service WHERE name = %s", [name]).fetchone()
        if row is not None:
            raise Misconfigured("there is a service of that name")

    def _check_room(self, uid: str) -> None:
        """The table sees to it; this says it before anything is recorded."""
        with self._control.change() as cursor:
            rows = cursor.execute(
                "SELECT id FROM service_token WHERE service_uid = %s "
                "AND revoked_at IS NULL AND valid_until > now() ORDER BY created_at",
                [uid],
            ).fetchall()
        if len(rows) >= 2:
            ids = " and ".join(str(row[0]) for row in rows)
            raise Misconfigured(
                f"the service has two valid tokens, {ids}: revoke one of them first"
            )


def _known_by(fingerprint: str, subject: str) -> dict[str, str]:
    if bool(fingerprint) == bool(subject):
        raise Misconfigured("a certificate is known by its fingerprint, or by its subject")
    return {"fingerprint": fingerprint} if fingerprint else {"subject": subject}
