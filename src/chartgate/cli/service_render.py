"""Applications' accounts on paper and as JSON; a token that ends soon is said so.

The rule kept: what is shown of a token is its number and its dates; its text is nowhere.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.text import Text

from chartgate.adapters.service_accounts import ListedService, ListedToken
from chartgate.cli.render import plain
from chartgate.cli.screen import heading, plain_table
from chartgate.model.service import Scope

SOON = timedelta(days=14)
_NOTHING = "nothing"


def show_services(out: Console, services: Sequence[ListedService], now: datetime) -> None:
    """One line each, then what somebody should see to."""
    if not services:
        out.print("No application has an account: `chartgate service add NAME`.")
        return
    table = plain_table("Name", "What it is", "May ask", "About", "Tokens", "State")
    scopes = [one.scope for one in services]
    for column, names in (
        (table.columns[2], {name for scope in scopes for name in scope.actions}),
        (table.columns[3], {name for scope in scopes for name in scope.categories}),
    ):
        column.min_width = max(map(len, names), default=0) + 1  # a name in two pieces is none
    for at in (0, 4, 5):
        table.columns[at].no_wrap = True
    table.columns[1].max_width = max(10, out.width // 7)
    for one in services:
        live = live_tokens(one, now)
        table.add_row(
            Text(one.name, style="bold"),
            plain(one.title),
            listed(one.scope.actions),
            listed(one.scope.categories or one.scope.resource_types),
            str(len(live)),
            Text("active", style="green") if one.active else Text("closed", style="red"),
        )
    out.print(table)
    for one in services:
        for warning in warnings(one, now):
            out.print(Text(plain(f"{one.name}: {warning}"), style="yellow"))


def show_service(out: Console, one: ListedService, now: datetime) -> None:
    """Everything there is about one."""
    out.print(Text(one.name, style="bold").append(f"  {plain(one.title)}", style="not bold"))
    out.print(f"{one.uid}, since {one.created_at:%Y-%m-%d}; {'active' if one.active else 'closed'}")
    heading(out, "May ask")
    for label, text in scope_lines(one.scope):
        out.print(f"  {label:<12} {text}")
    heading(out, "Tokens")
    table = plain_table("Id", "Made (UTC)", "Ends (UTC)", "State")
    for token in one.tokens:
        state, style = token_state(token, now)
        table.add_row(
            token.id,
            f"{token.created_at:%Y-%m-%d %H:%M}",
            f"{token.valid_until:%Y-%m-%d %H:%M}",
            Text(state, style=style),
        )
    out.print(table if one.tokens else "  none")
    if one.certificates:
        heading(out, "Certificates")
        for pinned in one.certificates:
            known = pinned.fingerprint or pinned.subject or ""
            state = "" if pinned.revoked_at is None else " (ended)"
            out.print(f"  {pinned.id:<4} {plain(known)}{state}", soft_wrap=True)
    for warning in warnings(one, now):
        out.print()
        out.print(Text(plain(warning), style="yellow"))


def show_change(out: Console, name: str, before: Scope, after: Scope) -> None:
    """What a new scope adds and takes away."""
    added = sorted(_words(after) - _words(before))
    gone = sorted(_words(before) - _words(after))
    out.print(f"{name} has another scope; every node goes by it within a second.")
    for sign, words, style in (("+", added, "green"), ("-", gone, "red")):
        for word in words:
            out.print(Text(f"  {sign} {word}", style=style))
    if not added and not gone:
        out.print("  It is what it was.")


def _words(scope: Scope) -> set[str]:
    return {
        *(f"action {name}" for name in scope.actions),
        *(f"type {name}" for name in scope.resource_types),
        *(f"category {name}" for name in scope.categories),
        *(f"believed {name}" for name in scope.asserts),
        *(("search",) if scope.may_search else ()),
    }


def scope_lines(scope: Scope) -> Iterable[tuple[str, str]]:
    """A scope in words."""
    yield "actions", listed(scope.actions)
    yield "of", listed(scope.resource_types)
    yield "categories", listed(scope.categories)
    yield "is believed", listed(scope.asserts)
    yield "searches", "yes" if scope.may_search else "no"


def listed(names: Iterable[str]) -> str:
    """Names in order; an asterisk is everything."""
    found = sorted(names)
    return "everything" if "*" in found else ", ".join(found) or _NOTHING


def live_tokens(one: ListedService, now: datetime) -> list[ListedToken]:
    """The tokens that count."""
    return [t for t in one.tokens if t.revoked_at is None and t.valid_until > now]


def token_state(token: ListedToken, now: datetime) -> tuple[str, str]:
    """A token's state in a word or two, and its style."""
    if token.revoked_at is not None:
        return f"revoked {token.revoked_at:%Y-%m-%d %H:%M}", "dim"
    if token.valid_until <= now:
        return "ended", "dim"
    if token.valid_until - now <= SOON:
        return f"ends in {_left(token.valid_until - now)}", "yellow"
    return "valid", "green"


def _left(left: timedelta) -> str:
    if left >= timedelta(days=2):
        return f"{left.days} days"
    hours = int(left.total_seconds() // 3600)
    return f"{hours} hours" if hours != 1 else "1 hour"


def is_mute(one: ListedService, now: datetime) -> bool:
    """Whether an open account has nothing that it could be known by."""
    pinned = any(c.revoked_at is None for c in one.certificates)
    return one.active and not pinned and not live_tokens(one, now)


def warnings(one: ListedService, now: datetime) -> Iterable[str]:
    """What somebody should see to."""
    if not one.active:
        return
    if is_mute(one, now):
        yield f"no token or certificate counts: `chartgate service token {one.name}` makes one"
        return
    live = live_tokens(one, now)
    ending = [token for token in live if token.valid_until - now <= SOON]
    if live and len(ending) == len(live):
        last = max(ending, key=lambda token: token.valid_until)
        yield f"its last token ends in {_left(last.valid_until - now)}"


def scope_json(scope: Scope) -> dict[str, Any]:
    """A scope for programs."""
    return {
        "actions": sorted(scope.actions),
        "resource_types": sorted(scope.resource_types),
        "categories": sorted(scope.categories),
        "asserts": sorted(scope.asserts),
        "may_search": scope.may_search,
    }


def service_json(one: ListedService, now: datetime) -> dict[str, Any]:
    """An account for programs."""
    return {
        "name": one.name,
        "uid": one.uid,
        "title": one.title,
        "active": one.active,
        "created_at": one.created_at,
        "scope": scope_json(one.scope),
        "tokens": [
            {
                "id": token.id,
                "created_at": token.created_at,
                "valid_until": token.valid_until,
                "revoked_at": token.revoked_at,
                "counts": token in live_tokens(one, now),
            }
            for token in one.tokens
        ],
        "certificates": [
            {
                "id": pinned.id,
                "fingerprint": pinned.fingerprint,
                "subject": pinned.subject,
                "revoked_at": pinned.revoked_at,
            }
            for pinned in one.certificates
        ],
        "warnings": list(warnings(one, now)),
    }
