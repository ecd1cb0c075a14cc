"""The OpenAPI 3.1 document of the decision service: what an app developer reads, and tools obey.

The rule kept: shapes come from the very types that requests are read into and answers are written
from, so that the document cannot say anything else than the service does; words and examples stand
beside them (``openapi_words``, ``openapi_examples``). What the types cannot say (an item of a batch may be anything, and is
then denied in place) is said here.
"""

from typing import Any, Final

import msgspec

from chartgate import __version__
from chartgate.app.authzen import Decision, Decisions
from chartgate.app.authzen_batch import MAX_ITEMS, Evaluations, Item
from chartgate.app.authzen_errors import ErrorBody
from chartgate.app.authzen_metadata import (
    EVALUATION,
    EVALUATIONS,
    SEARCH_ACTION,
    SEARCH_RESOURCE,
    SEARCH_SUBJECT,
    WELL_KNOWN,
    Metadata,
)
from chartgate.app.authzen_search import (
    ActionSearch,
    ResourceSearch,
    SearchAnswer,
    SubjectSearch,
)
from chartgate.app.node_asked import Semantic
from chartgate.app.openapi_examples import EXAMPLES
from chartgate.app.openapi_words import (
    ABOUT,
    DESCRIBED,
    OPERATIONS,
    RESPONSES,
    SCHEMAS,
    TAGS,
    Operation,
)
from chartgate.app.question import Question

JSON: Final = "application/json"
OPENMETRICS: Final = "application/openmetrics-text"
_REF: Final = "#/components/schemas/"

Json = dict[str, Any]

_TYPES: Final = (
    Question,
    Evaluations,
    Item,
    SubjectSearch,
    ResourceSearch,
    ActionSearch,
    Decision,
    Decisions,
    SearchAnswer,
    ErrorBody,
    Metadata,
)
_PATHS: Final = {
    EVALUATION: ("evaluation", "Question", "Decision"),
    EVALUATIONS: ("evaluations", "Evaluations", ""),
    SEARCH_SUBJECT: ("search_subject", "SubjectSearch", "SearchAnswer"),
    SEARCH_RESOURCE: ("search_resource", "ResourceSearch", "SearchAnswer"),
    SEARCH_ACTION: ("search_action", "ActionSearch", "SearchAnswer"),
}
_PAGES: Final = {
    WELL_KNOWN: ("metadata", _REF + "Metadata"),
    "/livez": ("livez", _REF + "Health"),
    "/healthz": ("healthz", _REF + "Health"),
    "/readyz": ("readyz", _REF + "Ready"),
    "/openapi.json": ("openapi", ""),
}


def document(base: str = "") -> bytes:
    """The document; ``base`` is how callers know the service, or empty for where they read it."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Chartgate decision service",
                "version": __version__,
                "summary": "Who may see how much of which record, and why.",
                "description": ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": base or "/"}],
            "tags": [{"name": name, "description": words} for name, words in TAGS.items()],
            "security": [{"bearer": []}, {"mutualTLS": []}],
            "paths": _paths(),
            "components": {
                "schemas": _schemas(),
                "responses": _responses(),
                "parameters": _PARAMETERS,
                "headers": _HEADERS,
                "securitySchemes": _SECURITY,
            },
        }
    )


# --- paths ------------------------------------------------------------------------------------


def _paths() -> Json:
    paths: Json = {}
    for path, (name, asked, answered) in _PATHS.items():
        paths[path] = {"post": _question(name, asked, answered)}
    for path, (name, schema) in _PAGES.items():
        paths[path] = {"get": _page(name, schema)}
    paths["/metrics"] = {"get": _metrics()}
    return paths


def _question(name: str, asked: str, answered: str) -> Json:
    schema: Json = {"$ref": _REF + answered}
    if not answered:
        schema = {"oneOf": [{"$ref": _REF + "Decisions"}, {"$ref": _REF + "Decision"}]}
    operation = OPERATIONS[name]
    refused = {status: _response(status) for status in RESPONSES if status in _ASKING}
    return _told(operation, name) | {
        "parameters": [
            {"$ref": "#/components/parameters/RequestId"},
            {"$ref": "#/components/parameters/TraceParent"},
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": _REF + asked}, "examples": EXAMPLES[name]}},
        },
        "responses": {
            "200": {
                "description": operation.answered,
                "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
                "content": {JSON: {"schema": schema, "examples": EXAMPLES[f"{name}_answer"]}},
            },
            **refused,
        },
    }


def _page(name: str, schema: str) -> Json:
    operation = OPERATIONS[name]
    shape: Json = {"$ref": schema} if schema else {"type": "object", "required": ["openapi"]}
    responses: Json = {
        "200": {"description": operation.answered, "content": {JSON: {"schema": shape}}}
    }
    if name == "readyz":
        responses["503"] = {
            "description": "This node may not decide; ask another one.",
            "headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
            "content": {JSON: {"schema": {"$ref": schema}}},
        }
    refused = {status: _response(status) for status in RESPONSES if status in _READING}
    return _told(operation, name) | {"security": [], "responses": responses | refused}


def _metrics() -> Json:
    operation = OPERATIONS["metrics"]
    text = {"schema": {"type": "string"}}
    refused = {
        status: _response(status)
        for status in RESPONSES
        if status in _READING or status in ("401", "429")
    }
    return _told(operation, "metrics") | {
        "security": [{}, {"bearer": []}, {"mutualTLS": []}],
        "responses": {
            "200": {"description": operation.answered, "content": {OPENMETRICS: text}},
            **refused,
        },
    }


def _told(operation: Operation, name: str) -> Json:
    return {
        "operationId": name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
    }


# --- answers that are no decision -------------------------------------------------------------

_READING: Final = frozenset(("400", "405", "408", "413", "414", "417", "431", "501", "505"))
_ASKING: Final = _READING | {"401", "403", "415", "429", "500", "503"}


def _response(status: str) -> Json:
    return {"$ref": f"#/components/responses/{RESPONSES[status].name}"}


def _responses() -> Json:
    found: Json = {}
    for status, told in RESPONSES.items():
        response: Json = {
            "description": told.description,
            "content": {
                JSON: {
                    "schema": {"$ref": _REF + "ErrorBody"},
                    "example": {"error": told.code, "message": told.message},
                }
            },
        }
        if status == "401":
            response["headers"] = {
                "WWW-Authenticate": {"$ref": "#/components/headers/WWWAuthenticate"}
            }
        if status in ("429", "503"):
            response["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
        found[told.name] = response
    return found


# --- shapes -----------------------------------------------------------------------------------


def _schemas() -> Json:
    _, found = msgspec.json.schema_components(_TYPES, ref_template=_REF + "{name}")
    for name, schema in found.items():
        schema["description"] = DESCRIBED.get(name, "")
        for field, shape in schema["properties"].items():
            schema["properties"][field] = _shape(shape, DESCRIBED.get(f"{name}.{field}", ""))
        if not schema["required"]:
            del schema["required"]
        del schema["title"]
    _refine(found)
    return dict(sorted((found | SCHEMAS | {"Value": _VALUE}).items()))


def _shape(shape: Json, words: str) -> Json:
    """A field's shape: what is empty is left out, so that no field is ever null or has a default."""
    kept = {name: value for name, value in shape.items() if name not in ("default", "anyOf")}
    if "anyOf" in shape:
        kept |= next(one for one in shape["anyOf"] if one != {"type": "null"})
    return kept | ({"description": words} if words else {})


