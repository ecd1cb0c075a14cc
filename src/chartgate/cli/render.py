"""Audit answers on paper: lists an auditor can read at 80 columns, and the same as JSON.

Rules kept: people by name, times in the stated zone, the patient only as the number that was asked
for. What comes out of the log was partly chosen by clients (an application name), so nothing that
could steer a terminal is passed on, and rich's markup is off.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial
from typing import IO, Any

import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
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
from chartgate.cli.render_applications import blocks

Names = Mapping[str, str]

_PAPER_WIDTH = 100
_SHOWN = ("full", "summary", "masked", "mixed")
_KINDS = {
    Outcome.DELIVERED: "green",
    Outcome.MAYBE: "yellow",
    Outcome.FAILED: "yellow",
    Outcome.REFUSED: "red",
}


def console(file: IO[str] | None = None) -> Console:
    """Where answers go: as wide as the terminal; plain and 100 columns wide elsewhere."""
    out = file or sys.stdout
    width = None if out.isatty() else _PAPER_WIDTH
    return Console(file=out, width=width, markup=False, highlight=False, emoji=False)


def print_json(answer: object, *, indent: int = 2) -> None:
    """The answer as JSON, times in RFC 3339."""
    encoded = msgspec.json.encode(answer)
    if indent:
        encoded = msgspec.json.format(encoded, indent=indent)
    # What could steer a terminal is escaped, which to a program is the same text.
    shown = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in encoded.decode())
    sys.stdout.write(shown + "\n")


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    pairs = (units[at : at + 2] for at in range(0, len(units), 2))
    return "".join(f"\\u{int.from_bytes(pair):04x}" for pair in pairs)


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
    for title, heads, entries in blocks(
        report.applications, names, partial(_time, zone=zone), str(zone), about_patient=True
    ):
        _entries(out, title, heads, entries)
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
        _entries(
            out,
            "Statements",
            ("Event", f"Time ({zone})", "Action", "Outcome"),
            (
                (
                    (str(row.index), _time(row.at, zone), row.action, _outcome(row)),
                    (("as", _role(row)), _what(row), ("patients", _patients(row))),
                )
                for row in report.statements
            ),
        )
    through = list(
        blocks(
            report.applications, names, partial(_time, zone=zone), str(zone), about_patient=False
        )
    )
    for title, heads, entries in through:
        _entries(out, title, heads, entries)
    if report.asked:
        _asked(out, "Questions to this log", report.asked, names, zone)
    if not (report.sessions or report.statements or report.asked or through):
        out.print("Nothing is recorded.")


def show_tail(out: Console, rows: Sequence[TailRow], names: Names, *, zone: tzinfo) -> None:
    """The newest events. What all of them share, the day and the node, is said once."""
    nodes = {row.node for row in rows}
    days = {_time(row.at, zone)[:10] for row in rows}
    title = "Newest events"
    if len(days) == 1:
        title += f" of {min(days)}"
    if len(nodes) == 1:
        title += f" on node {plain(min(nodes))}"
    columns = ("Event", f"Time ({zone})", "Node", "Person", "Kind", "What")
    table = _table(title, *(c for c in columns if c != "Node" or len(nodes) > 1))
    for row in rows:
        at = _time(row.at, zone)
        node = (row.node,) if len(nodes) > 1 else ()
        _add(
            table,
            str(row.index),
            at[11:] if len(days) == 1 else at,
            *node,
            names.get(row.person, row.person),
            row.kind,
            _said(row, names),
        )
    out.print(table)
    out.print()


def tail_line(row: TailRow, names: Names, zone: tzinfo) -> str:
    """One event as one line, for following."""
    person = names.get(row.person, row.person)
    return plain(
        f"{row.index:>8}  {_time(row.at, zone)}  {person:<20}  {row.kind:<13}  {_said(row, names)}"
    )


def _said(row: TailRow, names: Names) -> str:
    """What an event says, an application by its name."""
    name = names.get(row.service) if row.service else None
    return row.text if name is None else row.text.replace(row.service, name, 1)


def plain(text: str) -> str:
    """The text without anything that could steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _statements(
    out: Console, title: str, rows: Iterable[StatementRow], names: Names, zone: tzinfo
) -> None:
    _entries(
        out,
        title,
        ("Event", f"Time ({zone})", "Person", "Outcome"),
        (
            (
                (
                    str(row.index),
                    _time(row.at, zone),
                    names.get(row.person, row.person),
                    _outcome(row),
                ),
                (
                    ("as", _role(row)),
                    ("how", _how(row) + _count(row)),
                    _what(row),
                    ("policies", ", ".join(dict.fromkeys((*row.determining, *row.grants)))),
                ),
            )
            for row in rows
        ),
    )


def _scope_only(out: Console, rows: Iterable[StatementRow], names: Names, zone: tzinfo) -> None:
    _entries(
        out,
        None,
        ("Event", f"Time ({zone})", "Person", "Outcome"),
        (
            (
                (
                    str(row.index),
                    _time(row.at, zone),
                    names.get(row.person, row.person),
                    _outcome(row),
                ),
                (("as", _role(row)), ("counted", ", ".join(used.table for used in row.tables))),
            )
            for row in rows
        ),
    )


