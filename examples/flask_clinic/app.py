"""A clinic on Flask: a physician, a nurse and a receptionist see different things.

Every view asks by a decorator; what it answers is disclosed field by field. Run it beside `./demo`.
"""

from datetime import datetime
from typing import Any

import clinic
from flask import Flask, jsonify, request

from chartgate.sdk import Chartgate, Record, beside, disclose
from chartgate.sdk.asked import ask_many
from chartgate.sdk.flask import ask, of, protect, public, require, shown

app = Flask(__name__)
gate = Chartgate(**beside(over="unix"))
protect(app, gate, subject=lambda: clinic.signed_in(request.headers.get("authorization")))


def sees(kind: type) -> Any:
    """All that a page of such objects may show, in one question."""
    about = of("patient", labels=kind, also=clinic.ROW_LABELS)
    return require("view", about, partial=True)


@app.get("/health")
@public("says whether the process runs")
def health() -> Any:
    return {"ok": True}


@app.get("/patients")
def search() -> Any:
    found = clinic.patients(request.args["last_name"])
    categories = ("demographics", "record_ids", "gov_ids")
    asked = [("view", Record(patient=one.patient_id, categories=categories)) for one in found]
    seen = (disclose(one, told) for one, told in zip(found, ask_many(asked), strict=True))
    return jsonify([one for one in seen if one is not None])


@app.get("/patients/<patient>")
@sees(clinic.Patient)
def patient(patient: str) -> Any:
    return shown(clinic.patient(patient))


@app.get("/patients/<patient>/labs")
@sees(clinic.Lab)
def labs(patient: str) -> Any:
    return shown(clinic.labs(patient))


@app.get("/patients/<patient>/notes")
@sees(clinic.Note)
def notes(patient: str) -> Any:
    return shown(clinic.notes(patient))


@app.post("/patients/<patient>/appointments")
def book(patient: str) -> Any:
    told = request.get_json()
    department, starts_at = str(told["department"]), datetime.fromisoformat(told["starts_at"])
    ask("create", clinic.visit(patient, department)).require()
    return jsonify(appointment=clinic.book(patient, department, starts_at)), 201
