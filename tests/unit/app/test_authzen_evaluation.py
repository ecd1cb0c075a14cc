"""One question on the wire: what is read, what is refused in which words, what is answered."""

import json
from typing import Any

import pytest

from chartgate.app.authzen import answer, instant, parse_evaluation
from chartgate.app.authzen_errors import BadRequest, RecordedAt, TooLarge
from chartgate.app.authzen_read import MAX_BODY, MAX_DEPTH
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Obligation, Reason, Ruling

ASKED: dict[str, Any] = {
    "subject": {"type": "User", "id": "alice"},
    "action": {"name": "view"},
    "resource": {"type": "Record", "id": "r1"},
}
AT = RecordedAt("log.example/one", 7)


def sent(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in (ASKED | changes).items() if v is not ...}).encode()


def refusal(body: bytes) -> str:
    with pytest.raises(BadRequest) as refused:
        parse_evaluation(body)
    assert refused.value.status in (400, 413)
    return str(refused.value)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


def test_a_question_is_read_whole():
    body = sent(
        subject={"type": "User", "id": "alice", "properties": {"acr": "2"}},
        action={"name": "view", "properties": {"soft": True}},
        resource={"type": "Record", "id": "r1", "properties": {"patient": "p", "n": -5}},
        context={"purpose": "TREAT", "deep": {"a": [1, {"b": None}]}},
    )
    assert parse_evaluation(body) == Question(
        Subject("User", "alice", {"acr": "2"}),
        Action("view", {"soft": True}),
        Resource("Record", "r1", {"patient": "p", "n": -5}),
        {"purpose": "TREAT", "deep": {"a": [1, {"b": None}]}},
    )


def test_what_is_not_said_is_empty():
    question = parse_evaluation(sent())
    assert question == Question(Subject("User", "alice"), Action("view"), Resource("Record", "r1"))


def test_unknown_fields_are_ignored_wherever_they_are():
    body = sent(
        subject={"type": "User", "id": "alice", "name": "Alice"},
        foo="bar",
        future={"nested": [True]},
    )
    assert parse_evaluation(body) == parse_evaluation(sent())


def test_a_nul_in_what_is_ignored_is_ignored_too():
    assert parse_evaluation(sent(foo=["\0", {"\0": 1}])) == parse_evaluation(sent())
    assert parse_evaluation(sent(context={"a": "\\u0000"})).context == {"a": "\\u0000"}


def test_texts_may_hold_colons_and_escapes():
    said = {"time": "2025-06-27T18:03-07:00", "url": 'urn:a:b "quoted" \\', "æ": "𝄞:é"}
    for ascii_only in (True, False):
        text = json.dumps(ASKED | {"context": said}, ensure_ascii=ascii_only)
        assert parse_evaluation(text.encode()).context == said


@pytest.mark.parametrize("name", ["subject", "action", "resource"])
def test_an_entity_that_is_missing_is_named(name: str):
    assert name in refusal(sent(**{name: ...}))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("subject", "type"),
        ("subject", "id"),
        ("action", "name"),
        ("resource", "type"),
        ("resource", "id"),
    ],
)
def test_a_field_that_is_missing_is_named_with_its_entity(name: str, field: str):
    left = {k: v for k, v in ASKED[name].items() if k != field}
    words = refusal(sent(**{name: left}))
    assert name in words
    assert field in words


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"subject": "alice"}, "subject"),
        ({"subject": None}, "subject"),
        ({"action": {"name": 123}}, "action.name"),
        ({"action": {"name": True}}, "action.name"),
        ({"resource": []}, "resource"),
        ({"resource": {"type": "Record", "id": 5}}, "resource.id"),
        ({"resource": {"type": "Record", "id": "r", "properties": "x"}}, "resource.properties"),
        ({"resource": {"type": "Record", "id": "r", "properties": None}}, "resource.properties"),
        ({"context": []}, "context"),
        ({"context": None}, "context"),
        ({"subject": {"type": "User", "id": "a" * 1025}}, "subject.id"),
    ],
)
def test_a_field_of_another_type_is_named(change: dict[str, Any], named: str):
    assert refusal(sent(**change)).startswith(named)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"12",
        sent()[:-1],
        sent() + b"}",
        sent() + b" {}",
        b"\xef\xbb\xbf" + sent(),
        sent(context={"a": 1}).replace(b"1", b"NaN"),
        sent(context={"a": 1}).replace(b"1", b"-Infinity"),
        sent(context={"a": 1}).replace(b"1", b"01"),
        sent(context={"a": 1}).replace(b"1", b"1e999"),
        sent(context={"a": 1}).replace(b"1", b"9" * 19),
        sent(context={"a": 1}).replace(b"1", b"9" * 400),
        sent(context={"a": 1}).replace(b"1", b"1e30"),
        sent(subject={"type": "User", "id": "a\0"}),
        sent(context={"a": 1}).replace(b"1", b"9" * 100_000),
        sent(context={"a": "x"}).replace(b'"x"', b'"\xff"'),
        sent(context={"a": "x"}).replace(b'"x"', b'"\x00"'),
        sent(context={"a": "x"}).replace(b'"x"', b'"\\ud800"'),
        sent(context={"a": "x"}).replace(b'"x"', b'"\\u0000"'),
        sent(context={"a": ["x", {"\0": 1}]}),
        sent(foo="x").replace(b'"x"', b'"\xff"'),
    ],
)
def test_what_is_not_json_of_the_internet_is_refused(body: bytes):
    assert refusal(body)


