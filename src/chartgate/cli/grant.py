"""``chartgate grant``: access beyond her roles, for one person and a time.

Rules kept: whoever gives it is allowed to by the policies in force and is somebody else than who gets
it; it says what, of whom and until when, and a node obeys it only because its approval is in the log.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chartgate.cli.options import JsonOption, StateOption, told
from chartgate.cli.sign_in import ActorOption, actor, password_of
from chartgate.errors import Misconfigured

if TYPE_CHECKING:
    from chartgate.adapters.grant_store import GrantDesk, Listed
    from chartgate.model.principal import Person

grant_app = typer.Typer(
    name="grant",
    no_args_is_help=True,
    help="Access beyond her roles, for one person and a time. A request by herself and its review are "
    "not part of these commands: whoever approves, issues.",
)
_MOST_HOURS = 24 * 366
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; goes into the audit log.")
]


@grant_app.command("issue", short_help="Give somebody access for a time.")
@told
def issue(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Login name of who gets it.")],
    action: Annotated[
        list[str],
        typer.Option("--action", metavar="ACTION", help="What she may do; may be repeated."),
    ],
    reason: ReasonOption,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            metavar="NAME",
            help="Of which category; without one, every category that nothing forbids.",
            show_default=False,
        ),
    ] = None,
    patient: Annotated[
        str,
        typer.Option(
            "--patient", metavar="KEY", help="Of which patient alone.", show_default=False
        ),
    ] = "",
    purpose: Annotated[
        str,
        typer.Option("--purpose", metavar="CODE", help="For which purpose.", show_default=False),
    ] = "",
    hours: Annotated[
        float, typer.Option("--hours", metavar="N", help="For how long, from now on.")
    ] = 8.0,
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Give somebody access for a time, beyond her roles. What the policies forbid, stays forbidden.

    It is in force on every node within a second, and ends by itself.
    """
    from chartgate.app.grants import Given
    from chartgate.cli.render import console, print_json

    if not 0 < hours <= _MOST_HOURS:
        raise Misconfigured(f"--hours is more than 0 and at most {_MOST_HOURS}")
    given = Given(
        actions=tuple(dict.fromkeys(action)),
        categories=tuple(dict.fromkeys(category or ())),
        patient=patient,
        purpose=purpose,
    )
    with _sitting(state, as_) as (desk, who):
        issued = desk.issue(
            who, person, given, until=datetime.now(UTC) + timedelta(hours=hours), reason=reason
        )
    if json:
        print_json({"grant": issued.id, "until": issued.until, "policy": issued.policy})
        return
    out = console()
    out.print(f"{issued.id} is in force until {issued.until:%Y-%m-%d %H:%M:%S} UTC:")
    out.print(issued.policy, soft_wrap=True)


@grant_app.command("revoke", short_help="End it, now and everywhere.")
@told
def revoke(
    grant: Annotated[str, typer.Argument(metavar="GRANT", help="As `grant list` names it.")],
    reason: ReasonOption = "",
    as_: ActorOption = None,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """End it before its time. Every node denies by it within a second."""
    from chartgate.cli.render import console, print_json

    with _sitting(state, as_) as (desk, who):
        ended = desk.revoke(who, grant, reason=reason)
    if json:
        print_json({"grant": grant, "ended": ended})
        return
    console().print(
        "Every node goes without it within a second." if ended else "It had ended before."
    )


@grant_app.command("list", short_help="What was given, to whom, by whom and until when.")
@told
def list_(
    every: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """What was given, to whom, by whom and until when; newest first."""
    from chartgate.adapters.grant_store import GrantDesk
    from chartgate.cli.policy_store import opened
    from chartgate.cli.render import console, print_json

    with opened(state) as store:
        desk = GrantDesk(store.state, store.instance, store.loaded(), store.control)
        now = datetime.now(UTC)
        found = [one for one in desk.list() if every or _is_live(one, now)]
    if json:
        print_json([_facts(one, now) for one in found])
    else:
        _show(console(), found, now)


@contextmanager
def _sitting(folder: Path | None, name: str | None) -> "Iterator[tuple[GrantDesk, Person]]":
    from chartgate.adapters.grant_store import GrantDesk
    from chartgate.cli.policy_store import opened

    who = actor(name)
    with opened(folder) as store:
        password = password_of(store.state, who)
        desk = GrantDesk(store.state, store.instance, store.loaded(), store.control)
        yield desk, desk.sign_in(who, password)


def _is_live(one: "Listed", now: datetime) -> bool:
    return one.revoked_at is None and now < one.valid_until


def _facts(one: "Listed", now: datetime) -> dict[str, Any]:
    return {
        "grant": one.id,
        "person": one.beneficiary,
        "approved_by": one.approver,
        "from": one.valid_from,
        "until": one.valid_until,
        "revoked_at": one.revoked_at,
        "in_force": _is_live(one, now) and one.valid_from <= now,
        "reason": one.reason,
        "policy": one.policy,
    }


def _show(out: Any, found: "Sequence[Listed]", now: datetime) -> None:
    from chartgate.cli.render import plain
    from chartgate.cli.screen import plain_table

    if not found:
        out.print("Nobody has access beyond her roles.")
        return
    table = plain_table("Grant", "Person", "Approved by", "Until (UTC)", "State", "Reason")
    for one in found:
        state = "in force" if _is_live(one, now) else "revoked" if one.revoked_at else "ended"
        table.add_row(
            one.id,
            plain(one.beneficiary),
            plain(one.approver),
            f"{one.valid_until:%Y-%m-%d %H:%M}",
            state,
            plain(one.reason),
        )
    out.print(table)
