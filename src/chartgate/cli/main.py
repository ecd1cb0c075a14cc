"""The ``chartgate`` command: what there is to do, in words for whoever does it.

Rules kept: help and version answer at once, so everything heavy is imported by the command that
needs it; an error of ours is one line on stderr and exit status 1; an error that is not ours shows
no traceback, since a traceback can quote a patient's values (``CHARTGATE_DEBUG=1`` shows it).
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

import chartgate
from chartgate.cli import ask, explaining, serve
from chartgate.cli.audit import audit_app
from chartgate.cli.grant import grant_app
from chartgate.cli.options import JsonOption, StateOption, told
from chartgate.cli.policy import policy_app
from chartgate.cli.service import service_app

DEBUG = "CHARTGATE_DEBUG"

app = typer.Typer(
    name="chartgate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Who may see how much of which patient's record: decided by one policy, enforced on "
    "every query, and written down before anything is shown.",
    epilog="New here? Run `chartgate demo`: a made-up hospital to try everything on.",
)
app.add_typer(policy_app)
app.add_typer(audit_app)
app.add_typer(service_app)
app.add_typer(grant_app)
explaining.add_to(app)
ask.add_to(app)
serve.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"chartgate {chartgate.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command(short_help="Try it: a made-up hospital, and twenty people to be.")
@told
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Use the patients of this folder of Synthea CSV files (gzipped or not) instead "
            "of the made-up hospital.",
            show_default=False,
        ),
    ] = None,
    state: StateOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            metavar="N",
            help="Where the gate listens on this computer; 0 takes any free port "
            "[default: 6432; with --check, any]",
            show_default=False,
        ),
    ] = None,
    reset: Annotated[
        bool,
        typer.Option(
            "--reset", help="Delete the demo's data, audit log and keys first, without asking."
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Try everything unattended, show what each person saw, and exit with 0 if all "
            "is as it must be. Uses a folder that is removed afterwards unless --state names one.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Try Chartgate: a whole hospital on this computer, and twenty people to be.

    Starts a hospital's database that knows nothing of Chartgate, and the gate in front of it, and
    shows how to log in as a physician, a nurse, a receptionist and others. Nothing leaves this
    computer. Ctrl-C stops everything; the next start goes on with the same data.
    """
    from chartgate.cli import demo as run

    if check:
        raise typer.Exit(run.check(data=data, state=state, port=port, reset=reset, json=json))
    raise typer.Exit(run.demo(data=data, state=state, port=port, reset=reset, json=json))


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[--state DIR] [--json]",
)
@told
def psql(
    person: Annotated[
        str, typer.Argument(metavar="PERSON", help="Login name, as the demo's table shows it.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="PSQL_OPTION", help="Handed to psql, such as -c 'SELECT 1'."),
    ] = None,
    state: StateOption = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Show the command as JSON instead of running it."),
    ] = False,
) -> None:
    """Log in to the running demo as one of its people, with psql.

    Finds psql (yours, or the one that came with Chartgate) and the password by itself. Everything
    after PERSON goes to psql.
    """
    from chartgate.cli.psql import psql_command

    command = psql_command(person, tuple(arguments or ()), state)
    if json:
        from chartgate.cli.render import print_json

        print_json({"argv": command.argv, "environment": command.added})
        return
    sys.stdout.flush()
    os.execve(command.program, command.argv, command.environment)  # noqa: S606 (psql, no shell)


def main() -> None:
    """Entry point of the ``chartgate`` command."""
    if hasattr(signal, "SIGPIPE"):  # `chartgate … | head` ends quietly, as other commands do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
    except Exception as exc:
        if os.environ.get(DEBUG):
            raise
        # No detail: what failed unexpectedly may have held a patient's values.
        typer.echo(
            f"chartgate: an internal error ({type(exc).__name__}); run again with {DEBUG}=1 for "
            "the traceback, which may quote data",
            err=True,
        )
        sys.exit(70)
