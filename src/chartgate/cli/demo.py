"""``chartgate demo``: start it all, show the sheet to work from, stop it all.

Rules kept: however it ends (Ctrl-C, a signal, a fault), what it started is stopped, and what
stands in the way is one line. A second Ctrl-C does not interrupt the stopping.
"""

import asyncio
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import psycopg
from rich.console import Console
from rich.text import Text

from chartgate.adapters.state import default_root
from chartgate.cli import render, screen
from chartgate.cli.psql import address
from chartgate.demo import tour
from chartgate.demo.applications import APPLICATIONS, ASKER, Decisions, decision_port
from chartgate.demo.check import Report, checked
from chartgate.demo.folder import reset as reset_folder
from chartgate.demo.people import EVERYBODY
from chartgate.demo.run import PORT, Prepared, prepared, serving
from chartgate.errors import Misconfigured

HOST = "127.0.0.1"
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(
    *, data: Path | None, state: Path | None, port: int | None, reset: bool, json: bool
) -> int:
    """Run until somebody ends it; answers the exit status."""
    root = (state or default_root()).absolute()
    out = screen.console(sys.stderr if json else sys.stdout)
    served = False
    screen.log_in_one_line()
    with _interruptible(), ExitStack() as stack:
        steps = stack.enter_context(screen.Steps(out))
        try:
            ready = stack.enter_context(_prepared(root, data, port, reset, steps, default=PORT))
            asyncio.run(_serve(ready, steps, out, named=state is not None, json=json))
            served = True
        except KeyboardInterrupt:
            steps.end(done=False)
        _ignore_endings()
        out.print()
        steps.step("stopping")
    if served:
        out.print("Stopped. The data are kept; `--reset` starts over.")
        return 0
    out.print("Stopped before the demo was ready.")
    return 130


