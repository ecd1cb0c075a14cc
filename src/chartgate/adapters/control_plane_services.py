"""Applications with accounts, as a node keeps them: who a token or a certificate belongs to.

Rules kept (45 CFR 164.312(d)): of a token only its SHA-256 is known, here as in the tables; it counts
until its own end and while its service is active; a lookup is by digest, and what it finds is
compared in constant time.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec

from chartgate.app.node_asked import UnknownCaller
from chartgate.model.service import Scope, Service

TOKEN: Final = re.compile(r"cgs_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\Z")

ServiceRow = tuple[str, str, bool, str]
TokenRow = tuple[str, str, bytes, datetime]
CertificateRow = tuple[str, str | None, str | None]


class _ScopeForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scope as it is stored. What this program does not know of it is not guessed."""

    actions: frozenset[str] = frozenset()
    resource_types: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    asserts: frozenset[str] = frozenset()
    may_search: bool = False


def scope_text(scope: Scope) -> str:
    """The scope as JSON, one text for one scope."""
    form = {
        "actions": sorted(scope.actions),
        "resource_types": sorted(scope.resource_types),
        "categories": sorted(scope.categories),
        "asserts": sorted(scope.asserts),
        "may_search": scope.may_search,
    }
    return msgspec.json.encode(form).decode()


def read_scope(text: str) -> Scope:
    """A stored scope; what cannot be read allows nothing."""
    try:
        form = msgspec.json.decode(text, type=_ScopeForm)
    except msgspec.MsgspecError:
        return Scope()
    return Scope(form.actions, form.resource_types, form.categories, form.asserts, form.may_search)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that may still count."""

    id: str
    service: str
    digest: bytes
    valid_until: datetime


@dataclass(frozen=True)
class Services:
    """All services, their tokens and certificates, at one epoch."""

    by_uid: Mapping[str, Service] = field(default_factory=dict)
    by_name: Mapping[str, Service] = field(default_factory=dict)
    tokens: Mapping[bytes, Token] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)

    def of_token(self, text: str, *, at: datetime) -> Service:
        """Whose token it is; raises ``UnknownCaller``."""
        if TOKEN.match(text) is None:
            raise UnknownCaller("not a service token")
        digest = hashlib.sha256(text.encode()).digest()
        found = self.tokens.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            raise UnknownCaller("no such token, or it was revoked")
        if at >= found.valid_until:
            raise UnknownCaller("the token has ended")
        return self._active(found.service)

    def of_certificate(self, fingerprint: str, subject: str) -> Service:
        """Whose certificate it is; raises ``UnknownCaller``."""
        uid = self.fingerprints.get(fingerprint) or (
            self.subjects.get(subject) if subject else None
        )
        if uid is None:
            raise UnknownCaller("no service has this certificate")
        return self._active(uid)

    def named(self, name: str) -> Service:
        """The service of this name; raises ``UnknownCaller``."""
        found = self.by_name.get(name)
        if found is None:
            raise UnknownCaller("no service has this name")
        return self._active(found.uid)

    def _active(self, uid: str) -> Service:
        service = self.by_uid.get(uid)
        if service is None or not service.active:
            raise UnknownCaller("the service is not active")
        return service


def build_services(
    services: Iterable[ServiceRow],
    tokens: Iterable[TokenRow],
    certificates: Iterable[CertificateRow],
) -> Services:
    """From the rows of the queries beside the schema."""
    found = [Service(uid, name, active, read_scope(scope)) for uid, name, active, scope in services]
    pinned = list(certificates)
    return Services(
        by_uid=MappingProxyType({one.uid: one for one in found}),
        by_name=MappingProxyType({one.name: one for one in found}),
        tokens=MappingProxyType(
            {
                bytes(digest): Token(number, uid, bytes(digest), until)
                for number, uid, digest, until in tokens
            }
        ),
        fingerprints=MappingProxyType({f: uid for uid, f, _ in pinned if f is not None}),
        subjects=MappingProxyType({s: uid for uid, _, s in pinned if s is not None}),
    )
