"""What the gate decides by at this instant: policies, data map and catalog, replaced as one.

The rule kept: a statement is decided by one version as a whole. Sessions look here whenever they
are about to decide; a replacement is one assignment, so nobody ever sees half of it, and a version
that could not be made into a decision point never comes here.
"""

from dataclasses import dataclass

from chartgate.app.entitlement import DecisionPoint
from chartgate.app.session_views import Source


@dataclass(frozen=True, slots=True)
class Decides:
    """A decision point, and the source whose catalog it was made for."""

    point: DecisionPoint
    source: Source


class InForce:
    """The holder that all sessions of a gate share."""

    def __init__(self, point: DecisionPoint, source: Source) -> None:
        point.check_columns(source.tables)
        self._current = Decides(point, source)
        self.replaced: int = 0
        """How often it was replaced since the start."""

    @property
    def current(self) -> Decides:
        """What decides now."""
        return self._current

    @property
    def point(self) -> DecisionPoint:
        """The decision point in force."""
        return self._current.point

    def replace(self, point: DecisionPoint, source: Source) -> None:
        """From the next decision on."""
        self._current = Decides(point, source)
        self.replaced += 1
