"""Chartgate for applications: ask the policy, show only what it allows, and have it on record.

    from chartgate.sdk import Chartgate, Record

    gate = Chartgate("https://localhost:8443", token_file="token", ca="ca.pem")
    decision = gate.decide("nadams", "view", Record(patient="17", category="labs"))

Frameworks have a module each: ``chartgate.sdk.fastapi``, ``starlette``, ``django``, ``drf``,
``flask``, ``sqlalchemy``; the engine in the application's own process is ``chartgate.sdk.embedded``.
"""

from chartgate.app.question import Action, Resource, Subject
from chartgate.model.disclosure import Disclosure
from chartgate.sdk.beside import beside
from chartgate.sdk.client import AsyncChartgate, Chartgate
from chartgate.sdk.decision import Decision
from chartgate.sdk.disclose import disclose, disclosed_copy
from chartgate.sdk.errors import AccessDenied, NotIdentified, QuestionRefused, Unavailable
from chartgate.sdk.labels import KEY, Label, Labels, Public, disclosed, keep, nested, of_object
from chartgate.sdk.questions import Record

__all__ = [
    "KEY",
    "AccessDenied",
    "Action",
    "AsyncChartgate",
    "Chartgate",
    "Decision",
    "Disclosure",
    "Label",
    "Labels",
    "NotIdentified",
    "Public",
    "QuestionRefused",
    "Record",
    "Resource",
    "Subject",
    "Unavailable",
    "beside",
    "disclose",
    "disclosed",
    "disclosed_copy",
    "keep",
    "nested",
    "of_object",
]
