"""The made-up hospital: the same for the same seed and day, whole, and with the skew it promises."""

import hashlib
import random
from collections.abc import Mapping
from datetime import date, datetime

import pytest

from chartgate.demo import people
from chartgate.demo.generator import HAND_MADE, Hospital, generate
from chartgate.demo.generator_schema import BY_NAME, TABLES, ddl_keys, ddl_tables

TODAY = date(2026, 11, 22)


@pytest.fixture(scope="module")
def hospital() -> Hospital:
    return generate(random.Random(7), TODAY)


def column(hospital: Hospital, table: str, name: str) -> list[object]:
    place = BY_NAME[table].column_names.index(name)
    return [row[place] for row in hospital.rows[table]]


def records(hospital: Hospital, table: str) -> list[Mapping[str, object]]:
    names = BY_NAME[table].column_names
    return [dict(zip(names, row, strict=True)) for row in hospital.rows[table]]


def digest(hospital: Hospital) -> str:
    return hashlib.sha256(repr(dict(hospital.rows)).encode()).hexdigest()


def test_the_same_seed_and_day_give_the_same_rows() -> None:
    first, second = (generate(random.Random(3), TODAY, patients=60) for _ in range(2))
    assert digest(first) == digest(second)
    assert digest(first) == "89382642736bb17a360d14c9d5d912945ee8a15e40715f996b2492c4ebfe46a7"


def test_another_seed_or_day_gives_other_rows() -> None:
    first = digest(generate(random.Random(3), TODAY, patients=60))
    assert digest(generate(random.Random(4), TODAY, patients=60)) != first
    assert digest(generate(random.Random(3), date(2026, 11, 23), patients=60)) != first


def test_it_is_as_large_as_promised(hospital: Hospital) -> None:
    sizes = {name: len(rows) for name, rows in hospital.rows.items()}
    assert sizes["patient"] == 2400
    assert sizes["staff"] >= 60
    assert len([d for d in people.DEPARTMENTS if d.kind != "administrative"]) == 8
    assert all(sizes.values())
    assert sizes["encounter"] > 5000
    assert sizes["lab_result"] > 8000
    assert sizes["clinical_note"] > 5000


def test_every_row_has_every_column(hospital: Hospital) -> None:
    for table in TABLES:
        assert {len(row) for row in hospital.rows[table.name]} == {len(table.columns)}


def test_keys_are_unique_and_no_row_is_an_orphan(hospital: Hospital) -> None:
    keys = {table.name: column(hospital, table.name, table.key) for table in TABLES}
    for table in TABLES:
        assert len(set(keys[table.name])) == len(keys[table.name])
        for name in table.unique:
            values = column(hospital, table.name, name)
            assert len(set(values)) == len(values)
        for one in table.columns:
            values = column(hospital, table.name, one.name)
            if "NOT NULL" in one.type:
                assert None not in values, (table.name, one.name)
            if one.references:
                assert set(values) - {None} <= set(keys[one.references]), (table.name, one.name)


def test_tables_come_in_an_order_that_can_be_loaded(hospital: Hospital) -> None:
    done: set[str] = set()
    for name in hospital.rows:
        done.add(name)
        assert {one.references for one in BY_NAME[name].columns if one.references} <= done


def test_nothing_has_happened_after_today_but_appointments(hospital: Hospital) -> None:
    for table in TABLES:
        if table.name == "appointment":
            continue
        for row in hospital.rows[table.name]:
            for value in row:
                if isinstance(value, datetime):
                    assert (value.date() - TODAY).days <= 1, table.name
                elif isinstance(value, date):
                    assert value <= TODAY, table.name


def test_the_attending_physician_has_a_panel_of_sensible_size(hospital: Hospital) -> None:
    welby = next(p for p in people.staff() if p.username == "mwelby").staff_id
    team = records(hospital, "care_team")
    mine = {r["patient_id"] for r in team if r["staff_id"] == welby and r["valid_until"] is None}
    past = {r["patient_id"] for r in team if r["staff_id"] == welby and r["valid_until"]}
    vips = {r["patient_id"] for r in records(hospital, "patient_flag") if r["flag"] == "vip"}
    cardiology = {
        r["patient_id"] for r in records(hospital, "encounter") if r["department"] == "cardiology"
    }
    assert 60 <= len(mine) <= 120
    assert past
    assert 1 <= len(mine & vips) <= 3
    assert vips - mine - cardiology
    assert 200 <= len(cardiology) <= 700


@pytest.mark.parametrize("seed", [1, 7, 99])
def test_the_patients_made_by_hand_are_what_texts_say(seed: int) -> None:
    made = generate(random.Random(seed), TODAY, patients=40)
    patients = {r["mrn"]: r for r in records(made, "patient")}
    conditions = records(made, "condition")
    flags = {r["patient_id"]: r["flag"] for r in records(made, "patient_flag")}
    team = records(made, "care_team")
    names = {p.staff_id: p.username for p in people.staff()}
    for one in HAND_MADE:
        patient = patients[one.mrn]
        key = patient["patient_id"]
        assert patient["last_name"] == one.last_name
        assert flags.get(key) == one.flag
        now = {
            names[r["staff_id"]] for r in team if r["patient_id"] == key and not r["valid_until"]
        }  # type: ignore[index]
        assert ("mwelby" in now) == (
            one.about == "psychotherapy" or (one.attending == "mwelby" and not one.ended)
        )
    codes = {
        mrn: {r["code"] for r in conditions if r["patient_id"] == patient["patient_id"]}
        | {
            r["reason_code"]
            for r in records(made, "encounter")
            if r["patient_id"] == patient["patient_id"]
        }
        for mrn, patient in patients.items()
    }
    texts = {r["description"] for r in conditions if r["patient_id"] == 5}
    assert "F11.20" in codes["MRN-100005"] or "Opioid dependence" in texts
    assert any(r["patient_id"] == 7 and r["description"] == "HIV disease" for r in conditions)
    assert any(
        r["patient_id"] == 6 and r["kind"] == "psychotherapy"
        for r in records(made, "clinical_note")
    )


def test_everybody_of_the_demo_works_there() -> None:
    staff = {p.username: p for p in people.staff()}
    assert len(staff) == len(people.staff())
    assert len({p.full_name for p in people.staff()}) == len(staff)
    departments = {d.code for d in people.DEPARTMENTS}
    for person in people.PEOPLE:
        assert staff[person.username].department == person.department
    assert {p.department for p in staff.values()} == departments


def test_identifiers_cannot_be_a_living_persons(hospital: Hospital) -> None:
    for ssn in column(hospital, "patient", "ssn"):
        assert ssn is None or str(ssn).startswith("9")
    for name in ("phone", "emergency_phone"):
        assert all("-555-" in str(v) for v in column(hospital, "patient", name) if v)
    assert all(str(v).endswith(".example") for v in column(hospital, "patient", "email") if v)


def test_fewer_patients_than_those_made_by_hand_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 patients"):
        generate(random.Random(1), TODAY, patients=3)


def test_the_ddl_names_every_table_and_key() -> None:
    for table in TABLES:
        assert f"CREATE TABLE {table.name} (" in ddl_tables()
        assert f"ALTER TABLE {table.name} ADD PRIMARY KEY ({table.key});" in ddl_keys()
