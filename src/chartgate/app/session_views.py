"""The relations of one session: the source's tables and the system catalogs, as its person sees them.

Names are resolved here, on the virtual search path, never by the server: ``pg_catalog`` first, then
the schema of the data map.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chartgate.app.entitlement import Entitlement
from chartgate.errors import Refused
from chartgate.sql.system_catalog import system_views
from chartgate.sql.system_objects import Scene
from chartgate.sql.views import Table, TableName, TableView, WriteAction, WriteView

SYSTEM_SCHEMAS: Final = ("pg_catalog", "information_schema")


@dataclass(frozen=True, slots=True)
class Source:
    """The source database as the gate knows it: its tables and its system catalogs."""

    tables: Mapping[TableName, Table]
    catalog: Mapping[TableName, Table]


class SessionViews:
    """The person's views of the source's tables and of the system catalogs, as one."""

    def __init__(self, entitlement: Entitlement, source: Source, login: str, schema: str) -> None:
        self._entitlement = entitlement
        self._source = source
        self._scene = Scene(
            tables=entitlement.visible(),
            schemas=(schema,),
            search_path=(schema,),
            login=login,
        )
        self._system = system_views(self._scene, source.catalog)

    @property
    def scene(self) -> Scene:
        return self._scene

    def resolve(self, schema: str | None, name: str) -> TableName:
        # As on every PostgreSQL search path, pg_catalog comes first.
        for system in SYSTEM_SCHEMAS if schema in SYSTEM_SCHEMAS else ("pg_catalog",):
            found = TableName(system, name)
            if schema in {None, system} and found in self._system:
                return found
        if schema in SYSTEM_SCHEMAS:
            raise Refused(
                f'the catalog relation "{schema}.{name}" is not on the allow-list',
                recorded="a catalog relation that is not on the allow-list",
            )
        return self._entitlement.resolve(schema, name)

    def read(self, table: TableName) -> TableView:
        return self._system.get(table) or self._entitlement.read(table)

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        if table in self._system:
            raise Refused(f"{action} on the system catalog {table} is not allowed")
        return self._entitlement.write(action, table)
