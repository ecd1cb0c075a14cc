"""``chartgate policy diff`` and ``replay``: names, options and help; the work is imported when run."""

from pathlib import Path
from typing import Annotated

import typer

from chartgate.cli.options import JsonOption, StateOption, told
from chartgate.cli.sign_in import ActorOption
from chartgate.errors import Misconfigured


def add_to(app: typer.Typer) -> None:
    """Add the commands that compare versions."""
    for name, command, short in (
        ("diff", diff, "What another version allows and denies, with an example each."),
        ("replay", replay, "Decide the recorded log again under other policies."),
    ):
        app.command(name, short_help=short)(told(command))


VERSION_HELP = "A policy folder, 'active' for what is in force, or a version's hash."


def diff(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help=VERSION_HELP)],
    after: Annotated[str, typer.Argument(metavar="AFTER", help=VERSION_HELP)],
    scenarios: Annotated[
        Path | None,
        typer.Option(
            "--scenarios",
            metavar="DIR",
            help="Write the examples there as scenarios that expect what AFTER decides.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long one question may take.")
    ] = 10.0,
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Show what changes from one version of the policies to another, for every request there can be.

    First what they say: policies, roles, purposes, scenarios that were added, removed or changed.
    Then what they decide: for each role, action and category whether something is newly allowed or
    denied or seen better or less, with a person and record for whom it is so; everything else is
    proved unchanged. What could not be decided is called unknown. Exits with 1 when something
    changes.
    """
    from chartgate.cli.policy_diff import run_diff

    raise typer.Exit(
        run_diff(before, after, scenarios=scenarios, timeout=timeout, state=state, json=json)
    )


def replay(
    candidate: Annotated[
        str | None,
        typer.Argument(
            metavar="CANDIDATE",
            help="A policy folder, 'active' for what is in force, or a version's hash.",
            show_default=False,
        ),
    ] = None,
    policies: Annotated[
        str | None,
        typer.Option(
            "--policies",
            metavar="DIR",
            help="The same, as an option: the policy folder to try.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only decisions since then: 30d, 12h, 90m or a day as 2026-03-02 [default: all]",
            show_default=False,
        ),
    ] = None,
    as_: ActorOption = None,
    purpose: Annotated[
        str, typer.Option("--purpose", metavar="CODE", help="Purpose of use [default: the role's]")
    ] = "",
    json: JsonOption = False,
    state: StateOption = None,
) -> None:
    """Decide the recorded statements again under other policies, and show what would have differed.

    Whom it hits, in which table and column, how often: before anything is in force. Under the
    policies that decided nothing differs. What the log cannot tell is counted apart. Asking is a
    reading of the audit log, so you sign in and the question is recorded. Exits with 1 when
    something would have come out otherwise.
    """
    if (candidate is None) == (policies is None):
        raise Misconfigured("name one version to try: a policy folder, 'active' or a hash")
    from chartgate.cli.policy_replay import run_replay

    raise typer.Exit(
        run_replay(
            candidate or policies or "",
            since=since,
            state=state,
            name=as_,
            purpose=purpose,
            json=json,
        )
    )
