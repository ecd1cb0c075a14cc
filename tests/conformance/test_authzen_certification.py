"""OpenID AuthZEN 1.0: every case of the certification scenario, over HTTPS to a running service.

Levels: Basic, Batch and Search (each Core and Properties), Discovery. The service is started with a
folder of policies and a file of entities, and nothing else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from strategies.authzen_service import Reached, decision_service

pytestmark = pytest.mark.system

_VECTORS = Path(__file__).resolve().parents[2].parent / "shared/conformance/authzen"
_FILE = _VECTORS / "certification.json"
CASES: list[dict[str, Any]] = json.loads(_FILE.read_text())["cases"] if _FILE.is_file() else []
BY_ID = {case["id"]: case for case in CASES}
KIND_OF = {"subject": "user", "resource": "record"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Reached]:
    folder = project_root / "tests/cases/authzen/certification"
    with decision_service(folder, tmp_path_factory.mktemp("certification")) as reached:
        yield reached


def send(service: Reached, case: dict[str, Any], **changes: Any) -> httpx.Response:
    headers = {"Content-Type": "application/json", **case.get("headers", {})}
    if "raw_body" in case:
        content = case["raw_body"]
    elif "body" in case:
        content = json.dumps(case["body"] | changes)
    else:
        content, headers = None, {}
    return service.client.request(case["method"], case["path"], content=content, headers=headers)


def results(response: httpx.Response) -> set[str]:
    return {json.dumps(result, sort_keys=True) for result in response.json()["results"]}


def spelt(entities: list[dict[str, str]]) -> set[str]:
    return {json.dumps(entity, sort_keys=True) for entity in entities}


def test_the_scenario_is_there_as_a_whole(shared_dir: Path):
    assert (shared_dir / "conformance/authzen/certification.json") == _FILE
    assert len(CASES) == 57


@pytest.mark.skipif(not CASES, reason="no ../shared beside this checkout")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['level']}-{case['id']}")
def test_a_certification_case_is_answered_as_it_says(case: dict[str, Any], service: Reached):
    changes: dict[str, Any] = {}
    if case.get("needs"):
        first = send(service, BY_ID["c-4-5-1"]).json()
        token = first["page"]["next_token"]
        assert token, "the service has more than one user, so that there is a next page"
        changes["page"] = {"token": token}
    answers = [send(service, case, **changes) for _ in range(case.get("repeat", 1))]
    assert len({(a.status_code, a.json().get("decision")) for a in answers}) == 1
    check(service, case, answers[0])


def check(service: Reached, case: dict[str, Any], response: httpx.Response) -> None:
    expect = case["expect"]
    assert response.status_code == expect["status"]
    assert response.headers["Content-Type"].partition(";")[0] == "application/json"
    told = response.json()
    if expect["status"] != 200:
        assert set(told) == {"error", "message"}
        return
    for name, value in expect.get("headers", {}).items():
        assert response.headers[name] == value
    if "decision" in expect:
        assert told["decision"] is expect["decision"]
    if "decisions" in expect:
        assert "decision" not in told
        decided = [one["decision"] for one in told["evaluations"]]
        assert len(decided) == len(expect["decisions"])
        for got, wanted in zip(decided, expect["decisions"], strict=True):
            assert isinstance(got, bool)
            assert wanted is None or got is wanted
    if case["path"].startswith("/access/v1/search/"):
        check_results(service, case, response)
    if case["level"] == "discovery":
        check_metadata(service, expect, told)


def check_results(service: Reached, case: dict[str, Any], response: httpx.Response) -> None:
    expect, told = case["expect"], response.json()
    assert isinstance(told["results"], list)
    assert isinstance(told["page"]["next_token"], str)
    kind = KIND_OF.get(case["path"].rpartition("/")[2])
    for result in told["results"]:
        assert ("name" in result) is (kind is None)
        assert result.get("type") == kind
    if "results_include" in expect:
        assert spelt(expect["results_include"]) <= results(response)
    if "results" in expect:
        assert results(response) == spelt(expect["results"])
    if "same_results_as" in expect:
        assert results(response) == results(send(service, BY_ID[expect["same_results_as"]]))


def check_metadata(service: Reached, expect: dict[str, Any], told: dict[str, Any]) -> None:
    assert set(expect["required"]) <= set(told)
    assert told["policy_decision_point"] == service.base
    for name in (*expect["required"], *expect["optional_https_urls"]):
        if name in told:
            parts = urlsplit(told[name])
            assert parts.scheme == "https"
            assert not parts.query
            assert not parts.fragment
    assert all(isinstance(one, str) for one in told.get("capabilities", []))
    assert all(value not in (None, "", []) for value in told.values())


@pytest.mark.skipif(not CASES, reason="no ../shared beside this checkout")
def test_pages_of_one_result_are_the_whole_search(service: Reached):
    case = BY_ID["c-4-5-1"]
    whole = results(send(service, BY_ID["c-4-2-1"]))
    found: list[set[str]] = []
    page = {"limit": 1}
    while True:
        response = send(service, case, page=page)
        found.append(results(response))
        token = response.json()["page"]["next_token"]
        if not token:
            break
        page = {"limit": 1, "token": token}
    assert set().union(*found) == whole
    assert sum(map(len, found)) == len(whole)
    assert max(map(len, found)) == 1


@pytest.mark.skipif(not CASES, reason="no ../shared beside this checkout")
@pytest.mark.parametrize(
    ("name", "properties", "decision", "ignored"),
    [
        ("bob", {"role": "admin"}, True, ["subject.role"]),
        ("bob", {}, True, None),
        ("bob", {"role": "nobody"}, True, ["subject.role"]),
        ("carol", {"role": "admin"}, False, ["subject.role"]),
    ],
)
def test_roles_come_from_the_store_whatever_the_caller_says(
    name: str,
    properties: dict[str, str],
    decision: bool,
    ignored: list[str] | None,
    service: Reached,
):
    case = BY_ID["c-2-2-5"]  # rule 6: who is an admin may write what is archived
    subject = {"type": "user", "id": name, "properties": properties}
    told = send(service, case, subject=subject).json()
    assert told["decision"] is decision
    assert told["context"].get("ignored") == ignored


@pytest.mark.skipif(not CASES, reason="no ../shared beside this checkout")
def test_what_the_service_may_say_of_a_resource_counts(service: Reached):
    case = BY_ID["c-2-2-5"]
    resource = {"type": "record", "id": "record-2", "properties": {"status": "active"}}
    assert send(service, case).json()["decision"] is True
    assert send(service, case, resource=resource).json()["decision"] is False
