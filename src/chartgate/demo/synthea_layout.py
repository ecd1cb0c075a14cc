"""The two layouts of Synthea CSV that can be loaded: its own, and the flattened SMART R4 set.

Rule kept: the tables are taken as they come, with lower-case names so that nobody has to quote.
Columns are typed plainly; a column that is not named here is loaded as text, has no label in the
data map, and is therefore withheld.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Layout(NamedTuple):
    name: str
    """Name of the data map."""
    title: str
    tables: Mapping[str, Mapping[str, str]]
    required: frozenset[str]
    """Tables without which the folder is something else; the others may be missing."""


_SHORT = {"t": "text", "d": "date", "z": "timestamptz", "n": "numeric"}


def _tables(text: str) -> dict[str, dict[str, str]]:
    """One table a paragraph: its name, then columns as ``name`` (text) or ``name:type``."""
    tables = {}
    for paragraph in text.strip().split("\n\n"):
        name, *columns = paragraph.split()
        pairs = (column.partition(":") for column in columns)
        tables[name] = {column: _SHORT[kind or "t"] for column, _, kind in pairs}
    return tables


SYNTHEA = Layout(
    "synthea",
    "Synthea clinic",
    _tables("""
patients id birthdate:d deathdate:d ssn drivers passport prefix first last suffix maiden marital
race ethnicity gender birthplace address city state county zip lat:n lon:n
healthcare_expenses:n healthcare_coverage:n

encounters id start:z stop:z patient organization provider payer encounterclass code description
base_encounter_cost:n total_claim_cost:n payer_coverage:n reasoncode reasondescription

conditions start:d stop:d patient encounter code description

observations date:z patient encounter category code description value units type

medications start:z stop:z patient payer encounter code description base_cost:n payer_coverage:n
dispenses:n totalcost:n reasoncode reasondescription

procedures start:z stop:z patient encounter code description base_cost:n reasoncode
reasondescription

immunizations date:z patient encounter code description base_cost:n

allergies start:d stop:d patient encounter code system description type category reaction1
description1 severity1 reaction2 description2 severity2

careplans id start:d stop:d patient encounter code description reasoncode reasondescription

devices start:z stop:z patient encounter code description udi

supplies date:d patient encounter code description quantity:n

imaging_studies id date:z patient encounter series_uid bodysite_code bodysite_description
modality_code modality_description instance_uid sop_code sop_description procedure_code

claims id patientid providerid primarypatientinsuranceid secondarypatientinsuranceid departmentid
patientdepartmentid diagnosis1 diagnosis2 diagnosis3 diagnosis4 diagnosis5 diagnosis6 diagnosis7
diagnosis8 referringproviderid appointmentid currentillnessdate:z servicedate:z
supervisingproviderid status1 status2 statusp outstanding1:n outstanding2:n outstandingp:n
lastbilleddate1:z lastbilleddate2:z lastbilleddatep:z healthcareclaimtypeid1 healthcareclaimtypeid2

claims_transactions id claimid chargeid patientid type amount:n method fromdate:z todate:z
placeofservice procedurecode modifier1 modifier2 diagnosisref1 diagnosisref2 diagnosisref3
diagnosisref4 units:n departmentid notes unitamount:n transferoutid transfertype payments:n
adjustments:n transfers:n outstanding:n appointmentid linenote patientinsuranceid feescheduleid
providerid supervisingproviderid

payer_transitions patient memberid start_year end_year payer secondary_payer ownership ownername

payers id name address city state_headquartered zip phone amount_covered:n amount_uncovered:n
revenue:n covered_encounters:n uncovered_encounters:n covered_medications:n
uncovered_medications:n covered_procedures:n uncovered_procedures:n covered_immunizations:n
uncovered_immunizations:n unique_customers:n qols_avg:n member_months:n

organizations id name address city state zip lat:n lon:n phone revenue:n utilization:n

providers id organization name gender speciality address city state zip lat:n lon:n utilization:n
"""),
    frozenset({"patients", "encounters", "conditions", "observations", "medications", "claims"}),
)

SMART_R4 = Layout(
    "smart-r4",
    "SMART Synthea R4",
    _tables("""
patients id birthdate:d deathdate:d ssn drivers passport mrn prefix first last maiden
mothers_maiden marital race ethnicity gender birthplace phone address city state zip lat:n lon:n

encounters id start:z stop:z patient organization provider encounterclass code description
reasoncode reasondescription

conditions id start:d stop:d patient encounter code description

observations id date:z patient encounter category code description value units

medications id start:z status patient provider encounter code description

procedures id start:z stop:z patient encounter code description

immunizations id date:z patient encounter code description

allergies id start:d patient code description category

careplans id start:d stop:d patient encounter code description

claims id patient organization encounter type start:z stop:z total:n payer

organizations id name address city state zip phone

providers id npi name gender city state zip
"""),
    frozenset({"patients", "encounters", "conditions", "observations", "medications", "claims"}),
)

SPECIAL_WORDS = (
    r"alcohol|opioid|opiate|drug|cocaine|heroin|cannabis|overdose|abus|addict|substance|detoxif"
    r"|naloxone|naltrexone|buprenorphine|methadone|disulfiram|acamprosate"
    r"|depress|anxi|psych|suicid|mental|bipolar|schizo|stress|attention.deficit|behavio|autis"
    r"|sertraline|fluoxetine|citalopram|paroxetine|venlafaxine|bupropion|lithium|quetiapine"
    r"|violence|rape|assault|partner|victim|crafft|relax"
    r"|hiv|immunodefic|sexual|contracep|pregnan|natal|abortion|termination|miscarr|childbirth"
    r"|fetal|fetus|fundal|obstet|of labor\b|gonorr|chlamyd|syphil|day pack|vaginal|medroxyprogest"
    r"|vasectomy|sterili[sz]ation|preeclampsia|tubal"
)
"""A code described with one of these words is never taken for ordinary without a person."""
