"""What a replay found, gathered for the people who decide whether a candidate goes into force.

The rule kept: every recorded decision is in exactly one of *as it was*, *flipped* and *apart*, so
that the three counts add up to what the log holds of the gate. What applications asked is counted and
said not to be decided again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from chartgate.app.replay import Apart, Change, Flip, Outcome, Recorded, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipRow:
    """One kind of change for the people of the same roles. ``persons``: uids."""

    flip: Flip
    roles: tuple[str, ...]
    action: str
    table: str
    columns: tuple[str, ...]
    before: str
    after: str
    why: str
    statements: int
    persons: tuple[str, ...]
    first: datetime
    last: datetime
    example: int
    """Log index of the first such decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a candidate would have decided otherwise."""

    candidate: str
    decisions: int
    requests: int
    """Distinct requests among them."""
    same: int
    flipped: int
    more: int
    """Flipped statements that would have disclosed or changed more in some respect."""
    less: int
    """Flipped statements that would have disclosed or changed less in some respect."""
    apart: tuple[tuple[Apart, int], ...]
    rows: tuple[FlipRow, ...]
    persons: tuple[str, ...]
    """Whom some flip hits."""
    evaluations: int = 0
    """Questions of applications, none of which was decided again; not among ``decisions``."""


def replay(
    tallies: Iterable[Tally],
    outcome: Callable[[Recorded, datetime], Outcome],
    candidate: str,
    *,
    evaluations: int = 0,
) -> ReplayReport:
    """Decide every distinct request again, and gather what comes out otherwise.

    ``evaluations`` says how many questions of applications the log holds beside them.
    """
    rows: dict[FlipRow, list[Tally]] = {}
    apart: dict[Apart, int] = dict.fromkeys(Apart, 0)
    hit: set[str] = set()
    decisions = requests = same = flipped = more = less = 0
    ordered = sorted(tallies, key=_by_person)
    for tally in ordered:
        decisions += tally.statements
        requests += 1
        found = outcome(tally.recorded, tally.first)
        if isinstance(found, Apart):
            apart[found] += tally.statements
            continue
        if not found:
            same += tally.statements
            continue
        flipped += tally.statements
        more += tally.statements * any(change.flip in _MORE for change in found)
        less += tally.statements * any(change.flip in _LESS for change in found)
        hit.add(tally.recorded.uid)
        for change in found:
            rows.setdefault(_row(change, tally), []).append(tally)
    return ReplayReport(
        candidate=candidate,
        decisions=decisions,
        requests=requests,
        same=same,
        flipped=flipped,
        more=more,
        less=less,
        apart=tuple((why, count) for why, count in apart.items() if count),
        rows=_gathered(rows),
        persons=tuple(sorted(hit)),
        evaluations=evaluations,
    )


def _by_person(tally: Tally) -> tuple[str, tuple[str, ...], str, datetime, int]:
    """One person's requests after each other, in time: what was worked out for her serves all."""
    recorded = tally.recorded
    return (recorded.uid, recorded.held, recorded.purpose, tally.first, tally.example)


def _row(change: Change, tally: Tally) -> FlipRow:
    who = tally.recorded.who
    return FlipRow(
        flip=change.flip,
        roles=tuple(sorted({a.role for a in who.assignments})) if who is not None else (),
        action=tally.recorded.action,
        table=change.table,
        columns=(change.column,) if change.column else (),
        before=change.before,
        after=change.after,
        why=change.why,
        statements=0,
        persons=(),
        first=_ANY,
        last=_ANY,
        example=0,
    )


_MORE: Final = frozenset({Flip.ALLOWED, Flip.SHOWN, Flip.RAISED})
_LESS: Final = frozenset({Flip.REFUSED, Flip.HIDDEN, Flip.LOWERED})
_ANY: Final = datetime.max.replace(tzinfo=UTC)
"""Stands where a row of the report does not know its time yet."""


def _gathered(rows: Mapping[FlipRow, list[Tally]]) -> tuple[FlipRow, ...]:
    """One row for the columns of a table that change alike; a statement counts once in it."""
    alike: dict[FlipRow, tuple[set[str], dict[int, Tally]]] = {}
    for row, tallies in rows.items():
        columns, of_row = alike.setdefault(replace(row, columns=()), (set(), {}))
        columns.update(row.columns)
        of_row.update((id(tally), tally) for tally in tallies)
    found = [
        replace(
            row,
            columns=tuple(sorted(columns)),
            statements=sum(t.statements for t in hit.values()),
            persons=tuple(sorted({t.recorded.uid for t in hit.values()})),
            first=min(t.first for t in hit.values()),
            last=max(t.last for t in hit.values()),
            example=min(t.example for t in hit.values()),
        )
        for row, (columns, hit) in alike.items()
    ]
    order = list(Flip)
    return tuple(
        sorted(found, key=lambda r: (order.index(r.flip), -r.statements, r.roles, r.table))
    )
