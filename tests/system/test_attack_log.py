"""Attacks on the record: whoever learns something of a patient is found by that patient's token."""

from typing import Any

import pytest

from chartgate.model.event import Release

pytestmark = pytest.mark.system


def released(gate: Any, since: int) -> set[str]:
    return {
        token
        for _, event in gate.events(since)
        if isinstance(event, Release)
        for token in event.seen
    }


def test_counting_one_patients_rows_is_recorded_as_looking_at_that_patient(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        key, last, first = nurse.execute(
            "SELECT patient_id, last_name, first_name FROM patient ORDER BY patient_id LIMIT 1"
        ).fetchone()
        since = gate.size
        nurse.execute(
            "SELECT count(*) FROM patient JOIN lab_result USING (patient_id)"
            " WHERE last_name = %s AND first_name = %s",
            (last, first),
        )
        nurse.execute(
            "SELECT count(*) FROM patient WHERE last_name = %s AND first_name = %s", (last, first)
        )
    assert gate.tokens([key]) <= released(gate, since)


def test_counting_very_many_patients_lists_nobody(gate: Any) -> None:
    with gate.connect("nadams") as nurse:
        nurse.execute("SELECT 1")
        since = gate.size
        assert nurse.execute("SELECT count(*) FROM patient WHERE sex = 'F'").fetchone()[0] > 10
        nurse.execute("SELECT count(*) FROM patient")
    assert released(gate, since) == set()
