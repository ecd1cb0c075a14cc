"""The people of every demo: the same names whatever the hospital's data come from.

Rule kept: nobody here is real. Login name, role and department are what policies and scenarios
speak of; a person's passwords and assignments belong to the control plane and are not here.
"""

from typing import NamedTuple

CLINICAL = ("cardiology", "oncology", "emergency", "psychiatry", "surgery", "pediatrics")
"""Departments that treat patients."""


class Department(NamedTuple):
    code: str
    name: str
    kind: str
    """``clinical``, ``service`` or ``administrative``."""
    floor: int


class Person(NamedTuple):
    """Somebody the demo logs in as."""

    username: str
    full_name: str
    title: str
    role: str
    department: str
    purpose: str
    """Default purpose of use (HL7 v3 PurposeOfUse)."""
    reference: str | None = None
    """What justifies the assignment: a ticket, an agreement."""
    hours: int | None = None
    """How long the assignment lasts; unlimited when absent."""
    about_subject: bool = False
    """Whether the assignment is about the one patient whom the demo speaks of."""


class StaffMember(NamedTuple):
    staff_id: int
    username: str
    full_name: str
    title: str
    department: str


DEPARTMENTS = (
    Department("cardiology", "Cardiology", "clinical", 3),
    Department("oncology", "Oncology", "clinical", 5),
    Department("emergency", "Emergency", "clinical", 0),
    Department("psychiatry", "Psychiatry", "clinical", 6),
    Department("surgery", "Surgery", "clinical", 2),
    Department("pediatrics", "Pediatrics", "clinical", 4),
    Department("pharmacy", "Pharmacy", "service", 0),
    Department("billing", "Billing", "service", 1),
    Department("compliance", "Compliance", "administrative", 1),
    Department("it", "Information technology", "administrative", -1),
)

PEOPLE = (
    Person("mwelby", "Marcus Welby", "Attending physician", "physician", "cardiology", "TREAT"),
    Person("nadams", "Nora Adams", "Nurse", "nurse", "cardiology", "TREAT"),
    Person(
        "rpatel", "Ravi Patel", "Receptionist", "receptionist_scheduler", "cardiology", "PATADMIN"
    ),
    Person("bcoder", "Bea Coder", "Billing coder", "billing_coder", "billing", "HPAYMT"),
    Person(
        "pofficer", "Petra Officer", "Privacy officer", "privacy_officer", "compliance", "HCOMPL",
        "INV-118",
    ),
    Person(
        "ddba", "Dan Dba", "Database administrator", "it_support_dba", "it", "HSYSADMIN",
        "OPS-2041", 8,
    ),
    Person(
        "bclinician", "Bruno Clinician", "Psychologist", "behavioral_health_clinician",
        "psychiatry", "TREAT",
    ),
    Person(
        "aassist", "Ada Assist", "Administrative assistant", "administrative_assistant",
        "cardiology", "HPAYMT",
    ),
    Person(
        "fworker", "Finn Worker", "Front-line worker", "front_line_worker", "emergency", "TREAT"
    ),
    Person("pharma", "Pia Pharma", "Pharmacist", "pharmacist", "pharmacy", "TREAT"),
    Person(
        "contractor", "Cora Contractor", "Contractor", "vendor_contractor", "it", "SYSDEV",
        "BAA-77", 24 * 30,
    ),
    Person("oncdoc", "Olga Doc", "Attending physician", "physician", "oncology", "TREAT"),
)  # fmt: skip


FURTHER = (
    Person(
        "sofficer", "Selma Officer", "Security officer", "security_officer", "compliance", "HCOMPL"
    ),
    Person("annself", "Ann, a patient", "Patient", "patient", "", "PATRQT", about_subject=True),
    Person(
        "annmother", "Ann's mother", "Personal representative", "proxy", "", "FAMRQT",
        hours=24 * 365, about_subject=True,
    ),
    Person(
        "hrecords", "Hanna Records", "Records clerk", "him_records", "records", "RECORDMGT",
        "ROI-2041", 24 * 30, about_subject=True,
    ),
    Person(
        "researcher", "Rosa Searcher", "Researcher", "researcher", "research", "HRESCH",
        "IRB-0812", 24 * 365,
    ),
    Person("qanalyst", "Quinn Analyst", "Quality analyst", "quality_analyst", "quality", "HQUALIMP"),
    Person(
        "labtech", "Lena Tech", "Laboratory technologist", "lab_tech", "laboratory", "TREAT"
    ),
    Person("radiologist", "Rahel Radiologist", "Radiologist", "radiologist", "radiology", "TREAT"),
)  # fmt: skip
"""Who has an account without being in the directory of staff: the hospital's data stay the same
whoever is added here."""

EVERYBODY = (*PEOPLE, *FURTHER)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Who else works there: title and number, by department. With the people above, 72 in all.
_OTHERS: dict[str, tuple[tuple[str, int], ...]] = {
    "cardiology": (("Attending physician", 3), ("Nurse", 3), ("Technician", 1)),
    "oncology": (("Attending physician", 3), ("Nurse", 3), ("Receptionist", 1)),
    "emergency": (("Attending physician", 3), ("Nurse", 4), ("Receptionist", 1)),
    "psychiatry": (("Psychiatrist", 2), ("Nurse", 2), ("Social worker", 1), ("Receptionist", 1)),
    "surgery": (("Surgeon", 4), ("Nurse", 4), ("Receptionist", 1)),
    "pediatrics": (("Attending physician", 3), ("Nurse", 3), ("Receptionist", 1)),
    "pharmacy": (("Pharmacist", 3), ("Technician", 2)),
    "billing": (("Billing coder", 4), ("Billing clerk", 1)),
    "compliance": (("Auditor", 1),),
    "it": (("System administrator", 2), ("Help desk", 1)),
}
_GIVEN = _words(
    """
    Agnes Boris Celia Dario Edith Felix Greta Hugo Ilse Jonas Karin Lukas Mira Nils Orla Pavel
    Quirin Rosa Stefan Tilda Ulrich Vera Wanda Xenia Yusuf Zora Anton Berta Clemens Dora
    """
)
_FAMILY = _words(
    """
    Alder Birch Cedarholm Dunmore Elmstead Fernley Gorse Hazelton Ivory Juniper Kelp Larchmont
    Maplewood Nettles Oakridge Pinecrest Quince Rowan Sorrel Thistle Underhill Vetch Willowby
    Yarrow Ashby Bramble Clover Dogwood Everly Foxglove
    """
)

PHYSICIANS = frozenset({"Attending physician", "Psychiatrist", "Surgeon"})


def staff() -> tuple[StaffMember, ...]:
    """Everybody who works at the hospital; the demo people come first. Always the same."""
    found = [
        StaffMember(number, person.username, person.full_name, person.title, person.department)
        for number, person in enumerate(PEOPLE, start=1)
    ]
    for department, posts in _OTHERS.items():
        for title, number in posts:
            for _ in range(number):
                count = len(found)
                # Two strides without a common factor: no two people share a full name.
                given = _GIVEN[count % len(_GIVEN)]
                family = _FAMILY[(count * 7 + count // len(_FAMILY)) % len(_FAMILY)]
                username = f"{given[0]}{family}".lower() + str(count + 1)
                found.append(
                    StaffMember(count + 1, username, f"{given} {family}", title, department)
                )
    return tuple(found)


def physicians(department: str) -> tuple[StaffMember, ...]:
    return tuple(p for p in staff() if p.department == department and p.title in PHYSICIANS)


def nurses(department: str) -> tuple[StaffMember, ...]:
    return tuple(p for p in staff() if p.department == department and p.title == "Nurse")
