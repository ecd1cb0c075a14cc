"""What the made-up hospital diagnoses, measures, prescribes and writes.

Rule kept: ICD-10-CM codes are public domain; test, drug and charge codes are the hospital's own,
and every sentence is our own. No code system that needs a licence is shipped here.
"""

from typing import NamedTuple


class Diagnosis(NamedTuple):
    code: str
    text: str


class Test(NamedTuple):
    code: str
    name: str
    unit: str
    low: float
    high: float
    digits: int


class Drug(NamedTuple):
    code: str
    name: str
    dose: str
    frequency: str


DIAGNOSES: dict[str, tuple[Diagnosis, ...]] = {
    "cardiology": (
        Diagnosis("I10", "High blood pressure"),
        Diagnosis("I25.10", "Coronary artery disease"),
        Diagnosis("I48.91", "Atrial fibrillation"),
        Diagnosis("I50.9", "Heart failure"),
        Diagnosis("E78.5", "Raised blood lipids"),
        Diagnosis("I20.9", "Angina"),
        Diagnosis("I35.0", "Narrowed aortic valve"),
        Diagnosis("R00.2", "Palpitations"),
    ),
    "oncology": (
        Diagnosis("C50.919", "Breast cancer"),
        Diagnosis("C34.90", "Lung cancer"),
        Diagnosis("C18.9", "Colon cancer"),
        Diagnosis("C61", "Prostate cancer"),
        Diagnosis("C83.30", "Large-cell lymphoma"),
        Diagnosis("D64.81", "Anemia after chemotherapy"),
    ),
    "emergency": (
        Diagnosis("R07.9", "Chest pain"),
        Diagnosis("R10.9", "Abdominal pain"),
        Diagnosis("S52.501A", "Fracture of the radius"),
        Diagnosis("S61.409A", "Cut of the hand"),
        Diagnosis("T78.40XA", "Allergic reaction"),
        Diagnosis("R55", "Fainting"),
        Diagnosis("N20.0", "Kidney stone"),
        Diagnosis("J06.9", "Upper respiratory infection"),
    ),
    "surgery": (
        Diagnosis("K35.80", "Acute appendicitis"),
        Diagnosis("K80.20", "Gallstones"),
        Diagnosis("K40.90", "Inguinal hernia"),
        Diagnosis("M17.11", "Worn right knee"),
        Diagnosis("M51.26", "Slipped lumbar disc"),
        Diagnosis("K21.9", "Acid reflux"),
    ),
    "pediatrics": (
        Diagnosis("J45.909", "Asthma"),
        Diagnosis("H66.90", "Middle-ear infection"),
        Diagnosis("J02.9", "Sore throat"),
        Diagnosis("L20.9", "Eczema"),
        Diagnosis("Z00.129", "Well-child visit"),
    ),
    "psychiatry": (
        Diagnosis("F32.1", "Depressive episode, moderate"),
        Diagnosis("F41.1", "Generalized anxiety"),
        Diagnosis("F33.1", "Recurrent depression"),
        Diagnosis("F43.10", "Post-traumatic stress"),
        Diagnosis("F31.9", "Bipolar disorder"),
        Diagnosis("F20.9", "Schizophrenia"),
    ),
}
SUD = (
    Diagnosis("F10.20", "Alcohol dependence"),
    Diagnosis("F11.20", "Opioid dependence"),
    Diagnosis("F14.20", "Cocaine dependence"),
    Diagnosis("F10.129", "Alcohol intoxication"),
    Diagnosis("T40.2X1A", "Opioid poisoning"),
)
CHILD_MIND = (Diagnosis("F90.9", "Attention deficit"), Diagnosis("F43.20", "Adjustment disorder"))
INTIMATE = (
    Diagnosis("B20", "HIV disease"),
    Diagnosis("A54.9", "Gonorrhea"),
    Diagnosis("A56.2", "Chlamydia"),
    Diagnosis("O03.9", "Miscarriage"),
    Diagnosis("T74.11XA", "Injury by a partner"),
)

TESTS: dict[str, tuple[Test, ...]] = {
    "Metabolic panel": (
        Test("NA", "Sodium", "mmol/L", 135, 145, 0),
        Test("K", "Potassium", "mmol/L", 3.5, 5.1, 1),
        Test("CREA", "Creatinine", "mg/dL", 0.6, 1.3, 2),
        Test("GLU", "Glucose", "mg/dL", 70, 110, 0),
    ),
    "Blood count": (
        Test("HGB", "Hemoglobin", "g/dL", 12.0, 16.5, 1),
        Test("WBC", "White cells", "10^9/L", 4.0, 11.0, 1),
        Test("PLT", "Platelets", "10^9/L", 150, 400, 0),
    ),
    "Lipids": (
        Test("CHOL", "Cholesterol", "mg/dL", 120, 200, 0),
        Test("LDL", "LDL cholesterol", "mg/dL", 50, 130, 0),
    ),
    "Heart markers": (
        Test("TROP", "Troponin", "ng/L", 0, 14, 0),
        Test("BNP", "BNP", "pg/mL", 0, 100, 0),
    ),
}
PANELS: dict[str, tuple[str, ...]] = {
    "cardiology": ("Metabolic panel", "Lipids", "Heart markers"),
    "oncology": ("Blood count", "Metabolic panel"),
    "emergency": ("Metabolic panel", "Blood count", "Heart markers"),
    "psychiatry": ("Metabolic panel",),
    "surgery": ("Blood count", "Metabolic panel"),
    "pediatrics": ("Blood count",),
}
SUD_TESTS = (("UDS", "Urine drug screen"), ("ETOH", "Blood alcohol"))
STI_TESTS = (("HIVAB", "HIV antibody"), ("HIVVL", "HIV viral load"), ("CTNG", "Chlamydia PCR"))

