"""Requests out of bytes: what is one, where it ends, and what is refused (RFC 9112)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.adapters.decision_http1 import (
    CHUNKED,
    Heads,
    HttpRequest,
    HttpViolation,
    RequestReader,
    parse_head,
)
from chartgate.adapters.decision_limits import DEFAULT, Limits

HEAD = b"POST /access/v1/evaluation HTTP/1.1\r\nHost: pdp.example\r\n"


def read(data: bytes, limits: Limits = DEFAULT) -> list[HttpRequest]:
    return read_parts([data], limits)


def read_parts(parts: list[bytes], limits: Limits = DEFAULT) -> list[HttpRequest]:
    reader, found = RequestReader(limits, Heads(limits)), []
    for part in parts:
        reader.feed(part)
        while (request := reader.next()) is not None:
            found.append(request)
    return found


def refused(data: bytes, limits: Limits = DEFAULT) -> int:
    with pytest.raises(HttpViolation) as caught:
        read(data, limits)
    return caught.value.status


def head(*lines: bytes) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def test_a_request_is_its_head_and_as_many_bytes_as_it_says():
    (request,) = read(head(b"Content-Length: 2", b"content-type: application/json") + b"{}")
    assert request.body == b"{}"
    assert (request.head.method, request.head.path) == ("POST", "/access/v1/evaluation")
    assert request.head.is_json
    assert request.head.keep_alive


def test_requests_in_one_piece_come_out_one_by_one():
    one = head(b"Content-Length: 2")
    assert [r.body for r in read(one + b"{}" + one + b"[]" + head(b"Content-Length: 0"))] == [
        b"{}",
        b"[]",
        b"",
    ]


def test_a_body_in_chunks_is_put_together():
    sent = head(b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n"
    first, second = read(sent + head(b"Content-Length: 1") + b"z")
    assert (first.body, second.body) == (b"abcde", b"z")
    assert first.head.length == CHUNKED


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.data())
def test_how_the_bytes_are_cut_changes_nothing(bodies: list[bytes], data: st.DataObject):
    sent = b""
    for number, body in enumerate(bodies):
        if number % 2:
            sent += head(b"Content-Length: %d" % len(body)) + body
        else:
            half = len(body) // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            sent += head(b"Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert [r.body for r in read_parts(pieces)] == bodies


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((b"Content-Length: 2", b"Transfer-Encoding: chunked"), 400),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 2"), 400),
        ((b"Content-Length: 2", b"Content-Length: 2"), 400),
        ((b"Content-Length: 2", b"Content-Length: 3"), 400),
        ((b"Content-Length: 2, 2",), 400),
        ((b"Content-Length: +2",), 400),
        ((b"Content-Length: -1",), 400),
        ((b"Content-Length: 0x2",), 400),
        ((b"Content-Length : 2",), 400),
        ((b"X: a", b" folded"), 400),
        ((b"X: a", b"\tfolded"), 400),
        ((b"X: a\rb",), 400),
        ((b"X: a\x00b",), 400),
        ((b"X: a\nTransfer-Encoding: chunked",), 400),
        ((b": no name",), 400),
        ((b"no colon",), 400),
        ((b"Host: other.example",), 400),
        ((b"Authorization: Bearer a", b"Authorization: Bearer b"), 400),
        ((b"Transfer-Encoding: gzip, chunked",), 501),
        ((b"Transfer-Encoding: gzip",), 400),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        ((b"Transfer-Encoding: xchunked",), 400),
        ((b"Transfer-Encoding:\x0bchunked",), 400),
        ((b"Expect: the-moon",), 417),
        ((b"Content-Length: 1048577",), 413),
        ((b"Content-Length: 99999999999999999999",), 400),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(lines: tuple[bytes, ...], status: int):
    assert refused(head(*lines) + b"{}0\r\n\r\n") == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"POST /\r\n\r\n", 505),
        (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"POST /a HTTP/1.1\nHost: x\n\n\r\n\r\n", 400),
        (b"POST ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 3_000), 414),
        (b"POST /%b" % (b"a" * 20_000), 414),
        (HEAD + b"X: " + b"a" * 20_000, 431),
        (HEAD + b"X: a\r\n" * 100 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_of_ours_is_refused(data: bytes, status: int):
    assert refused(data) == status


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1\r\nab\r\n",
        b"1\nab\r\n0\r\n\r\n",
        b" 1\r\na\r\n",
        b"1_0\r\n",
        b"123456789\r\n",
        b"1" * 300,
        b"1;\x00\r\na\r\n",
        b"0\r\nno trailer\r\n\r\n",
    ],
)
def test_chunks_that_are_not_understood_are_refused(chunks: bytes):
    assert refused(head(b"Transfer-Encoding: chunked") + chunks) == 400


def test_a_body_in_chunks_has_the_same_limit():
    big = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    assert refused(head(b"Transfer-Encoding: chunked") + big * 17) == 413
    assert refused(head(b"Transfer-Encoding: chunked") + b"1\r\na\r\n" * 5_000) == 413


def test_an_offer_to_upgrade_is_overlooked():
    (request,) = read(head(b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: 2") + b"{}")
    assert request.body == b"{}"


def test_whoever_waits_for_leave_to_send_is_seen():
    reader = RequestReader(DEFAULT, Heads(DEFAULT))
    reader.feed(head(b"Expect: 100-continue", b"Content-Length: 2"))
    assert reader.next() is None
    assert reader.is_waiting
    reader.feed(b"{}")
    request = reader.next()
    assert request is not None
    assert request.body == b"{}"
    assert not reader.is_waiting


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", True),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", False),
        (b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        (b"00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        (b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", False),
    ],
)
def test_a_trace_is_kept_if_it_is_one(value: bytes, kept: bool):
    found = parse_head(head(b"traceparent: " + value), DEFAULT).trace
    assert found == (value[:55].decode() if kept else "")


@pytest.mark.parametrize(
    ("value", "token", "malformed"),
    [
        (b"Bearer abc.DEF-1_~+/=", "abc.DEF-1_~+/=", False),
        (b"bearer abc", "abc", False),
        (b"Basic YTpi", "", True),
        (b"Bearer", "", True),
        (b"Bearer a b", "", True),
        (b"Bearer " + b"a" * 600, "", True),
    ],
)
def test_a_credential_is_a_bearer_token(value: bytes, token: str, malformed: bool):
    found = parse_head(head(b"Authorization: " + value), DEFAULT)
    assert (found.token, found.malformed_credential) == (token, malformed)


def test_a_request_id_that_could_end_a_header_is_not_kept():
    assert parse_head(head(b"X-Request-ID: a-1"), DEFAULT).request_id == "a-1"
    for value in (b"", b"a b", b"\xff", b"a" * 129):
        assert parse_head(head(b"X-Request-ID: " + value), DEFAULT).request_id == ""


def test_only_json_in_utf8_is_json():
    for value, is_json in (
        (b"application/json", True),
        (b"Application/JSON; charset=UTF-8", True),
        (b'application/json;charset="utf-8"', True),
        (b"application/json; charset=latin-1", False),
        (b"application/jsonp", False),
        (b"text/plain", False),
    ):
        assert parse_head(head(b"Content-Type: " + value), DEFAULT).is_json is is_json


def test_heads_are_remembered_without_those_that_do_not_come_again():
    heads = Heads(DEFAULT)
    lasting, passing = head(b"Content-Length: 2"), head(b"X-Request-ID: 1")
    assert heads.read(lasting) is heads.read(lasting)
    assert heads.read(passing) is not heads.read(passing)
    heads.forget()
    assert heads.read(lasting) == parse_head(lasting, DEFAULT)


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_refused_or_waited_for(data: bytes):
    for sent in (data, HEAD + data, head(b"Transfer-Encoding: chunked") + data):
        try:
            found = read(sent)
        except HttpViolation as violation:
            status = violation.status
        else:
            status = 400
            assert all(request.head.path.startswith("/") for request in found)
        assert 400 <= status < 600
