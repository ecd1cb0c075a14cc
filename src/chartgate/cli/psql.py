"""``chartgate psql``: the command line that logs a demo person in.

Rule kept: a password travels by libpq's passfile and never by argument or environment, where every
user of the machine could read it.
"""

import os
import socket
from pathlib import Path
from typing import NamedTuple

from chartgate.adapters.state import Instance, State, default_root
from chartgate.errors import Misconfigured

# What libpq would prefer to the address that we give it.
_MISLEADING = ("PGHOSTADDR", "PGSERVICE", "PGPASSWORD", "PGSSLMODE", "PGREQUIRESSL", "PGOPTIONS")


class PsqlCommand(NamedTuple):
    """What to execute."""

    program: Path
    argv: list[str]
    environment: dict[str, str]
    added: dict[str, str]


def psql_command(person: str, arguments: tuple[str, ...], folder: Path | None) -> PsqlCommand:
    """The psql command line for ``person``; raises ``Misconfigured`` with one clear line."""
    from chartgate.adapters.embedded_programs import find_psql

    state = State((folder or default_root()).absolute())
    instance = state.instance()
    people = logins(state.passfile)
    if not people or not _answers(instance):
        raise Misconfigured(
            f"the demo in {state.root} is not running: start it with `chartgate demo`"
        )
    if person not in people:
        raise Misconfigured(f"there is no demo person {person!r}; there are {', '.join(people)}")
    program = find_psql()
    if program is None:
        raise Misconfigured(
            "there is no psql on this computer: install PostgreSQL's client, or name its folder "
            "in CHARTGATE_PG_BIN"
        )
    kept = {k: v for k, v in os.environ.items() if k not in _MISLEADING}
    added = {"PGPASSFILE": str(state.passfile)}
    argv = ["psql", address(instance, person), *arguments]
    return PsqlCommand(program, argv, kept | added, added)


def address(instance: Instance, person: str) -> str:
    """The connection string of a person, without a password."""
    return f"host={instance.host} port={instance.port} dbname={instance.database} user={person}"


def logins(passfile: Path) -> tuple[str, ...]:
    """The people of a passfile (host:port:database:user:password); none when it is not there."""
    try:
        lines = passfile.read_text("utf-8").splitlines()
    except OSError:
        return ()
    return tuple(line.split(":", 4)[3] for line in lines if line.count(":") >= 4)


def _answers(instance: Instance) -> bool:
    try:
        socket.create_connection((instance.host, instance.port), timeout=2).close()
    except OSError:
        return False
    return True