DRUGS: dict[str, tuple[Drug, ...]] = {
    "cardiology": (
        Drug("RX-101", "Lisinopril", "10 mg", "once a day"),
        Drug("RX-102", "Metoprolol", "50 mg", "twice a day"),
        Drug("RX-103", "Atorvastatin", "40 mg", "at night"),
        Drug("RX-104", "Apixaban", "5 mg", "twice a day"),
        Drug("RX-105", "Furosemide", "40 mg", "once a day"),
    ),
    "oncology": (
        Drug("RX-201", "Tamoxifen", "20 mg", "once a day"),
        Drug("RX-202", "Ondansetron", "8 mg", "when needed"),
        Drug("RX-203", "Capecitabine", "1500 mg", "twice a day"),
    ),
    "emergency": (
        Drug("RX-301", "Ibuprofen", "600 mg", "three times a day"),
        Drug("RX-302", "Cephalexin", "500 mg", "four times a day"),
        Drug("RX-303", "Prednisone", "40 mg", "once a day"),
    ),
    "surgery": (
        Drug("RX-401", "Acetaminophen", "1000 mg", "four times a day"),
        Drug("RX-402", "Omeprazole", "20 mg", "once a day"),
    ),
    "pediatrics": (
        Drug("RX-501", "Albuterol inhaler", "2 puffs", "when needed"),
        Drug("RX-502", "Amoxicillin", "250 mg", "three times a day"),
    ),
    "psychiatry": (
        Drug("RX-601", "Sertraline", "50 mg", "once a day"),
        Drug("RX-602", "Lithium", "300 mg", "twice a day"),
        Drug("RX-603", "Quetiapine", "100 mg", "at night"),
    ),
}
SUD_DRUGS = (
    Drug("RX-701", "Buprenorphine and naloxone", "8 mg", "once a day"),
    Drug("RX-702", "Naltrexone", "50 mg", "once a day"),
)
STI_DRUGS = (
    Drug("RX-801", "Bictegravir combination", "1 tablet", "once a day"),
    Drug("RX-802", "Doxycycline", "100 mg", "twice a day"),
)

VACCINES = (("140", "Influenza"), ("115", "Tetanus, diphtheria, pertussis"), ("03", "Measles"),
            ("33", "Pneumococcal"), ("187", "Shingles"), ("208", "Covid-19"))  # fmt: skip
ALLERGENS = (("Penicillin", "rash"), ("Peanut", "swelling"), ("Latex", "itching"),
             ("Shellfish", "hives"), ("Aspirin", "wheezing"), ("Pollen", "sneezing"))  # fmt: skip
IMAGING = (
    ("XR", "Chest", "No focal shadow, heart of usual size.", "No acute finding."),
    ("XR", "Wrist", "Bones in line, small buckle of the cortex.", "Undisplaced break."),
    (
        "CT",
        "Abdomen",
        "No free fluid; small cyst of the left kidney.",
        "Nothing that explains pain.",
    ),
    ("US", "Heart", "Wall motion even, valve opens well.", "Pumping function preserved."),
    ("MR", "Lower back", "Disc bulges at the lowest level.", "Root touched, not squeezed."),
)
GENES = ("BRCA1", "BRCA2", "MLH1", "APC", "LDLR", "MYH7")
GENE_RESULTS = ("no variant found", "no variant found", "variant of unknown meaning",
                "disease-causing variant")  # fmt: skip

PROGRESS = (
    "{name} was seen for {problem}. Feels {feel}; takes the tablets {often}.",
    "Follow-up of {problem} with {name}. Sleeps {feel}, walks daily.",
    "{name}, {age} years, {problem}. Examination unchanged since the last visit.",
)
PROGRESS_END = (
    "Plan: carry on, see again in three months.",
    "Plan: blood tests today, telephone call with the result.",
    "Plan: dose raised one step, pressure diary at home.",
    "Family was present and agrees.",
)
DISCHARGE = (
    "{name} leaves today after treatment for {problem}. Walks alone, eats well.",
    "Stay for {problem} without complications. {name} goes home with family.",
)
NURSING = (
    "{name} rested quietly, no pain reported.",
    "Helped {name} to the chair twice; dressing dry.",
    "{name} asked about the tablets; explained and repeated back.",
)
THERAPY = (
    "Session: {name} spoke of the quarrel at home and of fear before nights.",
    "Session: grief after the loss of a parent; {name} wept and was calmer at the end.",
    "Session: {name} described the old shame in detail. Private impressions kept apart.",
)
FEELS = ("better", "about the same", "well", "tired")
OFTENS = ("regularly", "most days", "with some gaps")
