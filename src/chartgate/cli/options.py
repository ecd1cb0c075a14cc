"""What every command shares: options that mean the same everywhere, and how a failure is told."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from chartgate.errors import ChartgateError

_P = ParamSpec("_P")

StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="Folder that holds everything the demo keeps [default: CHARTGATE_STATE, or "
        "~/.local/state/chartgate/demo]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
PoliciesOption = Annotated[
    Path | None,
    typer.Option(
        "--policies",
        metavar="DIR",
        help="Policy folder [default: the one that comes with Chartgate]",
        show_default=False,
    ),
]


def told(command: Callable[_P, None]) -> Callable[_P, None]:
    """Our errors are one line on stderr and exit status 1."""

    @wraps(command)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ChartgateError as exc:
            raise fail(str(exc)) from exc

    return guarded


def fail(message: str) -> typer.Exit:
    """Say what stands in the way, on one line; raise the result."""
    # A message may quote a file: what could move the cursor or turn the text around is left out.
    plain = "".join(c if c.isprintable() else " " for c in message)
    typer.echo(f"chartgate: {' '.join(plain.split())}", err=True)
    return typer.Exit(1)
