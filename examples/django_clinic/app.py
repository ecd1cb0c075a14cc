"""A clinic on Django, in one file: a physician, a nurse and a receptionist see different things.

Every view asks by a decorator; what it answers is disclosed field by field. Run it beside `./demo`.
"""

import json
import secrets
from datetime import datetime
from typing import Any

import clinic
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from chartgate.sdk import Record, beside, disclose
from chartgate.sdk.asked import ask_many

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    SECRET_KEY=secrets.token_hex(),  # nothing outlives the process
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["chartgate.sdk.django.ChartgateMiddleware"],
    CHARTGATE={
        **beside(),
        "subject": lambda request: clinic.signed_in(request.headers.get("authorization")),
    },
)
django.setup()

from chartgate.sdk.django import ask, of, public, require, shown  # noqa: E402  (after the settings)


def sees(kind: type) -> Any:
    """All that a page of such objects may show, in one question."""
    about = of("patient", labels=kind, also=clinic.ROW_LABELS)
    return require("view", about, partial=True)


@public("says whether the process runs")
@require_GET
def health(request: HttpRequest) -> Any:
    return JsonResponse({"ok": True})


@require_GET
def search(request: HttpRequest) -> Any:
    found = clinic.patients(request.GET["last_name"])
    categories = ("demographics", "record_ids", "gov_ids")
    asked = [("view", Record(patient=one.patient_id, categories=categories)) for one in found]
    seen = (disclose(one, told) for one, told in zip(found, ask_many(asked), strict=True))
    return JsonResponse([one for one in seen if one is not None], safe=False)


@require_GET
@sees(clinic.Patient)
def patient(request: HttpRequest, patient: str) -> Any:
    return shown(clinic.patient(patient), request.decision)


@require_GET
@sees(clinic.Lab)
def labs(request: HttpRequest, patient: str) -> Any:
    return shown(clinic.labs(patient), request.decision)


@require_GET
@sees(clinic.Note)
def notes(request: HttpRequest, patient: str) -> Any:
    return shown(clinic.notes(patient), request.decision)


@csrf_exempt  # signed in by a header, which no other site can send
@require_POST
def book(request: HttpRequest, patient: str) -> Any:
    told = json.loads(request.body)
    department, starts_at = str(told["department"]), datetime.fromisoformat(told["starts_at"])
    ask("create", clinic.visit(patient, department)).require()
    return JsonResponse({"appointment": clinic.book(patient, department, starts_at)}, status=201)


urlpatterns = [
    path("health", health),
    path("patients", search),
    path("patients/<str:patient>", patient),
    path("patients/<str:patient>/labs", labs),
    path("patients/<str:patient>/notes", notes),
    path("patients/<str:patient>/appointments", book),
]
application = get_wsgi_application()
