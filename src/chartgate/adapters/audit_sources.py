"""The databases an audit question needs: who people are, and which patient a number means.

The rule kept: a question works whether or not the instance is running. While it runs, its own
databases are asked; else an embedded one is started for the length of the question.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from chartgate.adapters.control_plane import ControlPlaneUnavailable
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.datamap.model import DataMap

Resolve = Callable[[str], str | None]
"""From what people type (a medical record number) to the patient key, as the log's tokens use it;
None when the source has no such patient."""

_SECONDS = 5


class SourceUnavailable(ControlPlaneUnavailable):
    """The source database cannot be asked which patient a number means."""

    code = "source_unavailable"


@contextmanager
def running(folder: Path, conninfo: str, *, embedded: bool) -> Iterator[str]:
    """A connection string that works: ``conninfo``, or that of the folder's own server."""
    if not conninfo:
        raise ControlPlaneUnavailable(
            "this instance has no control plane: it is served by files alone, "
            "`chartgate serve --policies`"
        )
    if _is_reachable(conninfo):
        yield conninfo
        return
    if not embedded or not folder.is_dir():
        raise ControlPlaneUnavailable("a database that this needs cannot be reached")
    wanted = conninfo_to_dict(conninfo)
    user = str(wanted.get("user", "postgres"))
    with EmbeddedPostgres(folder, roles=(user,)) as server:
        yield server.conninfo(str(wanted.get("dbname", "postgres")), user)


def patient_lookup(conninfo: str, data_map: DataMap) -> Resolve:
    """How to find a patient's key in the source, by the identifier that the data map names."""
    patient = data_map.patient
    query = sql.SQL("SELECT {key}::text FROM {table} WHERE {identifier}::text = %s").format(
        key=sql.Identifier(patient.key),
        table=sql.Identifier(data_map.schema, patient.table),
        identifier=sql.Identifier(patient.identifier),
    )

    def resolve(number: str) -> str | None:
        try:
            with psycopg.connect(conninfo, connect_timeout=_SECONDS) as connection:
                connection.read_only = True
                rows = connection.execute(query, [number]).fetchall()
        except psycopg.Error as exc:
            raise SourceUnavailable(
                "the source database cannot be asked which patient that is "
                f"(SQLSTATE {exc.sqlstate or 'none'})"
            ) from None  # the server's words may quote the number
        if len(rows) > 1:
            raise SourceUnavailable("that number means more than one patient in the source")
        return str(rows[0][0]) if rows else None

    return resolve


def _is_reachable(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo, connect_timeout=_SECONDS).close()
    except psycopg.Error:
        return False
    return True
