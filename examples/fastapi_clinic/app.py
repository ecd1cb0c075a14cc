"""A clinic on FastAPI: a physician, a nurse and a receptionist see different things.

Every route asks by a dependency; what it answers is disclosed field by field. Run it beside `./demo`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import clinic
from fastapi import Depends, FastAPI
from pydantic import BaseModel

from chartgate.sdk import AsyncChartgate, Decision, Record, beside, disclose
from chartgate.sdk.asked import ask_many
from chartgate.sdk.fastapi import ask, disclosed_response, of, protect, public, require

gate = AsyncChartgate(**beside())


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await gate.close()


app = FastAPI(title="Clinic", lifespan=lifespan)
protect(app, gate, subject=lambda request: clinic.signed_in(request.headers.get("authorization")))


def sees(kind: type) -> Any:
    """The decision on all that a page of such objects may show, in one question."""
    about = of("patient", labels=kind, also=clinic.ROW_LABELS)
    return Annotated[Decision, Depends(require("view", about, partial=True))]


@app.get("/health")
@public("says whether the process runs")
def health() -> Any:
    return {"ok": True}


@app.get("/patients")
def search(last_name: str) -> Any:
    found = clinic.patients(last_name)
    categories = ("demographics", "record_ids", "gov_ids")
    asked = [("view", Record(patient=one.patient_id, categories=categories)) for one in found]
    decisions = ask_many(asked)
    shown = (disclose(one, decision) for one, decision in zip(found, decisions, strict=True))
    return [one for one in shown if one is not None]


@app.get("/patients/{patient}")
def patient(patient: str, decision: sees(clinic.Patient)) -> Any:
    return disclosed_response(clinic.patient(patient), decision)


@app.get("/patients/{patient}/labs")
def labs(patient: str, decision: sees(clinic.Lab)) -> Any:
    return disclosed_response(clinic.labs(patient), decision)


@app.get("/patients/{patient}/notes")
def notes(patient: str, decision: sees(clinic.Note)) -> Any:
    return disclosed_response(clinic.notes(patient), decision)


class Booking(BaseModel):
    department: str
    starts_at: datetime


@app.post("/patients/{patient}/appointments", status_code=201)
def book(patient: str, booking: Booking) -> Any:
    ask("create", clinic.visit(patient, booking.department)).require()
    return {"appointment": clinic.book(patient, booking.department, booking.starts_at)}
