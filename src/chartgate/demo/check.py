"""``chartgate demo --check``: the demo tried unattended, by clients that know only the address.

Six people ask the same questions; what each saw is laid side by side; then every promise is held
against it, one named line each (see ``check_rules``).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from chartgate.demo import tour
from chartgate.demo.applications import Decisions
from chartgate.demo.check_rules import Check, Findings, examine
from chartgate.demo.check_service import RULES
from chartgate.demo.check_visit import Answer, Visitor
from chartgate.demo.run import Prepared, serving

_WIDTH = 14


@dataclass(frozen=True, slots=True)
class Sight:
    """One question and, per person, how many rows came and what the first of them shows."""

    title: str
    sql: str
    people: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a check."""

    passed: bool
    source: str
    seconds: float
    sights: tuple[Sight, ...]
    checks: tuple[Check, ...]


async def checked(ready: Prepared, progress: Callable[[str], None]) -> Report:
    """Run the gate and everything that is tried on it."""
    started = time.monotonic()
    progress("opening the audit log, the gate and the decision service")
    decisions = Decisions(0)
    async with serving(ready, decisions=decisions) as port:
        await decisions.ready()
        sights, checks = await asyncio.to_thread(_visit, ready, port, progress)
    return Report(
        all(check.passed for check in checks),
        ready.instance.source,
        round(time.monotonic() - started, 1),
        sights,
        checks,
    )


def _visit(
    ready: Prepared, port: int, progress: Callable[[str], None]
) -> tuple[tuple[Sight, ...], tuple[Check, ...]]:
    layout = tour.LAYOUTS[ready.instance.source]
    progress("six people log in and ask the same questions")
    visitors = {name: Visitor(ready, port, name) for name in tour.MAIN}
    try:
        sights = []
        for question in (*layout.tries, *layout.further):
            answers = {name: visitor.ask(question.sql) for name, visitor in visitors.items()}
            sights.append(Sight(question.title, question.sql, tour.MAIN, tuple(_table(answers))))
        found = Findings(ready, port, layout, tour.subject(ready), visitors, progress)
        checks = examine(found, RULES)
    finally:
        for visitor in visitors.values():
            visitor.leave()
    return tuple(sights), tuple(checks)


def _table(answers: dict[str, Answer]) -> list[tuple[str, ...]]:
    """Rows for the side-by-side table: the number of rows, then the first row's cells."""
    rows: list[tuple[str, ...]] = [("rows", *(_count(a) for a in answers.values()))]
    columns = next((a.columns for a in answers.values() if a.columns), ())
    for index, column in enumerate(columns):
        cells = (_cell(a.rows[0][index]) if a.rows else "" for a in answers.values())
        rows.append((column, *cells))
    return rows


def _count(answer: Answer) -> str:
    return f"refused {answer.sqlstate}" if answer.sqlstate else str(len(answer.rows))


def _cell(value: Any) -> str:
    match value:
        case None:
            text = "–"
        case datetime():
            text = (
                value.strftime("%Y-%m-%d")
                if not value.time() or _midnight(value)
                else (value.strftime("%m-%d %H:%M"))
            )
        case date():
            text = value.isoformat()
        case Decimal():
            text = f"{value}"
        case _:
            text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _midnight(value: datetime) -> bool:
    return (value.hour, value.minute, value.second) == (0, 0, 0)
