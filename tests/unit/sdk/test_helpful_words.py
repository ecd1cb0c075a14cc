"""What an application's developer gets wrong first, and what she is told to do."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from chartgate.sdk import AsyncChartgate, Chartgate, Record
from chartgate.sdk.calling import NotTrusted, Reply, encoded, told, why
from chartgate.sdk.errors import Misused
from chartgate.sdk.https import _no_reply

RECORD = Record(patient="17", category="labs")


@pytest.fixture
def gate(tmp_path: Path) -> Chartgate:
    return Chartgate(f"unix:{tmp_path / 'none.sock'}", token="t", timeout=0.05)


@pytest.mark.parametrize(
    ("subject", "action", "resource", "context", "words"),
    [
        (None, "view", RECORD, None, "a login name"),
        ("nadams", None, RECORD, None, "the action is its name"),
        ("nadams", "view", "Record", None, "a Record"),
        ("nadams", "view", Record(patient="17", fields="lab.value"), None, "are lists"),
        ("nadams", "view", Record(patient="17", categories="labs"), None, "are lists"),
        ("nadams", "view", RECORD, "TREAT", "is an object"),
        ("nadams", "view", RECORD, {"acr": object()}, "JSON values only"),
    ],
)
def test_a_question_that_is_none_is_refused_by_name(
    gate: Chartgate, subject: Any, action: Any, resource: Any, context: Any, words: str
) -> None:
    with pytest.raises(Misused, match=words):
        gate.decide(subject, action, resource, context)


def test_a_service_that_does_not_run_is_a_no_that_says_so(gate: Chartgate) -> None:
    decision = gate.decide("nadams", "view", RECORD)
    assert not decision
    assert not decision.is_answer
    assert decision.reason is not None
    assert "No such file or directory" in decision.reason.text
    assert "does it run" in decision.reason.text


def test_a_slow_answer_is_told_from_none() -> None:
    assert why(TimeoutError()) == "it did not answer in time"
    assert "ValueError" in why(ValueError("of the question"))
    assert "of the question" not in why(ValueError("of the question"))
    assert "127.0.0.1" not in why(
        ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
    )


def test_an_untrusted_certificate_is_not_asked_twice() -> None:
    failure = OSError()
    failure.__cause__ = ssl.SSLCertVerificationError("x")
    failure.__cause__.verify_message = "unable to get local issuer certificate"
    reply = _no_reply(failure)
    assert isinstance(reply, NotTrusted)
    assert "ca=" in str(reply)
    failure.__cause__ = ssl.SSLError("x")
    assert "is the url right" in str(_no_reply(failure))


def test_a_token_that_is_not_taken_says_how_to_get_another() -> None:
    assert "chartgate service token" in told(Reply(401, {"message": "not valid"}))
    assert "url" in told(Reply(404, None))
    assert told(Reply(403, None)) == "the decision service refused the question (403)"


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    with pytest.raises(Misused, match=r"ca='/nope'.*no such file"):
        Chartgate("https://localhost:1", token="t", ca="/nope")
    with pytest.raises(Misused, match="our own certificate"):
        Chartgate("https://localhost:1", token="t", certificate=("/nope", "/nope"))


def test_what_json_has_no_form_for_does_not_travel() -> None:
    assert encoded({"a": 1}) == b'{"a":1}'
    with pytest.raises(Misused):
        encoded(socket.AF_INET.__class__)


@pytest.mark.parametrize("address", ["unix:{}", "https://127.0.0.1:1"])
def test_an_asynchronous_client_goes_on_in_another_loop(address: str, tmp_path: Path) -> None:
    gate = AsyncChartgate(address.format(tmp_path / "none.sock"), token="t", timeout=0.05)
    for _ in range(2):
        decision = asyncio.run(gate.decide("nadams", "view", RECORD))
        assert not decision.is_answer
