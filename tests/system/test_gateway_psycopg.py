"""psycopg 3 through the gate."""

from typing import Any

import pytest

from chartgate.model.event import Release

pytestmark = pytest.mark.system


def test_a_nurse_reads_some_patients_and_each_is_in_the_log_first(gate: Any) -> None:
    since = gate.size
    with gate.connect("nadams") as nurse, gate.admin() as admin:
        hers = nurse.execute("SELECT patient_id FROM patient").fetchall()
        everyone = admin.execute("SELECT count(*) FROM patient").fetchone()
    assert 0 < len(hers) < everyone[0]
    seen = {t for _, e in gate.events(since) if isinstance(e, Release) for t in e.seen}
    assert seen == gate.tokens(key for (key,) in hers)
