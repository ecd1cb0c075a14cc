"""The legacy hospital's tables, as they might have stood for fifteen years.

Rule kept: nothing in here knows of Chartgate: no extension, no view, no column made for us. Keys
and indexes are made after the rows are in, which is faster and checks them all the same.
"""

from typing import NamedTuple


class Column(NamedTuple):
    name: str
    type: str
    """PostgreSQL type, with NOT NULL where it holds."""
    references: str | None = None
    """Table whose primary key this is."""


class Table(NamedTuple):
    name: str
    key: str
    columns: tuple[Column, ...]
    indexes: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def _table(name: str, text: str, *, indexes: str = "", unique: str = "") -> Table:
    """One column a line: name, type, and ``> table`` for a foreign key; the first is the key."""
    columns = []
    for line in text.strip().splitlines():
        left, _, target = line.partition(">")
        column, _, kind = left.strip().partition(" ")
        columns.append(Column(column, kind.strip(), target.strip() or None))
    return Table(
        name, columns[0].name, tuple(columns), tuple(indexes.split()), tuple(unique.split())
    )


_VISIT = """
patient_id bigint NOT NULL > patient
encounter_id bigint NOT NULL > encounter
department text NOT NULL > department
""".strip()

TABLES = (
    _table("department", """
        code text NOT NULL
        name text NOT NULL
        kind text NOT NULL
        floor integer NOT NULL
        phone text NOT NULL
        """),
    _table("staff", """
        staff_id integer NOT NULL
        username text NOT NULL
        full_name text NOT NULL
        title text NOT NULL
        department text NOT NULL > department
        email text NOT NULL
        phone text NOT NULL
        hired_on date NOT NULL
        active boolean NOT NULL
        """, unique="username", indexes="department"),
    _table("patient", """
        patient_id bigint NOT NULL
        mrn text NOT NULL
        ssn text
        last_name text NOT NULL
        first_name text NOT NULL
        alias text
        birth_date date NOT NULL
        sex text NOT NULL
        marital_status text
        language text NOT NULL
        address text
        city text
        state text
        zip text
        phone text
        email text
        employer text
        emergency_contact text
        emergency_phone text
        pcp_id integer > staff
        home_department text NOT NULL > department
        deceased_on date
        registered_on date NOT NULL
        """, unique="mrn", indexes="last_name birth_date"),
    _table("patient_flag", """
        flag_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        flag text NOT NULL
        since date NOT NULL
        """, indexes="patient_id"),
    _table("care_team", """
        care_team_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        staff_id integer NOT NULL > staff
        role text NOT NULL
        valid_from date NOT NULL
        valid_until date
        """, indexes="patient_id staff_id"),
    _table("encounter", """
        encounter_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        department text NOT NULL > department
        attending_id integer NOT NULL > staff
        class text NOT NULL
        started_at timestamp NOT NULL
        ended_at timestamp
        reason_code text
        reason text
        location text NOT NULL
        """, indexes="patient_id department started_at"),
    _table("condition", f"""
        condition_id bigint NOT NULL
        {_VISIT}
        author_id integer NOT NULL > staff
        code text
        description text NOT NULL
        status text NOT NULL
        onset_on date NOT NULL
        resolved_on date
        """, indexes="patient_id code"),
    _table("clinical_note", f"""
        note_id bigint NOT NULL
        {_VISIT}
        author_id integer NOT NULL > staff
        kind text NOT NULL
        written_on date NOT NULL
        diagnosis_code text
        note_text text NOT NULL
        """, indexes="patient_id written_on"),
    _table("lab_order", f"""
        order_id bigint NOT NULL
        {_VISIT}
        ordered_by integer NOT NULL > staff
        ordered_at timestamp NOT NULL
        panel text NOT NULL
        priority text NOT NULL
        status text NOT NULL
        diagnosis_code text
        """, indexes="patient_id"),
    _table("lab_result", f"""
        lab_id bigint NOT NULL
        order_id bigint NOT NULL > lab_order
        {_VISIT}
        author_id integer NOT NULL > staff
        test_code text
        test text NOT NULL
        value text
        unit text
        ref_range text
        flag text NOT NULL
        resulted_at timestamp NOT NULL
        """, indexes="patient_id order_id"),
    _table("medication_order", f"""
        medication_id bigint NOT NULL
        {_VISIT}
        prescriber_id integer NOT NULL > staff
        drug_code text
        drug text NOT NULL
        dose text NOT NULL
        frequency text NOT NULL
        started_on date NOT NULL
        stopped_on date
        status text NOT NULL
        indication_code text
        """, indexes="patient_id"),
    _table("vital_sign", f"""
        vital_id bigint NOT NULL
        {_VISIT}
        recorded_by integer NOT NULL > staff
        taken_at timestamp NOT NULL
        systolic integer
        diastolic integer
        heart_rate integer
        temperature numeric(4,1)
        oxygen integer
        weight_kg numeric(5,1)
        """, indexes="patient_id"),
    _table("appointment", """
        appointment_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        department text NOT NULL > department
        provider_id integer NOT NULL > staff
        starts_at timestamp NOT NULL
        minutes integer NOT NULL
        visit_type text NOT NULL
        status text NOT NULL
        remark text
        """, indexes="patient_id department starts_at"),
    _table("insurance_coverage", """
        coverage_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        payer text NOT NULL
        plan text NOT NULL
        member_id text NOT NULL
        group_number text
        subscriber_name text NOT NULL
        valid_from date NOT NULL
        valid_until date
        copay numeric(8,2)
        """, indexes="patient_id"),
    _table("billing_account", """
        account_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        account_number text NOT NULL
        guarantor_name text NOT NULL
        status text NOT NULL
        balance numeric(10,2) NOT NULL
        opened_on date NOT NULL
        """, indexes="patient_id", unique="account_number"),
    _table("charge", f"""
        charge_id bigint NOT NULL
        account_id bigint NOT NULL > billing_account
        {_VISIT}
        service_date date NOT NULL
        service_code text NOT NULL
        description text NOT NULL
        diagnosis_code text
        amount numeric(10,2) NOT NULL
        payer_paid numeric(10,2) NOT NULL
        patient_due numeric(10,2) NOT NULL
        status text NOT NULL
        """, indexes="patient_id account_id"),
    _table("allergy", """
        allergy_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        substance text NOT NULL
        reaction text
        severity text NOT NULL
        noted_on date NOT NULL
        """, indexes="patient_id"),
    _table("immunization", """
        immunization_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        department text NOT NULL > department
        given_by integer NOT NULL > staff
        vaccine_code text NOT NULL
        vaccine text NOT NULL
        given_on date NOT NULL
        lot_number text NOT NULL
        """, indexes="patient_id"),
    _table("imaging_report", f"""
        report_id bigint NOT NULL
        {_VISIT}
        radiologist_id integer NOT NULL > staff
        accession_number text NOT NULL
        modality text NOT NULL
        body_site text NOT NULL
        performed_at timestamp NOT NULL
        diagnosis_code text
        findings text NOT NULL
        impression text NOT NULL
        """, indexes="patient_id", unique="accession_number"),
    _table("genetic_test", """
        genetic_test_id bigint NOT NULL
        patient_id bigint NOT NULL > patient
        department text NOT NULL > department
        ordered_by integer NOT NULL > staff
        gene text NOT NULL
        result text NOT NULL
        reported_on date NOT NULL
        """, indexes="patient_id"),
)  # fmt: skip
BY_NAME = {table.name: table for table in TABLES}


def ddl_tables() -> str:
    """CREATE TABLE statements, without keys."""
    return "".join(
        f"CREATE TABLE {table.name} (\n"
        + ",\n".join(f"    {column.name} {column.type}" for column in table.columns)
        + "\n);\n"
        for table in TABLES
    )


def ddl_keys() -> str:
    """Primary keys first, since foreign keys rest on them; then the rest."""
    lines = [f"ALTER TABLE {table.name} ADD PRIMARY KEY ({table.key});" for table in TABLES]
    for table in TABLES:
        lines += [f"CREATE UNIQUE INDEX ON {table.name} ({name});" for name in table.unique]
        lines += [f"CREATE INDEX ON {table.name} ({name});" for name in table.indexes]
        lines += [
            f"ALTER TABLE {table.name} ADD FOREIGN KEY ({column.name}) "
            f"REFERENCES {column.references};"
            for column in table.columns
            if column.references
        ]
    return "\n".join(lines) + "\n"
