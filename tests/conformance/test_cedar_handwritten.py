"""Cedar's hand-written integration tests: decision, determining policies, errors, validation.

Their data uses the implicit JSON forms, so entities and contexts are read by the schema.
"""

import json
from pathlib import Path

import pytest

from chartgate.cedar.authorize import authorize
from chartgate.cedar.entities import entities_from_json, record_from_json
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema, validate
from chartgate.model.principal import EntityUid

TESTS, REQUESTS = 22, 74


@pytest.fixture(scope="module")
def handwritten(shared_dir: Path) -> Path:
    return shared_dir / "conformance" / "cedar-handwritten"


def _uid(form: dict[str, str]) -> EntityUid:
    return EntityUid(form["type"], form["id"])


def _cases(folder: Path) -> list[tuple[str, dict]]:
    paths = sorted((folder / "tests").rglob("*.json"))
    return [(str(path.relative_to(folder)), json.loads(path.read_text())) for path in paths]


def test_every_handwritten_request_is_answered_as_cedar_answers_it(handwritten: Path) -> None:
    wrong, count = [], 0
    for name, wanted in _cases(handwritten):
        schema = parse_schema((handwritten / wanted["schema"]).read_text(), wanted["schema"])
        text = (handwritten / wanted["policies"]).read_text()
        policies = parse_policies({wanted["policies"]: text}, ids="order")
        forms = json.loads((handwritten / wanted["entities"]).read_text())
        entities = entities_from_json(forms, schema)
        for number, request in enumerate(wanted["requests"]):
            who = [_uid(request[part]) for part in ("principal", "action", "resource")]
            types = schema.actions[who[1]].context.attributes if who[1] in schema.actions else {}
            env = Env(*who, record_from_json(request["context"], types), entities)
            answer = authorize(policies, env, forbid_error_denies=False)
            ours = (answer.allowed, set(answer.determining), {i for i, _ in answer.errors})
            decision = request["decision"] == "allow"
            theirs = (decision, set(request["reason"]), set(request["errors"]))
            if ours != theirs:
                wrong.append(f"{name} request {number}: {ours} is not {theirs}")
            count += 1
    assert wrong == []
    assert count == REQUESTS


def test_every_handwritten_set_validates_as_it_should(handwritten: Path) -> None:
    wrong, cases = [], _cases(handwritten)
    for name, wanted in cases:
        schema = parse_schema((handwritten / wanted["schema"]).read_text(), wanted["schema"])
        text = (handwritten / wanted["policies"]).read_text()
        try:
            validate(parse_policies({wanted["policies"]: text}, ids="order"), schema)
            valid = True
        except InvalidPolicies:
            valid = False
        if valid != wanted["shouldValidate"]:
            wrong.append(name)
    assert wrong == []
    assert len(cases) == TESTS
