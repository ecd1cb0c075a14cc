"""The OpenAPI document: whole, consistent, and saying what the codec does."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from chartgate.app.authzen import answer, answers, parse_evaluation
from chartgate.app.authzen_batch import BadItem, parse_evaluations
from chartgate.app.authzen_errors import BadRequest, RecordedAt, error_body
from chartgate.app.authzen_metadata import metadata
from chartgate.app.authzen_paging import Pager
from chartgate.app.authzen_search import (
    Found,
    parse_action_search,
    parse_resource_search,
    parse_subject_search,
    search_answer,
)
from chartgate.app.openapi import document
from chartgate.app.ruling import Obligation, Reason, Ruling

DOCUMENT: dict[str, Any] = json.loads(document("https://pdp.example"))
PAGER = Pager(b"k" * 32)
PARSERS: dict[str, Any] = {
    "/access/v1/evaluation": parse_evaluation,
    "/access/v1/evaluations": parse_evaluations,
    "/access/v1/search/subject": lambda body: parse_subject_search(body, PAGER, "app"),
    "/access/v1/search/resource": lambda body: parse_resource_search(body, PAGER, "app"),
    "/access/v1/search/action": lambda body: parse_action_search(body, PAGER, "app"),
}
SUBJECT, ACTION = {"type": "User", "id": "a"}, {"name": "view"}
RESOURCE = {"type": "Record", "id": "r", "properties": {"patient": "p", "categories": ["labs"]}}
WHOLE = {"subject": SUBJECT, "action": ACTION, "resource": RESOURCE}


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def asked_at(path: str) -> dict[str, Any]:
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]
    found: dict[str, Any] = content["application/json"]
    return found


def answered_at(path: str, status: str = "200") -> dict[str, Any]:
    (operation,) = DOCUMENT["paths"][path].values()
    response = operation["responses"][status]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = response["content"]["application/json"]
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_document_names_its_version_and_where_it_is_served():
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["servers"] == [{"url": "https://pdp.example"}]
    assert json.loads(document())["servers"] == [{"url": "/"}]


def test_every_reference_leads_somewhere():
    for reference in references(DOCUMENT):
        node = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_everything_is_described():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema["description"], name
        assert "None" not in schema["description"]
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}


def test_names_of_operations_are_unique():
    names = [op["operationId"] for path in DOCUMENT["paths"].values() for op in path.values()]
    assert len(names) == len(set(names)) == 11


@pytest.mark.parametrize("path", PARSERS)
def test_every_example_is_what_its_schema_says_and_is_understood(path: str):
    asked = asked_at(path)
    for example in asked["examples"].values():
        validator(asked["schema"]).validate(example["value"])
        assert PARSERS[path](json.dumps(example["value"]).encode())
    answered = answered_at(path)
    for example in answered["examples"].values():
        validator(answered["schema"]).validate(example["value"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/access/v1/evaluation", WHOLE | {"extra": 1}),
        ("/access/v1/evaluation", {}),
        ("/access/v1/evaluation", WHOLE | {"subject": {"type": "User"}}),
        ("/access/v1/evaluation", WHOLE | {"action": {"name": 5}}),
        ("/access/v1/evaluation", WHOLE | {"context": None}),
        ("/access/v1/evaluation", WHOLE | {"subject": SUBJECT | {"id": "a" * 1025}}),
        ("/access/v1/evaluation", WHOLE | {"subject": SUBJECT | {"properties": []}}),
        ("/access/v1/evaluations", WHOLE),
        ("/access/v1/evaluations", {"evaluations": [5, {}, None]}),
        ("/access/v1/evaluations", {"evaluations": []}),
        ("/access/v1/evaluations", WHOLE | {"evaluations": []}),
        ("/access/v1/evaluations", WHOLE | {"evaluations": {}}),
        ("/access/v1/evaluations", {"evaluations": [{}] * 1001}),
        ("/access/v1/evaluations", WHOLE | {"options": {"evaluations_semantic": "x"}}),
        ("/access/v1/evaluations", WHOLE | {"options": {"evaluations_semantic": None}}),
        ("/access/v1/search/subject", WHOLE | {"subject": {"type": "User", "id": 5}}),
        ("/access/v1/search/subject", WHOLE | {"page": {"limit": 0}}),
        ("/access/v1/search/subject", WHOLE | {"page": {"limit": 10**9, "token": ""}}),
        ("/access/v1/search/subject", WHOLE | {"resource": {"type": "Record"}}),
        ("/access/v1/search/resource", WHOLE | {"resource": {"type": "Record"}}),
        ("/access/v1/search/resource", WHOLE | {"subject": {"type": "User"}}),
        ("/access/v1/search/action", {"subject": SUBJECT, "resource": RESOURCE}),
        ("/access/v1/search/action", WHOLE | {"action": 5}),
        ("/access/v1/search/action", {"subject": SUBJECT}),
    ],
)
def test_what_the_schema_admits_is_what_is_read(path: str, body: dict[str, Any]):
    try:
        PARSERS[path](json.dumps(body).encode())
        read = True
    except BadRequest:
        read = False
    assert validator(asked_at(path)["schema"]).is_valid(body) is read


def test_what_is_answered_is_what_the_schema_says():
    ruling = Ruling(
        allowed=False,
        determining=("p1",),
        levels={"labs": "masked"},
        fields={"lab.value": "masked"},
        obligations=(Obligation("mask", {"labs": "masked"}), Obligation("step_up", values=("2",))),
        reason=Reason("no_permit", "Words.", ("45 CFR 164.502(b)",)),
        policy_set="aa",
        valid_until=1,
    )
    at = RecordedAt("log", 1)
    check = validator(answered_at("/access/v1/evaluation")["schema"])
    check.validate(json.loads(answer(ruling, at, 3)[1]))
    check.validate(json.loads(answer(Ruling(allowed=True))[1]))
    batch = validator(answered_at("/access/v1/evaluations")["schema"])
    batch.validate(json.loads(answers([ruling, BadItem(400, "x")], at, 3)))
    batch.validate(json.loads(answer(ruling, at, 3)[1]))
    found = validator(answered_at("/access/v1/search/action")["schema"])
    for path in ("subject", "resource", "action"):
        asked = PARSERS[f"/access/v1/search/{path}"](json.dumps(WHOLE).encode())
        found.validate(json.loads(search_answer(asked, Found(("a",), more=True), PAGER, audit=at)))
    document_of = validator(answered_at("/.well-known/authzen-configuration")["schema"])
    document_of.validate(json.loads(metadata("https://pdp.example/a")))
    refused = validator(answered_at("/access/v1/evaluation", "403")["schema"])
    refused.validate(json.loads(error_body("out_of_scope", "Words.", at)))
    refused.validate(answered_at("/access/v1/evaluation", "403")["example"])


def test_only_what_says_nothing_of_anybody_is_open_to_everybody():
    opened = {
        path
        for path, methods in DOCUMENT["paths"].items()
        for operation in methods.values()
        if operation.get("security") == []
    }
    assert opened == {
        "/.well-known/authzen-configuration",
        "/livez",
        "/healthz",
        "/readyz",
        "/openapi.json",
    }
    assert DOCUMENT["security"] == [{"bearer": []}, {"mutualTLS": []}]