def _refine(schemas: Json) -> None:
    """What the types do not say."""
    batch = schemas["Evaluations"]
    # Whatever an item is, it is answered: an ill-typed one by a denial in its place.
    batch["properties"]["evaluations"] |= {
        "items": {"anyOf": [{"$ref": _REF + "Item"}, {}]},
        "maxItems": MAX_ITEMS,
    }
    batch["anyOf"] = [
        {"required": ["evaluations"], "properties": {"evaluations": {"minItems": 1}}},
        {"required": ["subject", "action", "resource"]},
    ]
    schemas["Options"]["properties"]["evaluations_semantic"]["enum"] = list(map(str, Semantic))
    schemas["PageRequest"]["properties"]["limit"] |= {"type": "integer", "minimum": 1}
    for name in ("Subject", "Action", "Resource", "Wanted"):
        fields = schemas[name]["properties"]
        fields["properties"] |= _VALUES
        for field in {"type", "id", "name"} & fields.keys():
            fields[field]["pattern"] = _NO_NUL
    for schema in schemas.values():
        context = schema["properties"].get("context")
        if context is not None and "$ref" not in context:
            context |= _VALUES
    level = {"type": "string", "enum": ["full", "summary", "masked", "withheld"]}
    for field in ("levels", "fields"):
        schemas["Context"]["properties"][field]["additionalProperties"] = level
    schemas["Context"]["properties"]["valid_until"]["format"] = "date-time"
    schemas["SearchAnswer"]["properties"]["results"]["items"] = {
        "anyOf": [{"$ref": _REF + "FoundEntity"}, {"$ref": _REF + "FoundAction"}]
    }
    for field, shape in schemas["Metadata"]["properties"].items():
        if field != "capabilities":
            shape |= {"format": "uri", "pattern": "^https://"}


_NO_NUL: Final = r"^[^\u0000]*$"
_VALUES: Final = {
    "propertyNames": {"pattern": _NO_NUL},
    "additionalProperties": {"$ref": _REF + "Value"},
}
_VALUE: Final = {
    "description": (
        "Anything, at most 16 deep, without the character NUL. Numbers fit into 64 bits; whole ones"
        " are what policies can read."
    ),
    "anyOf": [
        {"type": ["boolean", "null"]},
        {"type": "string", "pattern": _NO_NUL},
        {"type": "number", "minimum": -(2**63), "exclusiveMaximum": 2**63},
        {"type": "array", "items": {"$ref": _REF + "Value"}},
        {"type": "object", **_VALUES},
    ],
}


_PARAMETERS: Final = {
    "RequestId": {
        "name": "X-Request-ID",
        "in": "header",
        "required": False,
        "description": (
            "Your own name for this request. It is sent back when it is 1 to 128 visible ASCII"
            " characters, and left out otherwise."
        ),
        "schema": {"type": "string"},
        "example": "bfe9eb29-ab87-4ca3-be83-a1d5d8305716",
    },
    "TraceParent": {
        "name": "traceparent",
        "in": "header",
        "required": False,
        "description": (
            "W3C Trace Context. The trace id is recorded with the decision and comes back in"
            " `traceresponse`. A malformed one is ignored."
        ),
        "schema": {"type": "string"},
        "example": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    },
}

_HEADERS: Final = {
    "RequestId": {
        "description": "The request's own `X-Request-ID`, where it sent one.",
        "schema": {"type": "string", "maxLength": 128},
    },
    "RetryAfter": {
        "description": "Seconds after which it is worth asking again.",
        "schema": {"type": "integer", "minimum": 1},
        "required": True,
    },
    "WWWAuthenticate": {
        "description": "How to authenticate (RFC 6750).",
        "schema": {"type": "string"},
        "required": True,
    },
}

_SECURITY: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": (
            "The token of a service account, `Authorization: Bearer …`. Two may be valid at once, so"
            " that a token is replaced without a gap."
        ),
    },
    "mutualTLS": {
        "type": "mutualTLS",
        "description": "A client certificate that is registered with the service account.",
    },
}
