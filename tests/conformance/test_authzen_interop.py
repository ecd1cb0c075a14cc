"""OpenID AuthZEN interop scenarios: 272 payloads of other people's test harnesses, over HTTPS.

Sets: the todo application, the gateway before it, searches of records, and an identity provider.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strategies.authzen_service import Reached, decision_service

pytestmark = pytest.mark.system

_FILE = Path(__file__).resolve().parents[2].parent / "shared/conformance/authzen/interop.json"
CASES: list[dict[str, Any]] = json.loads(_FILE.read_text())["cases"] if _FILE.is_file() else []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Reached]:
    folder = project_root / "tests/cases/authzen/interop"
    with decision_service(folder, tmp_path_factory.mktemp("interop")) as reached:
        yield reached


def entities(listed: list[dict[str, str]]) -> Counter[str]:
    return Counter(json.dumps(entity, sort_keys=True) for entity in listed)


def test_the_scenarios_are_there_as_a_whole(shared_dir: Path):
    assert (shared_dir / "conformance/authzen/interop.json") == _FILE
    sets = Counter(case["set"] for case in CASES)
    assert sets == {"todo": 43, "gateway": 25, "search": 198, "idp": 6}


@pytest.mark.skipif(not CASES, reason="no ../shared beside this checkout")
@pytest.mark.parametrize(
    ("number", "case"),
    list(enumerate(CASES)),
    ids=[f"{case['set']}-{number}" for number, case in enumerate(CASES)],
)
def test_an_interop_case_is_answered_as_it_says(
    number: int, case: dict[str, Any], service: Reached
):
    del number
    expect = case["expect"]
    response = service.client.post(case["path"], json=case["body"])
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    told = response.json()
    if "decision" in expect:
        assert told["decision"] is expect["decision"]
    if "decisions" in expect:
        assert [one["decision"] for one in told["evaluations"]] == expect["decisions"]
    if "results" in expect:
        assert entities(told["results"]) == entities(expect["results"])


@pytest.mark.skipif(not CASES, reason="no ../shared beside this checkout")
@pytest.mark.parametrize("limit", [1, 3])
def test_a_search_in_pages_finds_the_same(limit: int, service: Reached):
    cases = [case for case in CASES if case["path"].endswith("/search/resource")][:4]
    for case in cases:
        found: Counter[str] = Counter()
        page: dict[str, Any] = {"limit": limit}
        while True:
            told = service.client.post(case["path"], json=case["body"] | {"page": page}).json()
            assert told["page"]["count"] == len(told["results"]) <= limit
            found += entities(told["results"])
            if not told["page"]["next_token"]:
                break
            page = {"token": told["page"]["next_token"]}
        assert found == entities(case["expect"]["results"])
