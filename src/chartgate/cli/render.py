"""Audit answers on paper: tables an auditor can read, and the same as JSON.

Rules kept: people by name, times in the stated zone, the patient only as the number that was asked
for. What comes out of the log was partly chosen by clients (an application name), so nothing that
could steer a terminal is passed on, and rich's markup is off.
"""

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import IO, Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chartgate.app.audit_queries import (
    AskedRow,
    Outcome,
    StatementRow,
    UserReport,
    WhoReport,
)
from chartgate.app.audit_tail import TailRow

Names = Mapping[str, str]

_PAPER_WIDTH = 150
_SHOWN = ("full", "summary", "masked", "mixed")
_KINDS = {
    Outcome.DELIVERED: "green",
    Outcome.MAYBE: "yellow",
    Outcome.FAILED: "yellow",
    Outcome.REFUSED: "red",
}


def console(file: IO[str] | None = None) -> Console:
    """Where answers go: as wide as the terminal; plain and 150 columns wide elsewhere."""
    out = file or sys.stdout
    width = None if out.isatty() else _PAPER_WIDTH
    return Console(file=out, width=width, markup=False, highlight=False, emoji=False)


def print_json(answer: object, *, indent: int = 2) -> None:
    """The answer as JSON, times in RFC 3339."""
    encoded = msgspec.json.encode(answer)
    if indent:
        encoded = msgspec.json.format(encoded, indent=indent)
    sys.stdout.write(encoded.decode() + "\n")


def show_who(
    out: Console, report: WhoReport, names: Names, *, patient: str, zone: tzinfo, notes: list[str]
) -> None:
    """Who accessed the patient; ends with what the log cannot tell."""
    when = f"on {report.on.isoformat()}" if report.on else "at any time"
    title = f"Accesses to patient {plain(patient)} {when}"
    out.print(Text(title, style="bold"))
    out.print(f"{report.entries} log entries examined. Days and times are in {report.zone}.")
    for note in notes:
        out.print(note)
    out.print()
    if report.accesses:
        _statements(
            out, "Rows about this patient were released or written", report.accesses, names, zone
        )
    else:
        out.print("No statement released or wrote a row about this patient.\n")
    if report.sought:
        _statements(
            out,
            "Looked for this patient; no row about the patient was released",
            report.sought,
            names,
            zone,
        )
    if report.refused:
        _statements(
            out, "Refused statements that looked for this patient", report.refused, names, zone
        )
    if report.asked:
        _asked(out, "Questions to this log about the patient", report.asked, names, zone)
    if report.loose:
        listed = ", ".join(map(str, report.loose))
        out.print(
            f"Releases about this patient without their decision: events {listed}.", style="red"
        )
    out.print(Text(f"{report.closing}{':' if report.scope_only else '.'}", style="bold"))
    if report.scope_only:
        _scope_only(out, report.scope_only, names, zone)


def show_user(
    out: Console, report: UserReport, names: Names, *, name: str, zone: tzinfo, notes: list[str]
) -> None:
    """What a person did."""
    when = f"on {report.on.isoformat()}" if report.on else "at any time"
    full = names.get(report.uid, "?")
    out.print(Text(f"What {plain(full)} ({plain(name)}, {report.uid}) did {when}", style="bold"))
    out.print(f"{report.entries} log entries examined. Days and times are in {report.zone}.")
    for note in notes:
        out.print(note)
    out.print()
    if report.sessions:
        table = _table("Sessions", "Event", f"Time ({zone})", "What", "Detail")
        for session in report.sessions:
            _add(table, str(session.index), _time(session.at, zone), session.what, session.detail)
        out.print(table)
        out.print()
    if report.statements:
        table = _table(
            "Statements",
            "Event",
            f"Time ({zone})",
            "Roles, purpose",
            "Action and what was shown",
            "Patients",
            "Rows",
            "Outcome",
        )
        for row in report.statements:
            patients = f"{row.patients_seen} seen"
            if row.patients_written:
                patients += f", {row.patients_written} written"
            if row.scope_only:
                patients = "counted, not listed"
            _add(
                table,
                str(row.index),
                _time(row.at, zone),
                _role(row),
                f"{row.action}: {_shown(row)}",
                patients if row.outcome is not Outcome.REFUSED else "",
                str(row.rows) if row.outcome is not Outcome.REFUSED else "",
                _outcome(row),
            )
        out.print(table)
        out.print()
    if report.asked:
        _asked(out, "Questions to this log", report.asked, names, zone)
    if not (report.sessions or report.statements or report.asked):
        out.print("Nothing is recorded.")


def show_tail(out: Console, rows: Iterable[TailRow], names: Names, *, zone: tzinfo) -> None:
    """The newest events."""
    table = _table(None, "Event", f"Time ({zone})", "Node", "Person", "Kind", "What")
    for row in rows:
        person = names.get(row.person, row.person)
        _add(
            table,
            str(row.index),
            _time(row.at, zone),
            row.node,
            person,
            row.kind,
            row.text,
        )
    out.print(table)


def tail_line(row: TailRow, names: Names, zone: tzinfo) -> str:
    """One event as one line, for following."""
    person = names.get(row.person, row.person)
    return plain(f"{row.index:>8}  {_time(row.at, zone)}  {person:<20}  {row.kind:<13}  {row.text}")


