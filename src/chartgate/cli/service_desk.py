"""The commands over applications' accounts: sign in, act, show.

Rules kept: what an application may ask must be something that the policies in force know; a token's
text is written once, to a file that only its owner can read or to the screen, and never again.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chartgate.adapters.service_accounts import IssuedToken, ListedService, ServiceDesk
from chartgate.app.ruling_claims import LABELS, OF_PERSON
from chartgate.cedar.schema import Schema
from chartgate.cli import render
from chartgate.cli import service_render as shown
from chartgate.cli.policy_store import Store, opened
from chartgate.cli.sign_in import actor, password_of
from chartgate.errors import Misconfigured
from chartgate.model.principal import Person
from chartgate.model.service import ANY, PEP_PROPERTIES, Scope
from chartgate.targets.admissible import RECORD

_PLACES = ("subject", "action", "resource", "context")
_NEVER = {
    "subject": OF_PERSON,
    "resource": PEP_PROPERTIES,
    "context": frozenset({"now", "source"}),
}
"""Names that nobody is believed, or that everybody says."""
_FREE = frozenset({"purpose", "recipient"})


@contextmanager
def sitting(folder: Path | None, name: str | None) -> Iterator[tuple[Store, ServiceDesk, Person]]:
    """Somebody signed in to administer services."""
    who = actor(name)
    with opened(folder) as store:
        password = password_of(store.state, who)
        desk = ServiceDesk(store.state, store.instance, store.loaded(), store.control)
        yield store, desk, desk.sign_in(who, password)


@contextmanager
def looking(folder: Path | None) -> Iterator[ServiceDesk]:
    """The accounts, for whoever may read the instance's folder."""
    with opened(folder) as store:
        yield ServiceDesk(store.state, store.instance, store.loaded(), store.control)


# --- what was asked for ---------------------------------------------------------------------------


def scope_of(
    actions: Sequence[str] | None,
    types: Sequence[str] | None,
    categories: Sequence[str] | None,
    asserts: Sequence[str] | None,
    *,
    search: bool,
) -> Scope:
    """The scope as the options say it; a comma separates as well as another option does."""
    return Scope(
        actions=_names(actions),
        resource_types=_names(types) or frozenset({RECORD}),
        categories=_names(categories),
        asserts=_names(asserts),
        may_search=search,
    )


def _names(options: Sequence[str] | None) -> frozenset[str]:
    return frozenset(
        name for text in options or () for part in text.split(",") if (name := part.strip())
    )


def check_scope(scope: Scope, schema: Schema) -> None:
    """Raise ``Misconfigured`` for what the policies do not know: it would never count."""
    actions = {uid.id for uid, action in schema.actions.items() if action.resources}
    kind = schema.entities.get("Category")
    categories = set((kind.enum if kind else None) or ())
    _known("action", scope.actions, actions)
    _known("type", scope.resource_types, set(schema.entities))
    _known("category", scope.categories, categories)
    for name in sorted(scope.asserts):
        place, dot, attribute = name.partition(".")
        if not dot or place not in _PLACES:
            raise Misconfigured(
                f"{name} is no PLACE.NAME, where PLACE is one of {', '.join(_PLACES)}"
            )
        if attribute in _NEVER.get(place, frozenset()):
            raise Misconfigured(
                f"{name} is known from the control plane or the data map: no application is believed it"
            )
        known = _attributes(schema, place, scope)
        if attribute != ANY and attribute not in known:
            raise Misconfigured(
                f"the policies know no {name}; {place} has {', '.join(sorted(known))}"
            )


def _known(what: str, named: frozenset[str], known: set[str]) -> None:
    for name in sorted(named - {ANY}):
        if name not in known:
            raise Misconfigured(
                f"the policies know no {what} {name}; they know {', '.join(sorted(known))}"
            )


def _attributes(schema: Schema, place: str, scope: Scope) -> set[str]:
    contexts = {
        name
        for action in schema.actions.values()
        for name in action.context.attributes
        if name not in _FREE
    }
    if place in ("context", "action"):
        return contexts - _NEVER["context"]
    if place == "subject":
        kinds = {kind for action in schema.actions.values() for kind in action.principals}
    else:
        every = ANY in scope.resource_types
        kinds = set(schema.entities) if every else set(scope.resource_types)
    named = {
        name
        for kind in kinds
        if kind in schema.entities
        for name in schema.entities[kind].attributes
    }
    return (named | ({LABELS} if place == "resource" else set())) - _NEVER[place]


# --- acting ---------------------------------------------------------------------------------------


def add(
    name: str, title: str, scope: Scope, folder: Path | None, who: str | None, *, json: bool
) -> int:
    """Open an account."""
    with sitting(folder, who) as (store, desk, person):
        check_scope(scope, store.loaded().version.schema)
        uid = desk.add(person, name, scope, title=title)
    return _told(
        {"service": name, "uid": uid, "step": "added"},
        f"{name} has an account ({uid}), and no token yet: `chartgate service token {name}`.",
        json=json,
    )


def set_scope(name: str, scope: Scope, folder: Path | None, who: str | None, *, json: bool) -> int:
    """Replace a scope."""
    with sitting(folder, who) as (store, desk, person):
        check_scope(scope, store.loaded().version.schema)
        before = _named(desk, name).scope
        desk.set_scope(person, name, scope)
    if json:
        render.print_json({"service": name, "step": "scoped", "scope": shown.scope_json(scope)})
    else:
        shown.show_change(render.console(), name, before, scope)
    return 0


