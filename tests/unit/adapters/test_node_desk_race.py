"""A version that comes while somebody asks: facts and rulings of one answer are by one map."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chartgate.adapters.node_desk import AnswerDesk
from chartgate.adapters.node_rulings import Ready, make_ready
from chartgate.adapters.node_state import Turn
from chartgate.adapters.policy_files import load_data_map, load_policy_version
from chartgate.app.authzen_paging import Page
from chartgate.app.authzen_search import ActionSearch, Sought
from chartgate.app.node_asked import Asked, Caller, Readiness
from chartgate.app.patient_record import PatientRecord
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.tokens import PatientTokens
from chartgate.cedar.values import CedarSet
from chartgate.model.event import Evaluation, Search, decode
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.model.service import EVERYTHING, Service

CODER = Assignment("billing_coder", "billing", datetime(2020, 1, 1, tzinfo=UTC), None)
KIM = Person("uid-kim", "kim", "Kim", True, (CODER,))
CALLER = Caller(Service("s_1", "app", True, EVERYTHING), "https")
TOKENS = PatientTokens({datetime.now(UTC).year: b"k" * 32}, "hospital")


def facts(*labels: str) -> PatientRecord:
    nothing = CedarSet.of(())
    known = dict.fromkeys(("departments", "queues", "care_team", "age_bands"), nothing)
    return PatientRecord({"patient": EntityUid("Patient", "7"), **known}, labels)


class Node:
    """Two versions: under the second, the patient carries a label that the first map knows not."""

    def __init__(self, first: Ready, second: Ready) -> None:
        self.ready = first
        self.second = second
        self.facts = Source(self, facts())
        self.log = Log()
        self.desk = AnswerDesk(
            "n", "o", self.log, TOKENS, Turn(), ready=lambda: self.ready, facts=lambda: self.facts,
            epoch=lambda: 1, readiness=Readiness, is_durable=True,
        )  # fmt: skip

    def replace(self) -> None:
        if self.ready is not self.second:
            self.ready, self.facts = self.second, Source(self, facts("sud_part2"))


class Source:
    def __init__(self, node: Node, found: PatientRecord) -> None:
        self.node, self.found = node, found

    def knows(self, key: str, now: float | None = None) -> bool:
        return False

    def peek(self, key: str, now: float | None = None) -> PatientRecord | None:
        raise KeyError

    async def get_many(self, keys: Sequence[str]) -> dict[str, PatientRecord | None]:
        self.node.replace()
        return dict.fromkeys(keys, self.found)

    async def chunks(
        self, after: str = "", *, size: int = 256
    ) -> AsyncIterator[list[tuple[str, PatientRecord]]]:
        if not after:
            yield [("7", self.found)]
            self.node.replace()


class Log:
    is_linked = True

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    async def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        self.entries += entries
        return len(self.entries) - 1


@pytest.fixture(scope="module")
def versions(project_root: Path) -> tuple[Ready, Ready]:
    made: list[Ready] = []
    for _ in range(2):
        version = load_policy_version(project_root / "policies")
        data_map = load_data_map(project_root / "maps" / "hospital.toml", version.schema)
        made.append(make_ready(version, data_map, {"kim": KIM}, at_leisure=False))
    return made[0], made[1]


RECORD = Resource("Record", "r", {"patient": "7", "category": "billing"})


async def test_facts_by_one_map_are_not_decided_on_by_another(
    versions: tuple[Ready, Ready],
) -> None:
    node = Node(*versions)
    asked = Asked((Question(Subject("User", "kim"), Action("view"), RECORD),), "r")
    (ruling,) = (await node.desk.answer(asked, CALLER)).rulings
    assert not ruling.allowed
    (event,) = map(decode, node.log.entries)
    assert isinstance(event, Evaluation)
    assert [item.allowed for item in event.items] == [False]


async def test_a_search_that_a_version_overtakes_is_made_anew(
    versions: tuple[Ready, Ready],
) -> None:
    node = Node(*versions)
    query: Any = ActionSearch(Subject("User", "kim"), RECORD, {})
    sought = Sought(query, Page(100, ""), b"")
    found = await node.desk.search(sought, CALLER, request="r")
    assert found.found.names == ()
    (event,) = map(decode, node.log.entries)
    assert isinstance(event, Search)


async def test_the_log_holds_what_a_search_found_whatever_it_is(
    versions: tuple[Ready, Ready],
) -> None:
    node = Node(versions[1], versions[1])

    async def found(query: Any) -> tuple[tuple[str, ...], Search]:
        node.log.entries.clear()
        answer = await node.desk.search(Sought(query, Page(100, ""), b""), CALLER, request="r")
        (event,) = map(decode, node.log.entries)
        assert isinstance(event, Search)
        return answer.found.names, event

    names, event = await found(ActionSearch(Subject("User", "kim"), RECORD, {}))
    assert "view" in names
    assert (event.found, event.categories, event.person) == (names, ("billing",), "uid-kim")
    names, event = await found(ActionSearch(Subject("User", "nobody"), RECORD, {}))
    token = TOKENS.token("resource", "User:nobody", year=datetime.now(UTC).year)
    assert (names, event.found, event.subject) == ((), (), token)
