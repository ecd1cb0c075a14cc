"""From what holds to how much is seen: the meaning of ``chartgate.app.levels`` on weighed policies.

The rule kept (45 CFR 164.502(b)): a level is reached exactly when some permit holds for an action
of it or of a higher one, and no forbid holds for the action of it or of a lower one; permits are
those of one assignment alone, forbids those of the whole person.
"""

from collections.abc import Iterable
from typing import Final

from chartgate.model.disclosure import Disclosure
from chartgate.targets.compiled import Weighed

_LEVELS: Final = (Disclosure.MASKED, Disclosure.SUMMARY, Disclosure.FULL)


class Reached:
    """The level of one label. ``top``: what the permits alone would give."""

    __slots__ = ("barring", "determining", "failed", "level", "top")

    def __init__(
        self, wholes: tuple[Weighed, ...], alones: tuple[tuple[Weighed, ...], ...]
    ) -> None:
        """From the answers for the three levels, lowest first, and those of each assignment."""
        given = [permits_of(w, alone) for w, alone in zip(wholes, alones, strict=True)]
        top = max((at for at, ids in zip(_LEVELS, given, strict=True) if ids), default=0)
        level = 0
        for at, weighed in zip(_LEVELS, wholes, strict=True):
            if weighed.forbids or at > top:
                break
            level = int(at)
        self.level: Final[int] = level
        self.top: Final[int] = int(top)
        self.barring: Final = tuple(weighed.forbids for weighed in wholes)
        """The forbids that hold, of each level's action."""
        granting = [ids for at, ids in zip(_LEVELS, given, strict=True) if at >= level > 0]
        barred = [w.forbids for at, w in zip(_LEVELS, wholes, strict=True) if level < at <= top]
        self.determining: Final = in_order((*granting, *barred))
        self.failed: Final = in_order(
            failed_of(w, alone) for w, alone in zip(wholes, alones, strict=True)
        )

    def barred_below(self, wanted: int) -> tuple[str, ...]:
        """The forbids that stand before a level."""
        return in_order(self.barring[:wanted])


class Allowed:
    """Whether one action is allowed on one label."""

    __slots__ = ("allowed", "barring", "determining", "failed", "top")

    def __init__(self, whole: Weighed, alone: tuple[Weighed, ...]) -> None:
        permits = permits_of(whole, alone)
        self.allowed: Final = bool(permits) and not whole.forbids
        self.top: Final = int(bool(permits))
        self.barring: Final = whole.forbids
        # A forbid of what nobody permitted made no difference.
        self.determining: Final = (whole.forbids or permits) if permits else ()
        self.failed: Final = failed_of(whole, alone)


def permits_of(whole: Weighed, alone: tuple[Weighed, ...]) -> tuple[str, ...]:
    """The permits that hold for one assignment; without assignments apart, for the person."""
    return in_order(one.permits for one in alone) if alone else whole.permits


def failed_of(whole: Weighed, alone: tuple[Weighed, ...]) -> tuple[str, ...]:
    """The policies that could not be evaluated, where they are asked."""
    if not alone:
        return (*whole.failed_permits, *whole.failed_forbids)
    return in_order((*(one.failed_permits for one in alone), whole.failed_forbids))


def in_order(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All ids, each once."""
    return tuple(dict.fromkeys(policy_id for group in groups for policy_id in group))