def issue(
    name: str, out: Path | None, days: int, folder: Path | None, who: str | None, *, json: bool
) -> int:
    """Make a token."""
    if out is not None and out.exists():
        raise Misconfigured(f"{out} is there already: nothing is overwritten")
    if out is not None and not out.parent.is_dir():
        raise Misconfigured(f"there is no folder {out.parent}")
    with sitting(folder, who) as (_, desk, person):
        token = desk.issue_token(person, name, valid_until=datetime.now(UTC) + timedelta(days=days))
        before = [
            one.id for one in _named(desk, name).tokens if _counts(one) and one.id != token.id
        ]
        if out is not None:
            _write(out, token)
    facts: dict[str, Any] = {
        "service": name,
        "id": token.id,
        "valid_until": token.valid_until,
        "also_valid": before,
    }
    if json:
        render.print_json(
            {**facts, **({"token": token.text} if out is None else {"file": str(out)})}
        )
        return 0
    console = render.console()
    if out is None:
        console.print(token.text, soft_wrap=True)
        console.print("It is shown this once; only its hash is kept.")
    else:
        console.print(f"Token {token.id} of {name} is in {out}.", soft_wrap=True)
    console.print(f"It ends on {token.valid_until:%Y-%m-%d %H:%M} UTC.")
    for other in before:
        console.print(
            f"Token {other} is valid as well: `chartgate service revoke {other}` ends it."
        )
    return 0


def _counts(token: Any) -> bool:
    return token.revoked_at is None and token.valid_until > datetime.now(UTC)


def _write(out: Path, token: IssuedToken) -> None:
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise Misconfigured(
            f"token {token.id} was made, but {out} cannot be written ({exc.strerror}): revoke it"
        ) from exc
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{token.text}\n")


def revoke(token: str, folder: Path | None, who: str | None, *, json: bool) -> int:
    """End a token."""
    if token.startswith("cgs_"):
        raise Misconfigured(
            "name a token by its 8 digits, not by its text: arguments are no secret"
        )
    with sitting(folder, who) as (_, desk, person):
        ended = desk.revoke_token(person, token)
    words = "Every node refuses it within a second." if ended else "It had ended before."
    return _told({"token": token, "step": "token_revoked", "ended": ended}, words, json=json)


def pin(
    name: str,
    file: Path | None,
    fingerprint: str,
    subject: str,
    folder: Path | None,
    who: str | None,
    *,
    json: bool,
) -> int:
    """Know a service by a certificate."""
    if sum(map(bool, (file, fingerprint, subject))) != 1:
        raise Misconfigured("say one of --file, --fingerprint and --subject")
    digest = fingerprint if file is None else _fingerprint(file)
    with sitting(folder, who) as (_, desk, person):
        number = desk.pin_certificate(person, name, fingerprint=digest, subject=subject)
    return _told(
        {"service": name, "certificate": number, "step": "certificate_pinned"},
        f"{name} is known by certificate {number}.",
        json=json,
    )


def _fingerprint(file: Path) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        return x509.load_pem_x509_certificate(file.read_bytes()).fingerprint(hashes.SHA256()).hex()
    except (OSError, ValueError) as exc:
        raise Misconfigured(f"{file} is no certificate in PEM") from exc


def unpin(number: int, folder: Path | None, who: str | None, *, json: bool) -> int:
    """Know nobody by a certificate any more."""
    with sitting(folder, who) as (_, desk, person):
        ended = desk.unpin_certificate(person, number)
    words = "It is nobody's within a second." if ended else "It was nobody's before."
    return _told(
        {"certificate": number, "step": "certificate_unpinned", "ended": ended}, words, json=json
    )


def set_active(name: str, folder: Path | None, who: str | None, *, active: bool, json: bool) -> int:
    """Open or close an account."""
    with sitting(folder, who) as (_, desk, person):
        (desk.activate if active else desk.deactivate)(person, name)
    step = "activated" if active else "deactivated"
    words = "may ask again" if active else "is refused by every node within a second"
    return _told({"service": name, "step": step}, f"{name} {words}.", json=json)


def _told(facts: dict[str, object], words: str, *, json: bool) -> int:
    if json:
        render.print_json(facts)
    else:
        render.console().print(render.plain(words), soft_wrap=True)
    return 0


# --- looking --------------------------------------------------------------------------------------


def list_services(folder: Path | None, *, json: bool) -> int:
    """All services; 1 when an active one has nothing to be known by."""
    with looking(folder) as desk:
        services = desk.list()
    now = datetime.now(UTC)
    if json:
        render.print_json([shown.service_json(one, now) for one in services])
    else:
        shown.show_services(render.console(), services, now)
    return 1 if any(shown.is_mute(one, now) for one in services) else 0


def show_service(name: str, folder: Path | None, *, json: bool) -> int:
    """One service."""
    with looking(folder) as desk:
        found = _named(desk, name)
    now = datetime.now(UTC)
    if json:
        render.print_json(shown.service_json(found, now))
    else:
        shown.show_service(render.console(), found, now)
    return 0


def _named(desk: ServiceDesk, name: str) -> ListedService:
    services = desk.list()
    for one in services:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in services) or "none"
    raise Misconfigured(f"there is no service {name}; there are: {known}")
