"""What of a request's headers counts, and the document that says where to ask."""

import json

import pytest

from chartgate.app.authzen_errors import (
    BadRequest,
    NotJson,
    check_content_type,
    echoed_request_id,
    error_body,
    refused_body,
)
from chartgate.app.authzen_metadata import (
    NotABaseUrl,
    base_url_of_host,
    metadata,
    metadata_path,
)


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b"Application/JSON",
        b" application/json ;charset=UTF-8",
    ],
)
def test_json_is_the_content_type(value: bytes):
    check_content_type(value)


@pytest.mark.parametrize(
    "value", [None, b"", b"text/plain", b"application/jsonx", b"application/json, text/plain", b";"]
)
def test_another_content_type_is_400(value: bytes | None):
    with pytest.raises(NotJson) as refused:
        check_content_type(value)
    assert refused.value.status == 400


@pytest.mark.parametrize("value", [b"bfe9eb29-ab87-4ca3-be83-a1d5d8305716", b"a", b"!~" * 64])
def test_a_request_id_is_sent_back(value: bytes):
    assert echoed_request_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"x" * 129,
        b"a b",
        b"a\r\nSet-Cookie: x=1",
        b"a\n",
        b"a\r",
        b"\x00",
        b"a\t",
        "é".encode(),
        b"\x7f",
        b"\xff",
    ],
)
def test_a_request_id_that_could_be_more_than_one_is_not(value: bytes | None):
    assert echoed_request_id(value) is None


def test_an_error_is_a_code_and_words():
    assert json.loads(error_body("too_slow", "Words.")) == {
        "error": "too_slow",
        "message": "Words.",
    }
    assert json.loads(refused_body(BadRequest("Words."))) == {
        "error": "bad_request",
        "message": "Words.",
    }


def test_the_document_says_where_everything_is_asked():
    base = "https://pdp.example:8443"
    assert metadata_path(base) == "/.well-known/authzen-configuration"
    assert json.loads(metadata(base)) == {
        "policy_decision_point": base,
        "access_evaluation_endpoint": base + "/access/v1/evaluation",
        "access_evaluations_endpoint": base + "/access/v1/evaluations",
        "search_subject_endpoint": base + "/access/v1/search/subject",
        "search_resource_endpoint": base + "/access/v1/search/resource",
        "search_action_endpoint": base + "/access/v1/search/action",
    }


def test_what_is_not_offered_is_not_in_the_document():
    assert set(json.loads(metadata("https://pdp.example", searches=False))) == {
        "policy_decision_point",
        "access_evaluation_endpoint",
        "access_evaluations_endpoint",
    }


def test_a_path_comes_behind_the_well_known_name():
    assert metadata_path("https://h.example/a/b") == "/.well-known/authzen-configuration/a/b"
    told = json.loads(metadata("https://h.example/a/b"))
    assert told["policy_decision_point"] == "https://h.example/a/b"
    assert told["access_evaluation_endpoint"] == "https://h.example/a/b/access/v1/evaluation"


@pytest.mark.parametrize(
    "base",
    [
        "http://pdp.example",
        "https://pdp.example/",
        "https://pdp.example/a/",
        "https://pdp.example?x=1",
        "https://pdp.example#x",
        "https://user@pdp.example",
        "https://",
        "https://PDP.example",
        "https://pdp.example/../x y",
        "https://pdp.example\n",
        "ftp://x",
        "",
    ],
)
def test_a_base_that_may_not_be_named_is_refused(base: str):
    with pytest.raises(NotABaseUrl):
        metadata(base)


@pytest.mark.parametrize(
    ("host", "base"),
    [
        (b"pdp.example", "https://pdp.example"),
        (b"PDP.example:8443", "https://pdp.example:8443"),
        (b"127.0.0.1:9", "https://127.0.0.1:9"),
        (b"[::1]:8443", "https://[::1]:8443"),
        (b"localhost", "https://localhost"),
        (None, None),
        (b"", None),
        (b"a/b", None),
        (b"a@b", None),
        (b'a"b', None),
        (b"a:123456", None),
        (b"\xff", None),
        (b"-a", None),
        (b"a b", None),
    ],
)
def test_a_caller_is_told_of_the_host_it_asked(host: bytes | None, base: str | None):
    assert base_url_of_host(host) == base
