"""``chartgate policy push`` to ``rollback``: names, options and help; the work is in ``policy_store``."""

from pathlib import Path
from typing import Annotated

import typer

from chartgate.cli.options import JsonOption, StateOption, told
from chartgate.cli.sign_in import ActorOption

VersionArgument = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="At least 8 digits of a version's hash, or 'active' for the policies in force.",
    ),
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; goes into the audit log.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of the life cycle."""
    for name, command, short in (
        ("push", push, "Propose a version: check it, prove it, show what would change."),
        ("versions", versions, "All versions and where each of them is."),
        ("show", show, "One version: who did what, and what the checks found."),
        ("approve", approve, "Approve a version that somebody else proposed."),
        ("refuse", refuse, "Say no to a version that somebody else proposed."),
        ("withdraw", withdraw, "Take back a version that you proposed."),
        ("activate", activate, "Put an approved version in force, everywhere."),
        ("rollback", rollback, "Put in force what was before."),
        ("pull", pull, "Write the files of a version into a folder."),
        ("status", status, "What each node has in force."),
    ):
        app.command(name, short_help=short)(told(command))


def push(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR_OR_MAP", help="A policy folder, or the file of a data map.", exists=True
        ),
    ],
    as_: ActorOption = None,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="What it is for; goes into the audit log.")
    ] = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Propose a version of the policies, or of a data map.

    It is read strictly, held against its scenarios, its invariants are proved, and what would
    change is shown: newly allowed, newly denied, and what of the recorded past would have been
    otherwise. The first check that fails ends it, with the reason; nothing is in force before
    somebody else approved it.
    """
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.push(path, state, as_, note, json=json))


def versions(json: JsonOption = False, state: StateOption = None) -> None:
    """All versions of the policies and of the data map, and where each of them is.

    What is shown is what the audit log bears out. A row in the store that it does not is named
    first, and the exit status is 1.
    """
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.versions(state, json=json))


def show(version: VersionArgument, json: JsonOption = False, state: StateOption = None) -> None:
    """One version: who did what and when, what each check found, what would change."""
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.show(version, state, json=json))


def approve(
    version: VersionArgument,
    as_: ActorOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Approve a version that somebody else proposed. It is not in force by that."""
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.decide("approve", version, state, as_, reason, json=json))


def refuse(
    version: VersionArgument,
    as_: ActorOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Say no to a version that somebody else proposed."""
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.decide("refuse", version, state, as_, reason, json=json))


def withdraw(
    version: VersionArgument,
    as_: ActorOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Take back a version that you proposed, before it is in force."""
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.decide("withdraw", version, state, as_, reason, json=json))


def activate(
    version: VersionArgument,
    as_: ActorOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Put an approved version in force on every node, without a restart.

    Open sessions are decided by it from their next statement on. Says which nodes took it, and how
    long after it was recorded.
    """
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.activate(version, state, as_, reason, json=json))


def rollback(
    data_map: Annotated[
        bool, typer.Option("--map", help="The data map, instead of the policies.")
    ] = False,
    as_: ActorOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Put in force what was before, at once and everywhere."""
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.roll_back(state, as_, reason, is_map=data_map, json=json))


def pull(
    version: VersionArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or a new folder.")],
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Write the files of a version into a folder; pushed again, they have the same hash."""
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.pull(version, folder, state, json=json))


def status(json: JsonOption = False, state: StateOption = None) -> None:
    """What each node has in force, as it reports; exit status 1 when one is behind."""
    from chartgate.cli import policy_store as store

    raise typer.Exit(store.status(state, json=json))
