"""The clients over real sockets: what is a yes, what is a no, how long a call may last."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from chartgate.model.disclosure import Disclosure
from chartgate.sdk import AccessDenied, AsyncChartgate, Chartgate, QuestionRefused, Record
from chartgate.sdk.decision import Decision
from chartgate.sdk.errors import Misused, Unavailable
from chartgate.sdk.problems import problem_of
from strategies.sdk_responder import Answer, over_http, over_unix

YES = {"decision": True, "context": {"levels": {"labs": "full"}, "policy_set": "p", "epoch": 1}}
NO = {
    "decision": False,
    "context": {
        "levels": {"labs": "masked"},
        "obligations": [{"type": "mask", "categories": {"labs": "masked"}}],
        "reason": {"code": "no_permit", "text": "No policy allows it.", "clauses": ["164.502(b)"]},
    },
}
LABS = Record(patient="17", category="labs")


class Blocking:
    """The asynchronous client, driven by a test that is not."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._made = (arguments, settings)
        self._gate: AsyncChartgate | None = None

    def __getattr__(self, name: str) -> Any:
        def run(*arguments: Any, **settings: Any) -> Any:
            async def call() -> Any:
                if self._gate is None:
                    self._gate = AsyncChartgate(*self._made[0], **self._made[1])
                made = getattr(self._gate, name)(*arguments, **settings)
                return [x async for x in made] if hasattr(made, "__aiter__") else await made

            return self._loop.run_until_complete(call())

        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._gate is not None:
            self.close()
        self._loop.close()


Served = Callable[[Callable[[str, Any, str], Answer]], Any]


