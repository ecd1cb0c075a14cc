"""Compiled policies answer every request of Cedar's corpus and of its hand-written tests.

Decision, determining policies and errors as Cedar has them; and, hardened, as our reference has.
"""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from chartgate.cedar.authorize import authorize
from chartgate.cedar.entities import (
    Entities,
    entities_from_json,
    entity_uid_from_json,
    record_from_json,
)
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import parse_policies, parse_schema
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import compile_policies
from chartgate.targets.entity_store import EntityStore

DIGITS = "0123456789abcdef"
REQUESTS_IN_CORPUS = 20_992
HANDWRITTEN = 74
_counted: dict[str, int] = {}


@pytest.fixture(scope="module")
def corpus(shared_dir: Path) -> Mapping[str, bytes]:
    with tarfile.open(shared_dir / "conformance" / "cedar-corpus.tar.gz") as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        return {m.name: archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def _uid(form: dict[str, str]) -> EntityUid:
    return EntityUid(form["type"], form["id"])


def _stored(entities: Entities, forms: list) -> EntityStore:
    found = (entities.get(entity_uid_from_json(form["uid"])) for form in forms)
    return EntityStore(entity for entity in found if entity is not None)


def _wrong(
    name: str, policies, entities: Entities, store: EntityStore, request: dict, types
) -> list[str]:
    compiled, policies = policies
    who = tuple(_uid(request[part]) for part in ("principal", "action", "resource"))
    asked = (*who, record_from_json(request["context"], types))
    theirs = (request["decision"] == "allow", set(request["reason"]), set(request["errors"]))
    found = []
    for held in (store.view, entities):
        answer = compiled.decide(*asked, held, forbid_error_denies=False)
        ours = (answer.allowed, set(answer.determining), {i for i, _ in answer.errors})
        if ours != theirs:
            found.append(f"{name}: {ours} is not {theirs}")
    hardened = compiled.decide(*asked, store.view, forbid_error_denies=True)
    if hardened != authorize(policies, Env(*asked, entities), forbid_error_denies=True):
        found.append(f"{name}: hardened, not as the reference answers")
    return found


@pytest.mark.parametrize("digit", DIGITS)
def test_every_request_is_answered_as_cedar_answers_it(
    corpus: Mapping[str, bytes], digit: str
) -> None:
    wrong, count = [], 0
    for name in sorted(corpus):
        if not name.startswith(f"corpus-tests/{digit}") or not name.endswith(".json"):
            continue
        if name.endswith(".entities.json"):
            continue
        wanted = json.loads(corpus[name])
        policies = parse_policies({"p": corpus[wanted["policies"]].decode()}, ids="order")
        forms = json.loads(corpus[wanted["entities"]])
        entities = entities_from_json(forms)
        both = compile_policies(policies), policies
        store = _stored(entities, forms)
        for number, request in enumerate(wanted["requests"]):
            wrong += _wrong(f"{name} request {number}", both, entities, store, request, {})
            count += 1
    assert wrong == []
    assert count > 0
    _counted[digit] = count


def test_the_whole_corpus_was_run(corpus: Mapping[str, bytes]) -> None:
    if set(_counted) != set(DIGITS):
        pytest.skip("only some parts of the corpus were selected")
    assert sum(_counted.values()) >= REQUESTS_IN_CORPUS


def test_every_handwritten_request_is_answered_as_cedar_answers_it(shared_dir: Path) -> None:
    folder = shared_dir / "conformance" / "cedar-handwritten"
    wrong, count = [], 0
    for path in sorted((folder / "tests").rglob("*.json")):
        wanted = json.loads(path.read_text())
        schema = parse_schema((folder / wanted["schema"]).read_text(), wanted["schema"])
        text = (folder / wanted["policies"]).read_text()
        policies = parse_policies({wanted["policies"]: text}, ids="order")
        forms = json.loads((folder / wanted["entities"]).read_text())
        entities = entities_from_json(forms, schema)
        actions = [{"uid": uid._asdict()} for uid in schema.actions]
        listed = {json.dumps(f["uid"], sort_keys=True): f for f in (*actions, *forms)}
        store = _stored(entities, list(listed.values()))
        both = compile_policies(policies), policies
        for number, request in enumerate(wanted["requests"]):
            action = _uid(request["action"])
            types = schema.actions[action].context.attributes if action in schema.actions else {}
            wrong += _wrong(f"{path.name} request {number}", both, entities, store, request, types)
            count += 1
    assert wrong == []
    assert count == HANDWRITTEN
