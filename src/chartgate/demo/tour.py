"""What is worth trying in the demo: who to be, what to ask, and of whom to ask the log.

Rule kept: the same questions for everybody, so that the answers differ by person and nothing else.
What a person sees is said here in a line for people to read; policies decide it, and ``--check``
holds the two together.
"""

from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import sql

from chartgate.demo.people import EVERYBODY, Person
from chartgate.errors import Misconfigured

if TYPE_CHECKING:
    from chartgate.demo.run import Prepared

MAIN = ("mwelby", "nadams", "rpatel", "bcoder", "pofficer", "ddba")
"""The six people of the tour, in the order in which they are shown."""

SEES = {
    "mwelby": "whole charts of Cardiology; substance use masked",
    "nadams": "the chart as nursing needs it; no SSN, no charges",
    "rpatel": "appointments and contact data; no clinical data",
    "bcoder": "charges and codes of all; results as normal or not",
    "pofficer": "who saw whom; names, but no clinical detail",
    "ddba": "initials and pseudonyms; no clinical values",
}


class Question(NamedTuple):
    """A query and what it asks, in words."""

    title: str
    sql: str


class Subject(NamedTuple):
    """The patient whom the demo speaks of."""

    key: str
    identifier: str


class Layout(NamedTuple):
    """The words of one source's schema that the tour and the check need."""

    patient: str
    key: str
    identifier: str
    last_name: str
    ssn: str
    labs: str
    lab_patient: str
    lab_value: str
    conditions: str
    condition_patient: str
    charges: str
    """The query for what was charged."""
    sud_codes: str
    """File of the codes of substance use, beside the maps."""
    staffed: str
    """Rows of ``care_team ct`` for the patient ``p`` that hold today."""
    flagged: str
    tries: tuple[Question, ...]
    """Three queries worth trying."""
    further: tuple[Question, ...]


_HOSPITAL = Layout(
    patient="patient",
    key="patient_id",
    identifier="mrn",
    last_name="last_name",
    ssn="ssn",
    labs="lab_result",
    lab_patient="patient_id",
    lab_value="value",
    conditions="condition",
    condition_patient="patient_id",
    charges="SELECT amount FROM charge",
    sud_codes="hospital_sud.txt",
    staffed="ct.patient_id = p.patient_id "
    "AND (ct.valid_until IS NULL OR ct.valid_until >= current_date)",
    flagged="f.patient_id = p.patient_id",
    tries=(
        Question(
            "Who are the patients?",
            "SELECT mrn, last_name, birth_date, ssn FROM patient ORDER BY patient_id LIMIT 5",
        ),
        Question(
            "What did the laboratory find?",
            "SELECT mrn, test, value, flag FROM lab_result JOIN patient USING (patient_id) "
            "ORDER BY lab_id LIMIT 5",
        ),
        Question(
            "What are they treated for?",
            "SELECT description, count(*) FROM condition GROUP BY description "
            "ORDER BY count(*) DESC LIMIT 5",
        ),
    ),
    further=(
        Question(
            "What is in the notes?",
            "SELECT kind, note_text FROM clinical_note ORDER BY note_id LIMIT 5",
        ),
        Question(
            "What was charged?",
            "SELECT diagnosis_code, amount FROM charge ORDER BY charge_id LIMIT 5",
        ),
        Question(
            "Who comes when?",
            "SELECT starts_at, visit_type FROM appointment ORDER BY appointment_id LIMIT 5",
        ),
        Question("How many patients are there?", "SELECT count(*) AS patients FROM patient"),
    ),
)


def _synthea(identifier: str, shown: str, charges: str, cost: str) -> Layout:
    return Layout(
        patient="patients",
        key="id",
        identifier=identifier,
        last_name="last",
        ssn="ssn",
        labs="observations",
        lab_patient="patient",
        lab_value="value",
        conditions="conditions",
        condition_patient="patient",
        charges=charges,
        sud_codes="synthea_sud.txt",
        staffed="ct.patient = p.id AND (ct.until IS NULL OR ct.until >= current_date)",
        flagged="f.patient = p.id",
        tries=(
            Question(
                "Who are the patients?",
                f"SELECT {shown}, last, birthdate, ssn FROM patients ORDER BY id LIMIT 5",
            ),
            Question(
                "What was observed?",
                "SELECT last, description, value, units FROM observations "
                "JOIN patients ON patients.id = observations.patient "
                "ORDER BY observations.date LIMIT 5",
            ),
            Question(
                "What are they treated for?",
                "SELECT description, count(*) FROM conditions GROUP BY description "
                "ORDER BY count(*) DESC LIMIT 5",
            ),
        ),
        further=(
            Question(
                "What do they take?",
                "SELECT code, description FROM medications ORDER BY start LIMIT 5",
            ),
            Question("What did it cost?", cost),
            Question("How many patients are there?", "SELECT count(*) AS patients FROM patients"),
        ),
    )


LAYOUTS = {
    "hospital": _HOSPITAL,
    "smart-r4": _synthea(
        "mrn",
        "left(mrn, 8) AS mrn",
        "SELECT total FROM claims",
        "SELECT type, total FROM claims ORDER BY start LIMIT 5",
    ),
    "synthea": _synthea(
        "id",
        "left(id, 8) AS id",
        "SELECT total_claim_cost FROM encounters",
        "SELECT encounterclass, total_claim_cost FROM encounters ORDER BY start LIMIT 5",
    ),
}


def person(username: str) -> Person:
    """A demo person by login name."""
    return next(p for p in EVERYBODY if p.username == username)


def subject(ready: "Prepared") -> Subject:
    """The patient whom the demo speaks of."""
    found = find_subject(ready.instance.legacy, ready.instance.source)
    if found is None:
        raise Misconfigured("none of these patients has a laboratory result: use other data")
    return found


def find_subject(conninfo: str, source: str) -> Subject | None:
    """A patient of Dr Welby's, who is not protected and has laboratory results."""
    layout = LAYOUTS[source]
    # Names come from the table above, never from outside.
    query = sql.SQL(
        "SELECT p.{key}::text, p.{identifier}::text FROM {patient} p "
        "WHERE EXISTS (SELECT FROM care_team ct JOIN staff s USING (staff_id) "
        "WHERE s.username = 'mwelby' AND " + layout.staffed + ") "  # pyright: ignore
        "AND NOT EXISTS (SELECT FROM patient_flag f WHERE " + layout.flagged + ") "
        "AND EXISTS (SELECT FROM {labs} l WHERE l.{lab_patient} = p.{key}) "
        "ORDER BY p.{key} LIMIT 1"
    ).format(
        key=sql.Identifier(layout.key),
        identifier=sql.Identifier(layout.identifier),
        patient=sql.Identifier(layout.patient),
        labs=sql.Identifier(layout.labs),
        lab_patient=sql.Identifier(layout.lab_patient),
    )
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
    return None if row is None else Subject(str(row[0]), str(row[1]))