@pytest.fixture(params=["http", "unix"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Served:
    if request.param == "http":
        return over_http
    return lambda answering: over_unix(tmp_path / "s.sock", answering)


@pytest.fixture(params=[Chartgate, Blocking])
def client(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextmanager
def asking(served: Served, client: Any, answering: Any, **settings: Any) -> Iterator[Any]:
    with served(answering) as url, client(url, token="t", **settings) as gate:
        yield gate


def test_a_question_travels_as_the_specification_has_it(served: Served, client: Any) -> None:
    seen: list[Any] = []

    def answering(op: str, body: Any, token: str) -> Answer:
        seen.append((op, body, token))
        return 200, YES

    with asking(served, client, answering) as gate:
        assert gate.decide("nadams", "view", LABS, {"purpose": "TREAT"}).allowed
    assert seen == [
        (
            "evaluation",
            {
                "subject": {"type": "User", "id": "nadams"},
                "action": {"name": "view"},
                "resource": {
                    "type": "Record",
                    "id": "asked",
                    "properties": {"patient": "17", "category": "labs"},
                },
                "context": {"purpose": "TREAT"},
            },
            "t",
        )
    ]


def test_a_no_has_its_reason_and_may_still_disclose_something(served: Served, client: Any) -> None:
    with asking(served, client, lambda *_: (200, NO)) as gate:
        decision: Decision = gate.decide("nadams", "view", LABS)
    assert not decision
    assert decision.reason is not None
    assert (decision.reason.code, decision.reason.clauses) == ("no_permit", ("164.502(b)",))
    assert decision.level("labs") is Disclosure.MASKED
    assert decision.level("labs", "notes") is Disclosure.WITHHELD
    assert decision.require(partial=True) is decision
    with pytest.raises(AccessDenied, match="No policy allows it") as caught:
        decision.require()
    assert caught.value.decision is decision
    assert "17" not in repr(decision)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        (500, {}),
        (503, {}),
        (200, b"not json"),
        (200, {"decision": "true"}),
        (200, {"decision": 1}),
        (200, {}),
        (200, []),
        (200, {"decision": True, "context": {"levels": {"labs": "complete"}}}),
        (200, {"decision": True, "context": {"levels": ["labs"]}}),
        (302, {"decision": True}),
        (201, {"decision": True}),
    ],
)
def test_whatever_is_not_a_clear_yes_is_a_no(client: Any, answer: Answer) -> None:
    with asking(over_http, client, lambda *_: answer, timeout=0.15) as gate:
        decision = gate.decide("nadams", "view", LABS)
        assert not decision.allowed
        assert decision.reason is not None
        assert decision.reason.code == "unavailable"
        with pytest.raises(Unavailable):
            decision.require(partial=True)
        with pytest.raises(Unavailable):
            gate.decide("nadams", "view", LABS, strict=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_a_question_that_is_not_taken_says_so(served: Served, client: Any, status: int) -> None:
    told = {"error": "out_of_scope", "message": "the service may not ask about labs"}
    with asking(served, client, lambda *_: (status, told)) as gate:
        decision = gate.decide("nadams", "view", LABS)
        assert not decision.allowed
        with pytest.raises(QuestionRefused, match="may not ask about labs"):
            decision.require()


def test_nobody_listening_is_a_no(tmp_path: Path, client: Any) -> None:
    for url in ("http://127.0.0.1:9", f"unix:{tmp_path}/none"):
        with client(url, timeout=0.2) as gate:
            assert gate.decide("nadams", "view", LABS).reason.code == "unavailable"


def test_what_is_busy_is_asked_again_within_the_deadline(served: Served, client: Any) -> None:
    times: list[float] = []

    def answering(*_: Any) -> Answer:
        times.append(time.monotonic())
        return (503, {}) if len(times) < 3 else (200, YES)

    with asking(served, client, answering) as gate:
        assert gate.decide("nadams", "view", LABS).allowed
    assert len(times) == 3


def test_a_broken_connection_is_tried_again(served: Served, client: Any) -> None:
    times: list[int] = []

    def answering(*_: Any) -> Answer:
        times.append(1)
        return None if len(times) == 1 else (200, YES)

    with asking(served, client, answering) as gate:
        assert gate.decide("nadams", "view", LABS).allowed


def test_a_failure_of_the_service_is_not_repeated(served: Served, client: Any) -> None:
    times: list[int] = []

    def answering(*_: Any) -> Answer:
        times.append(1)
        return 500, {}

    with asking(served, client, answering) as gate:
        assert not gate.decide("nadams", "view", LABS).allowed
    assert len(times) == 1


def test_a_call_ends_at_its_deadline(served: Served, client: Any) -> None:
    def answering(*_: Any) -> Answer:
        time.sleep(0.5)
        return 200, YES

    with asking(served, client, answering) as gate:
        begun = time.monotonic()
        assert not gate.decide("nadams", "view", LABS, timeout=0.1).allowed
        assert time.monotonic() - begun < 0.4


def test_a_rotated_token_needs_no_restart(tmp_path: Path, served: Served, client: Any) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")

    def answering(_op: str, _body: Any, token: str) -> Answer:
        if token == "old":
            file.write_text("new\n")
            return 401, {"error": "unknown_caller"}
        return (200, YES) if token == "new" else (401, {})

    with served(answering) as url, client(url, token_file=file) as gate:
        assert gate.decide("nadams", "view", LABS).allowed
        assert gate.decide("nadams", "view", LABS).allowed


def test_a_token_file_that_is_half_written_is_not_yet_another_token(
    tmp_path: Path, served: Served, client: Any
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    tokens = []

    def answering(_op: str, _body: Any, token: str) -> Answer:
        tokens.append(token)
        return 200, YES

    with served(answering) as url, client(url, token_file=file) as gate:
        for text in ("first\n", "", None, "second\n"):
            if text is None:
                file.unlink()
            else:
                file.write_text(text)
            assert gate.decide("nadams", "view", LABS).allowed
    assert tokens == ["first", "first", "first", "second"]


def test_a_token_file_that_cannot_be_read_is_not_now(tmp_path: Path) -> None:
    for file in (tmp_path / "none", tmp_path):
        with Chartgate("http://127.0.0.1:9", token_file=file) as gate:
            decision = gate.decide("nadams", "view", LABS)
            assert not decision
            assert decision.reason is not None
            assert decision.reason.text.startswith("the application's token file cannot be read: ")
            assert str(tmp_path) not in decision.reason.text
            with pytest.raises(Unavailable) as caught:
                gate.decide("nadams", "view", LABS, strict=True)
        assert problem_of(caught.value).status == 503


def test_many_questions_are_one_call_and_more_are_several(served: Served, client: Any) -> None:
    sizes: list[int] = []

    def answering(op: str, body: Any, _: str) -> Answer:
        assert op == "evaluations"
        sizes.append(len(body["evaluations"]))
        return 200, {
            "evaluations": [
                {"decision": one["subject"]["id"] != "n7"} for one in body["evaluations"]
            ]
        }

    with asking(served, client, answering) as gate:
        found = gate.decide_many([(f"n{i}", "view", LABS) for i in range(1_203)])
        assert [i for i, one in enumerate(found) if not one.allowed] == [7]
        assert sizes == [1_000, 203]
        assert gate.decide_many([]) == ()


def test_a_batch_that_lacks_an_answer_is_all_no(served: Served, client: Any) -> None:
    with asking(served, client, lambda *_: (200, {"evaluations": [YES]})) as gate:
        found = gate.decide_many([("a", "view", LABS), ("b", "view", LABS)])
        assert [one.allowed for one in found] == [False, False]
        ended = gate.decide_many(
            [("a", "view", LABS), ("b", "view", LABS)], semantic="permit_on_first_permit"
        )
        assert [one.allowed for one in ended] == [True]
        with pytest.raises(Unavailable):
            gate.decide_many([("a", "view", LABS), ("b", "view", LABS)], strict=True)


def test_a_batch_names_the_item_that_was_no_question(served: Served, client: Any) -> None:
    bad = {"decision": False, "context": {"error": {"status": 400, "message": "resource.id"}}}
    with asking(served, client, lambda *_: (200, {"evaluations": [YES, bad]})) as gate:
        good, wrong = gate.decide_many([("a", "view", LABS), ("b", "view", LABS)])
    assert good.allowed
    assert wrong.reason.code == "question_refused"


def test_a_search_reads_every_page(served: Served, client: Any) -> None:
    def answering(op: str, body: Any, _: str) -> Answer:
        assert op == "search/subject"
        start = int(body["page"].get("token", "0"))
        names = [f"n{i}" for i in range(start, start + 2)]
        return 200, {
            "results": [{"type": "User", "id": name} for name in names],
            "page": {"next_token": "" if start >= 4 else str(start + 2)},
        }

    with asking(served, client, answering) as gate:
        found = [subject.id for subject in gate.search_subjects("view", LABS)]
    assert found == ["n0", "n1", "n2", "n3", "n4", "n5"]


def test_a_search_is_never_cut_off(served: Served, client: Any) -> None:
    def answering(_op: str, body: Any, _: str) -> Answer:
        if "token" in body["page"]:
            return 500, {}
        return 200, {"results": [{"name": "view"}], "page": {"next_token": "x"}}

    with asking(served, client, answering) as gate, pytest.raises(Unavailable):
        list(gate.search_actions("nadams", LABS))


def test_a_search_that_goes_in_a_circle_fails(served: Served, client: Any) -> None:
    page = {"results": [{"type": "Record", "id": "x"}], "page": {"next_token": "x"}}
    with asking(served, client, lambda *_: (200, page)) as gate, pytest.raises(Unavailable):
        list(gate.search_resources("nadams", "view", "Record"))


def test_a_token_does_not_travel_in_clear_to_another_machine() -> None:
    for url in ("http://pdp.example.org", "http://10.0.0.1:80", "ftp://localhost", "pdp:80"):
        with pytest.raises(Misused):
            Chartgate(url)


def test_an_address_holds_no_password() -> None:
    with pytest.raises(Misused, match="password"):
        Chartgate("https://user:secret@pdp.example.org")


def test_without_an_address_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARTGATE_URL", raising=False)
    with pytest.raises(Misused, match="CHARTGATE_URL"):
        Chartgate()


def test_address_and_token_come_from_the_environment(
    served: Served, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: list[str] = []

    def answering(_op: str, _body: Any, token: str) -> Answer:
        tokens.append(token)
        return 200, YES

    with served(answering) as url:
        monkeypatch.setenv("CHARTGATE_URL", url)
        monkeypatch.setenv("CHARTGATE_TOKEN", "of-the-environment")
        with client() as gate:
            assert gate.decide("nadams", "view", LABS).allowed
    assert tokens == ["of-the-environment"]


@pytest.mark.parametrize("text", ["two words", "line\nbreak", "", "ü"])
def test_a_token_is_one_line_of_visible_characters(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with Chartgate("http://127.0.0.1:9", token_file=file) as gate, pytest.raises(Misused):
        gate.decide("nadams", "view", LABS)


def test_what_cannot_be_asked_is_an_error_of_the_caller() -> None:
    with Chartgate("http://127.0.0.1:9", timeout=0.1) as gate:
        with pytest.raises(Misused, match="subject"):
            gate.decide("", "view", LABS)
        with pytest.raises(Misused, match="resource"):
            gate.decide("nadams", "view", {"type": "Record"})
        with pytest.raises(Misused, match="semantics"):
            gate.decide_many([], semantic="whatever")
