"""Cedar's fuzz-generated corpus: decision, determining policies and errors of every request.

Pure Cedar: the hardening of forbids is off. Chunked by the first digit of the test's name, so
that a failure names a small part and the parts run in any order.
"""

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from chartgate.cedar.authorize import authorize
from chartgate.cedar.entities import entities_from_json, record_from_json
from chartgate.cedar.evaluate import Env
from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema, validate
from chartgate.model.principal import EntityUid

DIGITS = "0123456789abcdef"
REQUESTS_IN_CORPUS = 20_992
_counted: dict[str, int] = {}


@dataclass(frozen=True)
class Corpus:
    files: Mapping[str, bytes]

    def tests(self, digit: str) -> list[str]:
        return sorted(
            name
            for name in self.files
            if name.startswith(f"corpus-tests/{digit}")
            and name.endswith(".json")
            and not name.endswith(".entities.json")
        )

    def text(self, name: str) -> str:
        return self.files[name].decode()


@pytest.fixture(scope="module")
def corpus(shared_dir: Path) -> Corpus:
    with tarfile.open(shared_dir / "conformance" / "cedar-corpus.tar.gz") as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        return Corpus({m.name: archive.extractfile(m).read() for m in members})  # type: ignore[union-attr]


def _uid(form: dict[str, str]) -> EntityUid:
    return EntityUid(form["type"], form["id"])


def _disagreements(corpus: Corpus, name: str, wanted: dict) -> list[str]:
    policies = parse_policies({"p.cedar": corpus.text(wanted["policies"])}, ids="order")
    entities = entities_from_json(json.loads(corpus.text(wanted["entities"])))
    found = []
    for number, request in enumerate(wanted["requests"]):
        context = record_from_json(request["context"], {})
        who = (_uid(request[part]) for part in ("principal", "action", "resource"))
        env = Env(*who, context, entities)
        answer = authorize(policies, env, forbid_error_denies=False)
        ours = (answer.allowed, set(answer.determining), {i for i, _ in answer.errors})
        theirs = (request["decision"] == "allow", set(request["reason"]), set(request["errors"]))
        if ours != theirs:
            found.append(f"{name} request {number}: {ours} is not {theirs}")
    return found


@pytest.mark.parametrize("digit", DIGITS)
def test_every_request_is_answered_as_cedar_answers_it(corpus: Corpus, digit: str) -> None:
    wrong, count = [], 0
    for name in corpus.tests(digit):
        wanted = json.loads(corpus.text(name))
        wrong += _disagreements(corpus, name, wanted)
        count += len(wanted["requests"])
    assert wrong == []
    assert count > 0
    _counted[digit] = count


def test_the_whole_corpus_was_run(corpus: Corpus) -> None:
    if set(_counted) != set(DIGITS):
        pytest.skip("only some parts of the corpus were selected")
    assert sum(_counted.values()) >= REQUESTS_IN_CORPUS


@pytest.mark.parametrize("digit", DIGITS)
def test_strict_validation_gives_the_verdict_of_the_corpus(corpus: Corpus, digit: str) -> None:
    wrong = []
    for name in corpus.tests(digit):
        wanted = json.loads(corpus.text(name))
        policies = parse_policies({"p.cedar": corpus.text(wanted["policies"])}, ids="order")
        schema = parse_schema(corpus.text(wanted["schema"]), "s.cedarschema")
        try:
            validate(policies, schema)
            valid = True
        except InvalidPolicies:
            valid = False
        if valid != wanted["shouldValidate"]:
            wrong.append(name)
    assert wrong == []
