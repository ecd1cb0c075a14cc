"""One person under one policy version, deciding what the log holds as a session at the gate would.

The rule kept: the gate's own code decides, so that a replay under the policies that were in force
changes nothing. What was decided once is kept as long as it holds.
"""

from datetime import datetime

from msgspec import structs

from chartgate.app.entitlement import Asker, DecisionPoint, Entitlement
from chartgate.app.replay_alike import Alike
from chartgate.app.session_views import SessionViews, Source
from chartgate.app.table_uses import table_use, table_uses
from chartgate.errors import Refused
from chartgate.model.event import TableUse
from chartgate.sql.parse import split
from chartgate.sql.rewrite import rewrite
from chartgate.sql.statement import Rewritten
from chartgate.sql.views import TableName, WriteAction


class Deciding:
    """One person under one policy version, as a session at the gate would be."""

    def __init__(
        self, point: DecisionPoint, asker: Asker, source: Source, at: datetime, *, always: bool
    ) -> None:
        self._point = point
        self._source = source
        self._at = at
        self._always = always
        self._name = asker.person.name
        self._entitlement: Entitlement = point.entitlement(asker, source.tables, at=at, secret="")
        self._views: SessionViews | None = None
        self._refusals: dict[str, str | None] = {}

    def covers(self, at: datetime) -> bool:
        """Whether what was decided here holds at ``at``."""
        return self._always or (self._at <= at and self._entitlement.is_valid(at=at))

    def use(self, name: TableName, columns: tuple[str, ...], alike: Alike | None) -> TableUse:
        """The table as the log would name it, for whom this one stands if for anybody."""
        planned = self._entitlement.planned(name)
        found = table_use(planned, columns)
        if alike is None:
            return found
        return structs.replace(found, residual=alike.residual(planned.view))

    def rows(self, name: TableName) -> str | None:
        return self._entitlement.planned(name).view.row_predicate

    def expression(self, name: TableName, column: str) -> str:
        columns = self._entitlement.planned(name).view.columns
        return next((c.expression for c in columns if c.name == column), "")

    def writable(self, action: WriteAction, name: TableName) -> object:
        return self._entitlement.write(action, name)

    def refuses(self, text: str) -> str | None:
        """Why a recorded text is refused; ``None`` when it is not."""
        if text not in self._refusals:
            self._refusals[text] = self._refusal(text)
        return self._refusals[text]

    def _refusal(self, text: str) -> str | None:
        if self._views is None:
            self._views = SessionViews(
                self._entitlement, self._source, self._name, self._point.data_map.schema
            )
        try:
            for statement in split(text):
                step = rewrite(statement, self._views)
                if isinstance(step, Rewritten):
                    table_uses(step, self._entitlement)
        except Refused as refusal:
            return refusal.recorded
        return None
