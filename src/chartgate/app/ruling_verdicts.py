"""From what was found of each label to the answer: a pure function, its results kept.

The rules kept: a cell has the lowest level of its labels, and nothing of a row whose category is
hidden; the patient's labels count for everything about her; what nobody permitted is answered the
same for every patient, known or not, and so is a patient whom her own labels hide (45 CFR 164.502(b);
42 CFR 2.13(c)(1): no acknowledging that somebody is a patient): the gate shows no row of hers either.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from chartgate.app.ruling import Obligation, Reason
from chartgate.app.ruling_fields import Cell, Wanted
from chartgate.app.ruling_levels import Allowed, Reached, in_order
from chartgate.app.ruling_reasons import (
    LESS,
    NO_PERMIT,
    NOT_ALLOWED,
    UNLABELLED,
    Forbidden,
)
from chartgate.model.disclosure import Disclosure

_WORDS: Final = tuple(level.label for level in sorted(Disclosure))
FULL: Final = int(Disclosure.FULL)
_MASKED: Final = int(Disclosure.MASKED)

NO_PATIENT, KNOWN, UNKNOWN = range(3)
"""What there is of the patient: nobody was named, the source knows her, it does not."""


class Verdict:
    """An answer without who asked. ``barring``: the forbids that another context would have to
    lift; ``lacks``: whether some permit is missing; ``short``: the categories that are not seen in full."""

    __slots__ = (
        "allowed", "barring", "determining", "failed", "fields", "lacks", "levels", "obligations",
        "reason", "short", "shown",
    )  # fmt: skip

    def __init__(
        self,
        *,
        allowed: bool,
        determining: tuple[str, ...],
        failed: tuple[str, ...],
        reason: Reason | None = None,
        barring: tuple[str, ...] = (),
        lacks: bool = False,
        levels: Mapping[str, int] | None = None,
        fields: Mapping[str, int] | None = None,
        shown: Mapping[str, int] | None = None,
    ) -> None:
        self.allowed: Final = allowed
        self.determining: Final = determining
        self.failed: Final = failed
        self.reason: Final = reason
        self.barring: Final = barring
        self.lacks: Final = lacks
        self.levels: Final = words(levels or {})
        self.fields: Final = words(fields or {})
        self.shown: Final = words(shown or {})
        masked = mask(levels or {})
        self.obligations: Final[tuple[Obligation, ...]] = () if masked is None else (masked,)
        self.short: Final = tuple(n for n, level in (levels or {}).items() if level < FULL)


def view_verdict(
    wanted: Wanted,
    labels: tuple[str, ...],
    level: int,
    found: Mapping[str, Reached],
    patient: int,
    forbidden: Forbidden,
) -> Verdict:
    """Whether every cell is seen at the level or better, and at which level each is."""
    levels, fields, shown, least = cell_levels(wanted, labels, found)
    failed = in_order(one.failed for one in found.values())
    if patient != UNKNOWN and least >= level:
        return Verdict(
            allowed=True, determining=in_order(_lowest(wanted, labels, found)), failed=failed,
            levels=levels, fields=fields, shown=shown,
        )  # fmt: skip
    top = max((found[name].top for cell in wanted.cells for name in cell.labels), default=0)
    determining: tuple[str, ...] = ()
    is_hidden = any(not found[name].level for name in labels)
    if not top or patient == UNKNOWN or is_hidden:
        # What bars a label of the patient's would tell that there is such a patient.
        reason = NO_PERMIT if patient == NO_PATIENT else NOT_ALLOWED
        reason = UNLABELLED if wanted.unlabelled else reason
        if top and is_hidden and reason is NOT_ALLOWED:
            determining = in_order(_lowest(wanted, labels, found))  # for the log alone
        elif reason is not NOT_ALLOWED:
            failed = ()
    else:
        determining = in_order(_lowest(wanted, labels, found))
        reason = _why_less(wanted, level, found, forbidden)
    if patient == UNKNOWN:
        levels, fields, shown = (dict.fromkeys(told, 0) for told in (levels, fields, shown))
    return Verdict(
        allowed=False, determining=determining, failed=failed, reason=reason,
        barring=in_order(one.barred_below(level) for one in found.values()),
        lacks=any(one.top < level for one in found.values()),
        levels=levels, fields=fields, shown=shown,
    )  # fmt: skip


def _why_less(
    wanted: Wanted, level: int, found: Mapping[str, Reached], forbidden: Forbidden
) -> Reason:
    if wanted.unlabelled:
        return UNLABELLED
    barred = [one for one in found.values() if one.level < min(one.top, level)]
    if not barred:
        return LESS
    return forbidden.reason(
        in_order(one.barred_below(min(one.top, level)) for one in barred),
        in_order(one.failed for one in barred),
    )


def change_verdict(
    wanted: Wanted,
    found: Mapping[str, Allowed],
    patient: int,
    forbidden: Forbidden,
    *,
    is_hidden: bool = False,
) -> Verdict:
    """Whether every label allows the action: those asked about, the row's and the patient's.

    ``is_hidden``: her own labels hide that there is such a patient.
    """
    failed = in_order(one.failed for one in found.values())
    if patient != UNKNOWN and may_change(wanted, found):
        return Verdict(
            allowed=True,
            determining=in_order(one.determining for one in found.values()),
            failed=failed,
        )
    top = max((found[name].top for name in wanted.labels), default=0)
    refusing = [one for one in found.values() if not one.allowed]
    determining = in_order(one.determining for one in refusing) if top else ()
    if not top or patient == UNKNOWN or is_hidden:
        reason = NO_PERMIT if patient == NO_PATIENT else NOT_ALLOWED
        reason = UNLABELLED if wanted.unlabelled else reason
        if reason is not NOT_ALLOWED:
            determining = failed = ()
    elif wanted.unlabelled:
        reason = UNLABELLED
    else:
        reason = forbidden.reason(determining, failed) if determining else NO_PERMIT
    return Verdict(
        allowed=False, determining=determining, failed=failed, reason=reason,
        barring=in_order(one.barring for one in refusing),
        lacks=any(not one.top for one in refusing),
    )  # fmt: skip


def may_change(wanted: Wanted, found: Mapping[str, Allowed]) -> bool:
    """Whether every label allows it; what has none is refused."""
    return bool(found) and not wanted.unlabelled and all(one.allowed for one in found.values())


def cell_levels(
    wanted: Wanted, labels: tuple[str, ...], found: Mapping[str, Reached]
) -> tuple[dict[str, int], dict[str, int], dict[str, int], int]:
    """Levels by category, by field, the highest by category for the log, and the lowest of all."""
    highest = min((found[name].level for name in labels), default=FULL)
    levels: dict[str, int] = {}
    fields: dict[str, int] = {}
    shown: dict[str, int] = {}
    least = FULL
    for cell in wanted.cells:
        level = _cell_level(cell, highest, found)
        least = min(least, level)
        if cell.is_field:
            fields[cell.name] = level
        if cell.category:
            # Of several fields of a category the lowest is told: safe for whoever reads no further.
            levels[cell.category] = min(level, levels.get(cell.category, FULL))
            # The log must never say less than was answered: there the highest counts.
            shown[cell.category] = max(level, shown.get(cell.category, 0))
    return levels, fields, shown, least


def _cell_level(cell: Cell, highest: int, found: Mapping[str, Reached]) -> int:
    if not cell.labels:
        return 0
    level = min(highest, *[found[name].level for name in cell.labels])
    if cell.row:
        if min(highest, *[found[name].level for name in cell.row]) == 0:
            return 0
        if cell.is_key:
            return FULL if level == FULL else _MASKED
    return level


def _lowest(
    wanted: Wanted, labels: tuple[str, ...], found: Mapping[str, Reached]
) -> Iterator[tuple[str, ...]]:
    """What made the levels: of each cell, the labels that kept it where it is."""
    for cell in wanted.cells:
        names = (*cell.labels, *labels)
        level = min((found[name].level for name in names), default=0)
        for name in names:
            if found[name].level == level:
                yield found[name].determining


def mask(levels: Mapping[str, int]) -> Obligation | None:
    """What may be shown, but not as it is."""
    below = {
        name: _WORDS[level]
        for name, level in levels.items()
        if Disclosure.WITHHELD < level < Disclosure.FULL
    }
    return Obligation("mask", categories=below) if below else None


def words(levels: Mapping[str, int]) -> dict[str, str]:
    """Levels as words."""
    return {name: _WORDS[level] for name, level in levels.items()}