async def _serve(
    ready: Prepared, steps: screen.Steps, out: Console, *, named: bool, json: bool
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDINGS:
        loop.add_signal_handler(number, ended.set)
    steps.step("opening the audit log and the gate")
    decisions = Decisions(decision_port(ready.instance.host, ready.instance.port))
    async with serving(ready, decisions=decisions) as port:
        if json:  # programs are faster than people
            await decisions.ready()
        steps.end()
        sheet = Sheet(ready, port, named=named)
        if json:
            render.print_json(sheet.facts(steps.seconds))
            sys.stdout.flush()
        else:
            sheet.show(out, steps.seconds)
            await decisions.ready()
            out.print(f"The decision service answers, {steps.seconds:.1f} s after the start.")
        await ended.wait()


def check(
    *, data: Path | None, state: Path | None, port: int | None, reset: bool, json: bool
) -> int:
    """Try everything unattended; answers the exit status."""
    out = screen.console(sys.stderr if json else sys.stdout)
    screen.log_in_one_line()
    with _interruptible(), ExitStack() as stack:
        steps = stack.enter_context(screen.Steps(out))
        try:
            root = (
                state.absolute()
                if state is not None
                else Path(
                    stack.enter_context(
                        tempfile.TemporaryDirectory(
                            prefix="chartgate-check-", ignore_cleanup_errors=True
                        )
                    )
                )
                / "state"
            )
            if state is None:
                # The servers' data may lie elsewhere (root): they are removed by name.
                stack.callback(_remove, root)
            ready = stack.enter_context(_prepared(root, data, port, reset, steps, default=0))
            report = asyncio.run(checked(ready, steps.step))
            steps.end()
        except KeyboardInterrupt:
            steps.end(done=False)
            _ignore_endings()
            out.print("Stopped before the check was done.")
            return 130
        if json:
            render.print_json(report)
        else:
            _show_report(screen.console(), report, ready.title)
        _ignore_endings()
        steps.step("stopping")
    return 0 if report.passed else 1


def _remove(root: Path) -> None:
    if root.exists():
        reset_folder(root)


@contextmanager
def _prepared(
    root: Path,
    data: Path | None,
    port: int | None,
    reset: bool,
    steps: screen.Steps,
    *,
    default: int,
) -> Iterator[Prepared]:
    if data is not None and not data.is_dir():
        raise Misconfigured(f"--data: there is no folder {data}")
    if reset:
        steps.step("removing the old data")
        reset_folder(root)
    with prepared(
        root,
        data=data,
        port=default if port is None else port,
        host=HOST,
        progress=steps.step,
    ) as ready:
        yield ready


class Sheet:
    """Everything a newcomer needs to go on from here."""

    def __init__(self, ready: Prepared, port: int, *, named: bool) -> None:
        self._ready = ready
        self._instance = ready.state.instance()
        self._port = port
        self._layout = tour.LAYOUTS[ready.instance.source]
        self._subject = tour.subject(ready)
        self._name = screen.command_name()
        self._state = f" --state {shlex.quote(str(ready.state.root))}" if named else ""

    def psql(self, username: str) -> str:
        """The exact line for any psql."""
        where = address(self._instance, username)
        return f'PGPASSFILE={shlex.quote(str(self._ready.state.passfile))} psql "{where}"'

    def short_psql(self, username: str) -> str:
        """The same by our own command."""
        return f"{self._name} psql{self._state} {username}"

    def curl(self) -> str:
        """What an application asks: one question, with any HTTP client."""
        from chartgate.cli.serving import curl

        state = self._ready.state
        return curl(
            self._instance.decisions,
            state.authority,
            state.token_file(ASKER),
            f'{{"subject":{{"type":"User","id":"{tour.MAIN[0]}"}},"action":{{"name":"view"}},'
            f'"resource":{{"type":"Record","id":"1","properties":{{"patient":"{self._subject.key}",'
            '"category":"labs"}}}',
        )

    def ask(self) -> tuple[str, ...]:
        """The same by our own command, as two people."""
        return tuple(
            f"{self._name} ask{self._state} {who} view --patient {self._subject.key} "
            "--category labs"
            for who in (tour.MAIN[0], tour.MAIN[2])
        )

    def audit(self) -> tuple[str, ...]:
        """Questions to the audit log."""
        return tuple(
            f"{self._name} audit {question}{self._state}"
            for question in (
                f"who --patient {self._subject.identifier}",
                "user mwelby",
                "tail",
                "verify",
            )
        )

    def facts(self, seconds: float) -> dict[str, object]:
        """The sheet for programs."""
        return {
            "title": self._ready.title,
            "host": self._instance.host,
            "port": self._port,
            "database": self._instance.database,
            "state": str(self._ready.state.root),
            "passfile": str(self._ready.state.passfile),
            "seconds": round(seconds, 1),
            "people": [
                {
                    "username": p.username,
                    "full_name": p.full_name,
                    "title": p.title,
                    "role": p.role,
                    "department": p.department,
                    "purpose": p.purpose,
                    "sees": tour.SEES.get(p.username, ""),
                    "psql": self.psql(p.username),
                    "chartgate_psql": self.short_psql(p.username),
                }
                for p in EVERYBODY
            ],
            "queries": [{"title": q.title, "sql": q.sql} for q in self._layout.tries],
            "audit": self.audit(),
            "decisions": {
                "url": self._instance.decisions,
                "unix": str(self._ready.state.decision_socket),
                "ca": str(self._ready.state.authority),
                "tokens": {
                    application.name: str(self._ready.state.token_file(application.name))
                    for application in APPLICATIONS
                },
                "patient": self._subject.key,
                "curl": self.curl(),
                "ask": self.ask(),
            },
        }

    def show(self, out: Console, seconds: float) -> None:
        """Print the sheet."""
        out.print()
        out.print(
            Text("Chartgate demo", style="bold").append(
                f": {self._ready.title}, {self._patients():,} patients. Ready in {seconds:.1f} s.",
                style="not bold",
            )
        )
        out.print(
            f"The gate listens on {self._instance.host} port {self._port}; the hospital's own "
            "database behind it knows nothing of it."
        )
        screen.heading(out, "Whom to be")
        table = screen.plain_table("Login", "Role", "Department", "Purpose", "Sees")
        for username in tour.MAIN:
            p = tour.person(username)
            table.add_row(
                Text(username, style="bold"),
                p.title,
                screen.department_name(p.department),
                p.purpose,
                tour.SEES[username],
            )
        out.print(table)
        others = ", ".join(
            f"{p.username} ({p.title.lower()})" for p in EVERYBODY if p.username not in tour.MAIN
        )
        out.print(f"Also there: {others}.")
        out.print(
            "Purpose is why they ask (TREAT treatment, PATADMIN patient administration, HPAYMT "
            "payment, HCOMPL compliance, HSYSADMIN system administration), unless they say otherwise:"
        )
        screen.lines(out, ["SET chartgate.purpose = 'ETREAT';  -- emergency treatment"])
        screen.heading(out, "Log in, in another terminal")
        screen.lines(out, [self.short_psql(tour.MAIN[0])])
        screen.heading(out, "or with any psql")
        screen.lines(out, [self.psql(username) for username in tour.MAIN])
        screen.heading(out, "Three queries worth trying as each of them")
        for question in self._layout.tries:
            screen.lines(out, [f"-- {question.title}", f"{question.sql};"])
        screen.heading(out, "Or ask as an application does: the same policy decides")
        out.print(
            f"The decision service (OpenID AuthZEN) answers at {self._instance.decisions} "
            "and at a Unix socket. Each of the demo's applications has a token, in a file of its own:"
        )
        folder = screen.folder_name(self._ready.state.tokens_dir)
        screen.lines(out, [f"{folder}/{application.name}" for application in APPLICATIONS])
        screen.lines(out, [self.curl(), *self.ask()])
        screen.heading(out, "Then ask who saw whom (as Petra Officer, the privacy officer)")
        screen.lines(out, self.audit())
        out.print()
        out.print(
            f"Everything is kept in {screen.folder_name(self._ready.state.root)}; the passwords "
            "end with the demo."
        )
        out.print(Text("Ctrl-C stops everything.", style="bold"))

    def _patients(self) -> int:
        query = psycopg.sql.SQL("SELECT count(*) FROM {}").format(
            psycopg.sql.Identifier(self._layout.patient)
        )
        with psycopg.connect(self._instance.legacy) as connection:
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def _show_report(out: Console, report: Report, title: str) -> None:
    """What each person saw, side by side, then each check."""
    out.print()
    out.print(Text(f"What each person saw: {title}", style="bold"))
    out.print("How many rows came, and what the first of them shows; – is a value withheld.")
    for sight in report.sights:
        out.print()
        out.print(Text(sight.title, style="bold"))
        screen.lines(out, [sight.sql])
        table = screen.plain_table("", *sight.people, close=True)
        for row in sight.table:
            table.add_row(*row)
        out.print(table)
    out.print()
    out.print(Text("Checks", style="bold"))
    for one in report.checks:
        mark, style = ("ok", "green") if one.tried else ("none", "yellow")
        if not one.passed:
            mark, style = "FAILED", "bold red"
        out.print(Text(f"{mark:<8}", style=style).append(one.name, style="not bold default"))
        if one.detail:
            out.print(f"        {one.detail}")
    out.print()
    tried = [one for one in report.checks if one.tried]
    failed = sum(not one.passed for one in tried)
    verdict = (
        Text(f"{failed} of {len(tried)} checks FAILED.", style="bold red")
        if failed
        else Text(f"All {len(tried)} checks passed", style="bold green").append(
            f" in {report.seconds:.1f} s.", style="not bold default"
        )
    )
    out.print(verdict)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Any request to end is a KeyboardInterrupt, once; afterwards we are stopping already."""

    def end(number: int, frame: FrameType | None) -> None:
        _ignore_endings()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_endings() -> None:
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
