"""How the check sees the demo: only as a client, an auditor and the hospital's own application do.

Rule kept: nothing here looks into the gate. Answers come by psycopg and by the psql program,
the log's by the ``chartgate audit`` command in a process of its own, and the truth straight from
the hospital's database.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from chartgate.adapters.embedded_programs import find_psql
from chartgate.demo.run import Prepared

_SECONDS = 60
_EVENT = re.compile(r"\(event (\d+)\)")
_OURS = (
    "CHARTGATE_STATE", "CHARTGATE_PERSON", "CHARTGATE_PASSWORD", "CHARTGATE_PASSWORD_FILE",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one statement."""

    sql: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    notices: tuple[tuple[str, str], ...] = ()
    """Message and detail of each NOTICE."""
    sqlstate: str = ""
    message: str = ""

    @property
    def event(self) -> int | None:
        """The event number that the gate named, in a NOTICE or in an error."""
        for text in (self.message, *(message for message, _ in self.notices)):
            if found := _EVENT.search(text):
                return int(found[1])
        return None

    @property
    def detail(self) -> str:
        """What the gate says it limited."""
        return "\n".join(detail for _, detail in self.notices)

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]


class Visitor:
    """One person's session through the gate; remembers every answer."""

    def __init__(self, ready: Prepared, port: int, username: str) -> None:
        self.username = username
        self.answers: list[Answer] = []
        self._notices: list[tuple[str, str]] = []
        self._connection = psycopg.connect(
            host=ready.instance.host,
            port=port,
            dbname=ready.instance.database,
            user=username,
            passfile=str(ready.state.passfile),
            application_name="chartgate demo --check",
            connect_timeout=20,
            autocommit=True,
        )
        self._connection.add_notice_handler(
            lambda told: self._notices.append(
                (told.message_primary or "", told.message_detail or "")
            )
        )

    def ask(self, statement: str) -> Answer:
        """Send a statement; a refusal is an answer too."""
        self._notices.clear()
        try:
            cursor = self._connection.execute(statement.encode())
        except psycopg.Error as exc:
            answer = Answer(
                statement,
                notices=tuple(self._notices),
                sqlstate=exc.sqlstate or "08006",
                message=exc.diag.message_primary or str(exc),
            )
        else:
            columns = tuple(c.name for c in cursor.description or ())
            rows = tuple(cursor.fetchall()) if cursor.description else ()
            answer = Answer(statement, columns, rows, tuple(self._notices))
        self.answers.append(answer)
        return answer

    def leave(self) -> None:
        """Log out."""
        with suppress(psycopg.Error):
            self._connection.close()


def refused_login(ready: Prepared, port: int, username: str, password: str) -> bool:
    """Whether a login with this password fails for being wrong."""
    try:
        psycopg.connect(
            host=ready.instance.host,
            port=port,
            dbname=ready.instance.database,
            user=username,
            password=password,
            passfile=os.devnull,
            connect_timeout=20,
        ).close()
    except psycopg.OperationalError as exc:
        return "password authentication failed" in str(exc)
    return False


def by_psql(ready: Prepared, port: int, username: str, statement: str) -> list[list[str]] | None:
    """The rows as the psql program prints them; ``None`` where there is no psql."""
    program = find_psql()
    if program is None:
        return None
    where = (
        f"host={ready.instance.host} port={port} dbname={ready.instance.database} user={username}"
    )
    done = subprocess.run(  # noqa: S603 (psql, no shell)
        [str(program), where, "-X", "-w", "-A", "-t", "-F", "\x1f", "-c", statement],
        env={**environment(), "PGPASSFILE": str(ready.state.passfile)},
        capture_output=True,
        encoding="utf-8",
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        return [[f"psql ended with {done.returncode}: {done.stderr.strip()[:200]}"]]
    return [line.split("\x1f") for line in done.stdout.splitlines()]


@dataclass(frozen=True, slots=True)
class AuditAnswer:
    """How a ``chartgate audit`` command ended."""

    status: int
    report: dict[str, Any]
    told: str
    """Its line on stderr."""


def audit(ready: Prepared, *arguments: str, state: Path | None = None) -> AuditAnswer:
    """Run ``chartgate audit … --json`` as an auditor would, in a process of its own."""
    command = [sys.executable, "-P", "-m", "chartgate", "audit", *arguments, "--json"]
    done = subprocess.run(  # noqa: S603 (this program, no shell)
        [*command, "--state", str(state or ready.state.root)],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=_SECONDS,
        check=False,
    )
    try:
        report = json.loads(done.stdout) if done.stdout.strip() else {}
    except ValueError:
        report = {"events": _lines(done.stdout)}
    return AuditAnswer(done.returncode, report, done.stderr.strip())


def _lines(text: str) -> list[Any]:
    """What says one thing a line (``tail``)."""
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return []


def truth(ready: Prepared, statement: str, arguments: Sequence[object] = ()) -> list[Any]:
    """What the hospital's own application reads, without the gate."""
    with psycopg.connect(ready.instance.legacy) as connection:
        return connection.execute(statement.encode(), arguments).fetchall()


def environment() -> dict[str, str]:
    """Ours, without what would lead libpq or our commands elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PG") and name not in _OURS
    }
    return {**kept, "PYTHONIOENCODING": "utf-8"}