def plain(text: str) -> str:
    """The text without anything that could steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _statements(
    out: Console, title: str, rows: Iterable[StatementRow], names: Names, zone: tzinfo
) -> None:
    shown = tuple(rows)
    table = _table(
        title,
        "Event",
        f"Time ({zone})",
        "Person",
        "Roles, purpose",
        "What was shown" if any(row.reason == "" for row in shown) else "What was refused",
        "How",
        "Outcome",
        "Policies",
    )
    for row in shown:
        _add(
            table,
            str(row.index),
            _time(row.at, zone),
            names.get(row.person, row.person),
            _role(row),
            _shown(row),
            _how(row),
            _outcome(row),
            ", ".join((*row.determining, *row.grants)),
        )
    out.print(table)
    out.print()


def _scope_only(out: Console, rows: Iterable[StatementRow], names: Names, zone: tzinfo) -> None:
    table = _table(
        None,
        "Event",
        f"Time ({zone})",
        "Person",
        "Roles, purpose",
        "Tables",
        "Outcome",
    )
    for row in rows:
        tables = ", ".join(used.table for used in row.tables)
        person = names.get(row.person, row.person)
        _add(table, str(row.index), _time(row.at, zone), person, _role(row), tables, _outcome(row))
    out.print(table)
    out.print()


def _asked(out: Console, title: str, rows: Iterable[AskedRow], names: Names, zone: tzinfo) -> None:
    table = _table(title, "Event", f"Time ({zone})", "Person", "Question", "Outcome")
    for row in rows:
        person = names.get(row.person, row.person)
        outcome = Text("answered") if row.allowed else Text("refused", style="red")
        _add(table, str(row.index), _time(row.at, zone), person, row.question, outcome)
    out.print(table)
    out.print()


def _table(title: str | None, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1),
    )
    for column in columns:
        number = column in {"Event", "Rows"}
        whole = number or column in {"Person", "Outcome"} or column.startswith("Time")
        table.add_column(
            column, justify="right" if number else "left", no_wrap=whole, overflow="fold"
        )
    return table


def _add(table: Table, *cells: str | Text) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in cells))


def _time(at: datetime, zone: tzinfo) -> str:
    return at.astimezone(zone).isoformat(sep=" ", timespec="seconds")[:19]


def _role(row: StatementRow) -> str:
    roles = ", ".join(row.roles)
    where = f" in {', '.join(row.departments)}" if row.departments else ""
    return f"{roles}{where}; {row.purpose or 'no purpose'}"


def _shown(row: StatementRow) -> str:
    if row.outcome is Outcome.REFUSED:
        return row.reason
    parts = []
    for used in row.tables:
        levels = [
            f"{level} {', '.join(used.levels[level])}" for level in _SHOWN if level in used.levels
        ]
        if "withheld" in used.levels:
            levels.append(f"withheld {', '.join(used.levels['withheld'])}")
        parts.append(f"{used.table} ({'; '.join(levels)})" if levels else used.table)
    return ", ".join(parts) or row.action


def _how(row: StatementRow) -> str:
    ways = []
    if row.seen:
        ways.append("may be among those seen" if row.companion else "seen")
    if row.written:
        ways.append("written")
    if row.sought:
        ways.append("sought")
    return ", ".join(ways)


def _outcome(row: StatementRow) -> Text:
    words = str(row.outcome)
    if row.outcome is Outcome.FAILED:
        words = f"ended with error {row.sqlstate}"
    return Text(words, style=_KINDS[row.outcome])


def show_verified(out: Console, facts: Mapping[str, Any]) -> None:
    """What ``audit verify`` checked, in words."""
    out.print(Text("The log is what was signed.", style="bold green"))
    out.print(f"  Log         {facts['log']}")
    out.print(f"  Entries     {facts['size']}")
    out.print(f"  Tree root   {facts['root']}")
    out.print(
        f"  Signed by   {facts['key_name']} (key {facts['key_id']}, from {facts['key_file']})"
    )
    out.print()
    out.print("Checked:")
    out.print("  - every byte of every log file is under a checksum, hash or signature that holds;")
    out.print("  - the hash of each entry was computed anew, and all of them give the tree root;")
    out.print("  - the signed checkpoint over that root was made with the key named above;")
    known = facts["known_size"]
    if known is None:
        out.print("  - there was no earlier checkpoint to compare with: a log that was replaced")
        out.print("    as a whole before this verification would not be noticed.")
    else:
        out.print(f"  - the checkpoint kept from before ({known} entries, {facts['known_file']})")
        out.print(f"    is the root over exactly the first {known} entries of this log.")
    if facts["unfinished"]:
        out.print(f"  {facts['unfinished']} bytes of a write that is under way or never finished")
        out.print("  follow the last entry; nobody was told that they were recorded.")
    out.print()
    newer = facts["size"] - (known or 0)
    out.print(
        "Not shown by this: entries newer than the newest checkpoint kept elsewhere could have"
    )
    out.print(
        f"been rolled back before now ({newer} of those present are newer than the one kept)."
    )
    if facts["saved"]:
        out.print(f"The present checkpoint is now kept in {facts['saved']}: keep a copy elsewhere.")