_Cells = Sequence[str | Text]
_Details = Iterable[tuple[str, str]]


def _entries(
    out: Console,
    title: str | None,
    headings: _Cells,
    entries: Iterable[tuple[_Cells, _Details]],
) -> None:
    """One line an entry, its details below: columns for all of them would fit no screen."""
    listed = [
        ([c if isinstance(c, Text) else Text(plain(c)) for c in cells], tuple(details))
        for cells, details in entries
    ]
    heads = [[Text(str(heading), style="bold") for heading in headings], *(c for c, _ in listed)]
    widths = [max(cell_len(row[i].plain) for row in heads) for i in range(len(headings))]
    if title:
        out.print(Text(title, style="bold"))
    out.print(_line(heads[0], widths))
    out.print(Text("─" * min(out.width, sum(widths) + 2 * len(widths) - 2)))
    for cells, details in listed:
        out.print(_line(cells, widths))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for label, text in details:
            if text:
                grid.add_row(label, Text(plain(text)))
        out.print(Padding(grid, (0, 0, 0, widths[0] + 2), expand=False))
    out.print()


def _line(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    """The first cell is a number and stands to the right, the others to the left."""
    line = Text()
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        room = " " * (width - cell_len(cell.plain))
        line.append(room if index == 0 else "").append_text(cell)
        if index + 1 < len(cells):
            line.append("  " if index == 0 else room + "  ")
    return line


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
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        whole = column in {"Event", "Person", "Outcome", "Kind"} or column.startswith("Time")
        table.add_column(
            column,
            justify="right" if column == "Event" else "left",
            no_wrap=whole,
            overflow="fold",
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
    return ", ".join(parts) or "no table"


def _how(row: StatementRow) -> str:
    ways = []
    if row.seen:
        ways.append("may be among those seen" if row.companion else "seen")
    if row.written:
        ways.append("written")
    if row.sought:
        ways.append("sought")
    return ", ".join(ways)


def _what(row: StatementRow) -> tuple[str, str]:
    return ("reason" if row.outcome is Outcome.REFUSED else "shown", _shown(row))


def _patients(row: StatementRow) -> str:
    if row.outcome is Outcome.REFUSED:
        return ""
    if row.scope_only:
        return f"counted, not listed; {_rows(row.rows)}"
    written = f", {row.patients_written} written" if row.patients_written else ""
    return f"{row.patients_seen} seen{written}; {_rows(row.rows)}"


def _count(row: StatementRow) -> str:
    return "" if row.outcome is Outcome.REFUSED else f"; {_rows(row.rows)}"


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _outcome(row: StatementRow) -> Text:
    words = str(row.outcome)
    if row.outcome is Outcome.FAILED:
        words = f"ended with error {row.sqlstate}"
    return Text(words, style=_KINDS[row.outcome])


def show_verified(out: Console, facts: Mapping[str, Any]) -> None:
    """What ``audit verify`` checked, in words."""
    out.print(Text("The log is what was signed.", style="bold green"))
    for label, value in (
        ("Log", facts["log"]),
        ("Entries", facts["size"]),
        ("Tree root", facts["root"]),
        ("Signed by", f"{facts['key_name']} (key {facts['key_id']})"),
        ("Public key", facts["key_file"]),
        ("Checkpoint", facts["known_file"] or "none was kept from before"),
    ):
        out.print(f"  {label:<10}  {value}", soft_wrap=True)  # a path stays whole to be copied
    known, newer = facts["known_size"], facts["size"] - (facts["known_size"] or 0)
    out.print()
    out.print("Checked:")
    _point(out, "every byte of every log file is under a checksum, hash or signature that holds;")
    _point(out, "the hash of each entry was computed anew, and all of them give the tree root;")
    _point(out, "the signed checkpoint over that root was made with the key named above;")
    if known is None:
        _point(
            out,
            "there was no earlier checkpoint to compare with: a log that was replaced as a whole "
            "before this verification would not be noticed.",
        )
    else:
        _point(
            out,
            f"the checkpoint kept from before, over {known} entries, is the root over exactly the "
            f"first {known} entries of this log.",
        )
    if facts["unfinished"]:
        _point(
            out,
            f"{facts['unfinished']} bytes of a write that is under way or never finished follow "
            "the last entry; nobody was told that they were recorded.",
        )
    out.print()
    out.print(
        "Not shown by this: entries newer than the newest checkpoint kept elsewhere could have "
        f"been rolled back before now ({newer} of those present are newer than the one kept)."
    )
    if facts["saved"]:
        out.print("The present checkpoint is now kept; keep a copy elsewhere:")
        out.print(f"  {facts['saved']}", soft_wrap=True)


def _point(out: Console, text: str) -> None:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row("  -", Text(text))
    out.print(grid)