@pytest.mark.parametrize(
    "body",
    [
        sent(context={"a": 1}).replace(b'"a": 1', b'"a": 1, "a": 2'),
        sent(context={"a": 1}).replace(b'"a": 1', b'"a": 1, "\\u0061": 2'),
        sent(context={"a": 1}).replace(b'"a": 1', b'"a": "\\u003a", "a": 2'),
        sent().replace(b'"id": "alice"', b'"id": "alice", "id": "bob"'),
        sent().replace(b'{"type"', b'{"id": "bob", "type"', 1),
        sent()[:-1] + b', "subject": {"type": "User", "id": "bob"}}',
        sent()[:-1] + b', "foo": {"a": 1, "a": 1}}',
    ],
)
def test_no_key_is_there_twice(body: bytes):
    assert refusal(body) == "a key is there twice in one object"


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH])
def test_values_nest_as_deep_as_is_said_and_no_deeper(depth: int):
    body = sent(context={"a": nested(depth)})
    if depth < MAX_DEPTH:
        assert parse_evaluation(body)
    else:
        assert "deep" in refusal(body)


@pytest.mark.parametrize("place", ["context", "foo"])
@pytest.mark.parametrize("piece", [b"[", b'{"a":', b'[{"a":['])
def test_a_hundred_thousand_brackets_hurt_nobody(place: str, piece: bytes):
    value = sent(**{place: {"a": 1}}).replace(b'{"a": 1}', b'{"a": ' + piece * 100_000)
    assert refusal(value) == "the body nests too deeply"


def test_more_than_a_request_may_hold_is_said_to_be_too_large():
    with pytest.raises(TooLarge) as refused:
        parse_evaluation(b" " * (MAX_BODY + 1))
    assert refused.value.status == 413


def test_no_value_of_a_request_is_in_the_words_of_a_refusal():
    secret = "Jane Q. Patient"
    for body in (
        sent(subject=secret),
        sent(subject={"type": "User", "id": 1, secret: secret}),
        sent(context=[secret]),
        sent(context={secret: nested(MAX_DEPTH)}),
        sent(context={secret: 1})[:-3],
    ):
        assert "Patient" not in refusal(body)


def test_an_answer_with_nothing_to_say_is_short():
    assert answer(Ruling(allowed=True)) == (200, b'{"decision":true,"context":{}}')


def test_an_answer_says_everything_that_was_found():
    ruling = Ruling(
        allowed=False,
        determining=("p1",),
        failed=("p2",),
        levels={"labs": "masked"},
        fields={"lab.value": "masked"},
        obligations=(Obligation("mask", {"labs": "masked"}), Obligation("step_up", values=("2",))),
        reason=Reason("no_permit", "Nothing permits it.", ("45 CFR 164.502(b)",)),
        ignored=("resource.care_team",),
        policy_set="aa",
        data_map="bb",
        valid_until=1_763_800_000_001,
        patient="p-17",
        person="person-uid",
        recipient="somebody",
    )
    status, body = answer(ruling, AT, 3)
    assert status == 200
    assert json.loads(body) == {
        "decision": False,
        "context": {
            "policies": ["p1"],
            "policy_set": "aa",
            "data_map": "bb",
            "audit": {"log": "log.example/one", "index": 7},
            "levels": {"labs": "masked"},
            "fields": {"lab.value": "masked"},
            "obligations": [
                {"type": "mask", "categories": {"labs": "masked"}},
                {"type": "step_up", "values": ["2"]},
            ],
            "reason": {
                "code": "no_permit",
                "text": "Nothing permits it.",
                "clauses": ["45 CFR 164.502(b)"],
            },
            "ignored": ["resource.care_team"],
            "errors": ["p2"],
            "valid_until": "2025-11-22T08:26:40.001Z",
            "epoch": 3,
        },
    }


def test_what_failed_tells_nobody_that_there_is_such_a_patient():
    ruling = Ruling(
        allowed=False, failed=("p1",), reason=Reason("not_allowed", "Words."), policy_set="aa"
    )
    _, body = answer(ruling)
    assert "errors" not in json.loads(body)["context"]


@pytest.mark.parametrize(("code", "status"), [("out_of_scope", 403), ("stale", 503)])
def test_what_is_no_denial_is_an_error(code: str, status: int):
    got, body = answer(Ruling(allowed=False, reason=Reason(code, "Words.")), AT, 3)
    assert got == status
    assert json.loads(body) == {
        "error": code,
        "message": "Words.",
        "audit": {"log": "log.example/one", "index": 7},
    }


def test_instants_are_utc_and_end_with_the_year_9999():
    assert instant(0) == "1970-01-01T00:00:00.000Z"
    assert instant(1 << 62) == "9999-12-31T23:59:59.999Z"
