"""What an application asks, and the JSON it becomes (OpenID AuthZEN 1.0).

The rule kept: what is asked about a patient's record names her, by the key that the source has; and
says which categories of it, or which fields, so that one question answers for a whole page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.sdk.errors import Misused

RECORD: Final = "Record"
_PERSON: Final = "User"
_PATIENT: Final = "patient"


@dataclass(frozen=True, slots=True)
class Record:
    """A patient's record, or a part of it.

    >>> Record(patient="17", category="labs")
    >>> Record(patient="17", categories=["demographics", "labs"])
    >>> Record(patient="17", fields=["lab_results.value", "patients.birth_date"])
    >>> Record(patient="17", fields={"result": "labs", "born": "demographics"})

    ``fields`` as the data map names them (``table.column``) cannot be mislabelled; an object of your
    own names says which category each is of. ``id`` is never looked at: leave it.
    """

    patient: str | int | None = field(default=None, repr=False)
    category: str | None = None
    categories: Sequence[str] = ()
    fields: Sequence[str] | Mapping[str, str] = ()
    properties: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What else is claimed of it; counts only where the application's account may assert it."""
    essential: Sequence[str] = ()
    """Not asked, but looked for in the answer: where ``partial`` is enough, one of these categories
    must be shown at some level; without them any will do."""
    id: str = "asked"
    type: str = RECORD

    def resource(self) -> Resource:
        """As it is asked."""
        if isinstance(self.fields, str) or isinstance(self.categories, str):
            raise Misused("fields and categories are lists; a single category is category=")
        told: dict[str, Any] = dict(self.properties)
        if self.patient is not None:
            told[_PATIENT] = str(self.patient)
        if self.category is not None:
            told["category"] = self.category
        if self.categories:
            told["categories"] = list(self.categories)
        if self.fields:
            told["fields"] = (
                dict(self.fields) if isinstance(self.fields, Mapping) else list(self.fields)
            )
        return Resource(self.type, self.id, told)


SubjectLike = str | Subject | Mapping[str, Any]
ResourceLike = Record | Resource | Mapping[str, Any]
ActionLike = str | Action | Mapping[str, Any]


def question(
    subject: SubjectLike,
    action: ActionLike,
    resource: ResourceLike,
    context: Mapping[str, Any] | None = None,
) -> Question:
    """One question; raises ``Misused`` when a part of it is missing."""
    if context is not None and not isinstance(context, Mapping):
        raise Misused("the context of a question is an object")
    return Question(
        subject_of(subject), action_of(action), resource_of(resource), dict(context or {})
    )


def subject_of(given: SubjectLike) -> Subject:
    """Who: a login name means a ``User``."""
    if isinstance(given, str):
        return Subject(_PERSON, _named(given, "subject"))
    if isinstance(given, Subject):
        return given
    return Subject(*_typed(given, "subject"))


def action_of(given: ActionLike) -> Action:
    """What: a word means the action of that name."""
    if isinstance(given, str):
        return Action(_named(given, "action"))
    if isinstance(given, Action):
        return given
    if not isinstance(given, Mapping):
        raise Misused("the action is its name, or an object with a name")
    return Action(_named(given.get("name"), "action"), _properties(given, "action"))


def resource_of(given: ResourceLike) -> Resource:
    """On what."""
    if isinstance(given, Record):
        return given.resource()
    if isinstance(given, Resource):
        return given
    return Resource(*_typed(given, "resource"))


def patient_of(asked: Question) -> str | None:
    """Whose record a question is about."""
    patient = asked.resource.properties.get(_PATIENT)
    if isinstance(patient, int) and not isinstance(patient, bool):
        return str(patient)
    return patient if isinstance(patient, str) else None


def entity_body(entity: Subject | Resource) -> dict[str, Any]:
    """A subject or a resource as JSON."""
    body: dict[str, Any] = {"type": entity.type, "id": entity.id}
    if entity.properties:
        body["properties"] = entity.properties
    return body


def action_body(action: Action) -> dict[str, Any]:
    """An action as JSON."""
    return {"name": action.name, **({"properties": action.properties} if action.properties else {})}


def question_body(asked: Question) -> dict[str, Any]:
    """The body of ``/access/v1/evaluation``."""
    body: dict[str, Any] = {
        "subject": entity_body(asked.subject),
        "action": action_body(asked.action),
        "resource": entity_body(asked.resource),
    }
    if asked.context:
        body["context"] = asked.context
    return body


def _typed(given: Mapping[str, Any], what: str) -> tuple[str, str, dict[str, Any]]:
    if not isinstance(given, Mapping):
        short = "a login name" if what == "subject" else "a Record"
        raise Misused(f"the {what} is {short}, or an object with type and id")
    return (
        _named(given.get("type"), f"type of the {what}"),
        _named(given.get("id"), f"id of the {what}"),
        _properties(given, what),
    )


def _named(name: object, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise Misused(f"a question needs the {what}, as text")
    return name


def _properties(given: Mapping[str, Any], what: str) -> dict[str, Any]:
    told = given.get("properties", {})
    if not isinstance(told, Mapping):
        raise Misused(f"properties of the {what} are an object")
    return dict(told)
