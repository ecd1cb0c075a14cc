"""Looking a patient up in the source: what policies may ask of her record.

Rules kept: the caller has asked, been allowed and been recorded before; the source is asked with
its service account, read-only, by fixed SQL of the data map with the number as a parameter; what the
server says of a failure stays here, since it may quote the number.
"""

from typing import Final

import psycopg

from chartgate.adapters.audit_sources import SourceUnavailable, patient_lookup
from chartgate.app.patient_record import PatientRecord, patient_query, patient_record
from chartgate.cedar.schema import Schema
from chartgate.datamap.model import DataMap
from chartgate.errors import Misconfigured

_SECONDS: Final = 5
# As the gate's own sessions have it; and a source that does not answer is not waited for.
_SETTINGS: Final = "SET LOCAL search_path TO pg_catalog; SET LOCAL statement_timeout TO '30s'"


class UnknownPatient(Misconfigured):
    """The source has no patient of the number that was typed."""

    code = "unknown_patient"


def read_patient(conninfo: str, data_map: DataMap, schema: Schema, number: str) -> PatientRecord:
    """What the source says now of the patient with this medical record number.

    Raises ``UnknownPatient`` or ``SourceUnavailable``; neither quotes the number.
    """
    query = patient_query(data_map, schema)
    key = patient_lookup(conninfo, data_map)(number)
    rows = [] if key is None else _rows(conninfo, query.text, key)
    if key is None or not rows:
        raise UnknownPatient("the source has no patient of this number today")
    return patient_record(query, schema, key, rows[0])


def _rows(conninfo: str, text: str, key: str) -> list[tuple[object, ...]]:
    try:
        with psycopg.connect(
            conninfo, connect_timeout=_SECONDS, cursor_factory=psycopg.RawCursor
        ) as connection:
            connection.read_only = True
            connection.execute(_SETTINGS)
            return connection.execute(text.encode(), [key]).fetchall()
    except psycopg.Error as exc:
        raise SourceUnavailable(
            "the source database cannot be asked about the patient "
            f"(SQLSTATE {exc.sqlstate or 'none'})"
        ) from None
