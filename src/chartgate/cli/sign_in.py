"""Who acts by command, and her password: where each is looked for.

Rules kept: a password is never an argument (other users of the computer read those); a file that
others can read is not used; what is missing is named, with the way to give it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from chartgate.adapters.state import State
from chartgate.errors import Misconfigured

PERSON = "CHARTGATE_PERSON"
PASSWORD = "CHARTGATE_PASSWORD"  # noqa: S105  (the name of a variable)
PASSWORD_FILE = "CHARTGATE_PASSWORD_FILE"  # noqa: S105

ActorOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="PERSON",
        help=f"Login name of who acts [default: {PERSON}]",
        show_default=False,
    ),
]


def actor(name: str | None) -> str:
    """Who acts; raises when nobody said."""
    found = name or os.environ.get(PERSON)
    if not found:
        raise Misconfigured(f"say who you are: --as PERSON, or {PERSON}")
    return found


def password_of(state: State, name: str) -> str:
    """The person's password: from a file or variable, the demo's passfile, or asked for."""
    from chartgate.adapters.desk import password_in

    given = _from_file() or os.environ.get(PASSWORD)
    if given is None:
        given = password_in(Path(os.environ.get("PGPASSFILE") or state.passfile), name)
    if given is None and sys.stdin.isatty():
        given = typer.prompt(f"Password of {name}", hide_input=True, err=True)
    if given is None and not (state.passfile.exists() or os.environ.get("PGPASSFILE")):
        raise Misconfigured(
            f"no password for {name}: a demo's passwords end with it; start it again with "
            f"`chartgate demo`, or set {PASSWORD}"
        )
    if given is None and state.passfile.exists():
        raise Misconfigured(
            f"no password for {name}: the demo has no such person (its first lines say whom to be); "
            f"for another set {PASSWORD_FILE}, {PASSWORD} or PGPASSFILE"
        )
    if given is None:
        raise Misconfigured(
            f"no password for {name}: set {PASSWORD_FILE}, {PASSWORD} or PGPASSFILE"
        )
    return given


def _from_file() -> str | None:
    named = os.environ.get(PASSWORD_FILE)
    if not named:
        return None
    path = Path(named)
    try:
        if path.stat().st_mode & 0o077:
            raise Misconfigured(f"{path} can be read by others: chmod 600 it")
        return path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise Misconfigured(f"the password file {path} cannot be read") from exc
