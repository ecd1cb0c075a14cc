"""A question works whether or not the instance runs."""

from pathlib import Path

import psycopg
import pytest

from chartgate.adapters.audit_sources import SourceUnavailable, patient_lookup, running
from chartgate.adapters.control_plane import ControlPlaneUnavailable, open_control_plane
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.datamap.model import DataMap, PatientTable

pytestmark = pytest.mark.system

MAP = DataMap(
    source="hospital",
    title="",
    schema="public",
    patient=PatientTable(table="patient", key="id", identifier="mrn"),
    tables={},
    relations={},
    patient_labels=(),
    hash="",
)


def test_a_stopped_database_is_started_for_the_length_of_a_question(tmp_path: Path) -> None:
    folder = tmp_path / "pg"
    with EmbeddedPostgres(folder, roles=("gate",)) as server:
        stale = server.conninfo("postgres", "postgres")
        with open_control_plane(stale) as plane:
            uid = plane.upsert_person("mwelby", "Marcus Welby")
        with running(folder, stale, embedded=True) as conninfo:
            assert conninfo == stale
    with running(folder, stale, embedded=True) as conninfo, open_control_plane(conninfo) as plane:
        assert plane.upsert_person("mwelby", "Marcus Welby") == uid
    with pytest.raises(ControlPlaneUnavailable), running(folder, stale, embedded=False):
        pass
    with pytest.raises(ControlPlaneUnavailable), running(tmp_path / "none", stale, embedded=True):
        pass


def test_a_number_becomes_the_key_that_tokens_are_made_of(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as server:
        conninfo = server.conninfo("postgres", "postgres")
        with psycopg.connect(conninfo) as hospital:
            hospital.execute("CREATE TABLE patient (id uuid, mrn text)")
            hospital.execute(
                "INSERT INTO patient VALUES "
                "('0A000000-0000-0000-0000-000000000001', '100-1'), "
                "(gen_random_uuid(), 'twice'), (gen_random_uuid(), 'twice')"
            )
        resolve = patient_lookup(conninfo, MAP)
        assert resolve("100-1") == "0a000000-0000-0000-0000-000000000001"
        assert resolve("'; DROP TABLE patient --") is None
        with pytest.raises(SourceUnavailable, match="more than one"):
            resolve("twice")
    with pytest.raises(SourceUnavailable) as caught:
        resolve("100-1")
    assert "100-1" not in str(caught.value)
