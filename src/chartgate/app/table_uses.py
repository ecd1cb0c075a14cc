"""What the audit log says of the tables in a statement: columns, levels, residual.

Rule kept: the gate records and a replay compares what this one function makes, so that deciding
the same request again under the same policies can differ in nothing.
"""

from collections.abc import Mapping
from typing import Final

from chartgate.app.entitlement import Entitlement
from chartgate.app.person_views import PlannedTable
from chartgate.app.session_views import SYSTEM_SCHEMAS
from chartgate.model.event import TableUse
from chartgate.sql.statement import Kind, Rewritten
from chartgate.sql.views import WriteAction

WRITE_ACTIONS: Final[Mapping[Kind, WriteAction]] = {
    Kind.INSERT: "create",
    Kind.UPDATE: "update",
    Kind.DELETE: "delete",
}


def table_use(planned: PlannedTable, columns: tuple[str, ...]) -> TableUse:
    """One table, with the columns that a statement refers to."""
    levels = {c.name: c.level for c in planned.view.columns}
    return TableUse(
        table=str(planned.view.table.name),
        columns={c: str(levels[c]) for c in columns if c in levels},
        residual=planned.residual,
        row_filter=planned.view.row_predicate is not None,
    )


def table_uses(
    step: Rewritten, entitlement: Entitlement
) -> tuple[tuple[TableUse, ...], frozenset[str]]:
    """The tables of a decided statement, and the policies that it rests on."""
    uses: list[TableUse] = []
    determining: set[str] = set()
    for read in step.tables:
        if read.table.schema in SYSTEM_SCHEMAS:
            continue
        planned = entitlement.planned(read.table)
        uses.append(table_use(planned, read.columns))
        determining |= planned.determining
        if read.write is not None:
            action = WRITE_ACTIONS[step.kind]
            determining |= entitlement.write_determining(action, read.table)
    return tuple(uses), frozenset(determining)
