"""Patients by department, as one person may see them: an SQLAlchemy report behind the gate.

    chartgate demo                                          # in another terminal
    python examples/sqlalchemy_report/report.py nadams
    python examples/sqlalchemy_report/report.py researcher

The query knows nothing of policy. Whose report it is, is said once; every way to the database
(ORM, text, raw cursor) gives that person's rows, her masks, and an entry in the audit log.
"""

import sys

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from chartgate.sdk.sqlalchemy import acting_as, at_state, protect


class Base(DeclarativeBase):
    pass


class Patient(Base):
    """Keys are ``BigInteger``, as they are there: a pseudonym that stands for one is 60 bits long."""

    __tablename__ = "patient"
    patient_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    last_name: Mapped[str | None]
    mrn: Mapped[str | None]
    home_department: Mapped[str | None]
    conditions: Mapped[list["Condition"]] = relationship()


class Condition(Base):
    __tablename__ = "condition"
    condition_id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    patient_id: Mapped[int] = mapped_column(sa.ForeignKey("patient.patient_id"))
    description: Mapped[str | None]


def main(person: str, purpose: str = "") -> None:
    engine = sa.create_engine("postgresql+psycopg://")
    protect(engine, at_state(name="report"))
    with acting_as(person, purpose), Session(engine) as session:
        by_department = sa.select(Patient.home_department, sa.func.count()).group_by(
            Patient.home_department
        )
        for department, number in session.execute(by_department.order_by(sa.text("2 DESC"))):
            print(f"{department or '-':<14}{number:>6}")
        for patient in session.scalars(sa.select(Patient).order_by(Patient.patient_id).limit(5)):
            found = [condition.description or "(withheld)" for condition in patient.conditions]
            print(patient.mrn, patient.last_name, ", ".join(found), sep="  ")


if __name__ == "__main__":
    main(*sys.argv[1:3])
