"""What the demo prints: the steps of a start with their times, and the sheet to work from.

Rules kept: a line that is meant to be copied is never broken or cut by us; nothing moves or is
coloured where nobody watches (rich asks the terminal); everything is text first.
"""

import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from chartgate.demo.people import DEPARTMENTS

_PAPER_WIDTH = 100


def console(file: IO[str] | None = None) -> Console:
    """Where the demo prints: as wide as the terminal, or 100 columns on paper."""
    out = file or sys.stdout
    width = None if out.isatty() else _PAPER_WIDTH
    return Console(file=out, width=width, markup=False, highlight=False, emoji=False)


class _OneLine(logging.Formatter):
    """What went wrong, on one line: a traceback could quote a patient's values."""

    def format(self, record: logging.LogRecord) -> str:
        kind = record.exc_info[0] if record.exc_info else None
        return f"chartgate: {record.getMessage()}" + (f" ({kind.__name__})" if kind else "")


def log_in_one_line() -> None:
    """Faults of the gate are told on stderr; with ``CHARTGATE_DEBUG`` in full."""
    handler = logging.StreamHandler()
    if not os.environ.get("CHARTGATE_DEBUG"):
        handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class Steps:
    """Shows what is being done and how long each step took."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._started = time.monotonic()
        self._since = self._started
        self._doing: str | None = None
        self._status: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(done=kind is None)

    @property
    def seconds(self) -> float:
        """Since the first step."""
        return time.monotonic() - self._started

    def step(self, what: str) -> None:
        """The step before is done, this one begins."""
        self.end()
        self._doing, self._since = what, time.monotonic()
        if self._out.is_terminal:
            self._status = self._out.status(f"{what} …")
            self._status.start()

    def end(self, *, done: bool = True) -> None:
        """Nothing is being done any more."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._doing is not None and done:
            took = time.monotonic() - self._since
            self._out.print(Text(f"{took:6.1f} s  ", style="dim").append(self._doing, "not dim"))
        self._doing = None


def command_name() -> str:
    """How to call us again: ``chartgate`` where the shell finds it, else the path to it."""
    ours = Path(sys.argv[0])
    if ours.name != "chartgate":
        return f"{shlex.quote(sys.executable)} -m chartgate"
    found = shutil.which("chartgate")
    if found is not None and Path(found).resolve() == ours.resolve():
        return "chartgate"
    return shlex.quote(str(ours.absolute()))  # another terminal is in another folder


def folder_name(path: Path) -> str:
    """A folder as a person writes it, with ``~`` for her own."""
    home = os.environ.get("HOME")
    if home and path.is_relative_to(home) and Path(home) != Path("/"):
        return f"~/{path.relative_to(home)}"
    return str(path)


def department_name(code: str) -> str:
    """A department's name, short enough for a table."""
    name = next((d.name for d in DEPARTMENTS if d.code == code), code)
    return {"Information technology": "IT"}.get(name, name)


def heading(out: Console, text: str) -> None:
    """A heading with a line of room above it."""
    out.print()
    out.print(Text(text, style="bold"))


def lines(out: Console, texts: Sequence[str], *, indent: str = "  ") -> None:
    """Lines to copy: never wrapped by us, so that they are one line when copied."""
    for text in texts:
        out.print(f"{indent}{text}", soft_wrap=True)


def plain_table(*headings: str, close: bool = False) -> Table:
    """A table without a frame; ``close``: narrow columns whose cells are cut, not broken."""
    gap = 0 if close else 1  # the frame itself leaves one
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), show_edge=False)
    for text in headings:
        table.add_column(text, overflow="ellipsis" if close else "fold", no_wrap=close)
    return table
