"""Bytes that are sent to cost more than they are, or to be read as two different requests."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.adapters.decision_http1 import (
    Heads,
    HttpRequest,
    HttpViolation,
    RequestReader,
    parse_head,
)
from chartgate.adapters.decision_limits import DEFAULT

POST = b"POST /access/v1/evaluation HTTP/1.1\r\nHost: pdp.example\r\n"
TINY = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def reader() -> RequestReader:
    return RequestReader(DEFAULT, Heads(DEFAULT))


def drained(reading: RequestReader) -> list[HttpRequest]:
    found = []
    while (request := reading.next()) is not None:
        found.append(request)
    return found


def test_a_body_in_small_pieces_costs_as_its_bytes_do():
    began, reading = process_time(), reader()
    reading.feed(POST + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(10_000):
        assert reading.next() is None
        reading.feed(b"x" * 100)
    assert reading.next() is not None
    assert process_time() - began < 1.0  # with a copy for each piece it was 6 s


def test_many_small_requests_at_once_cost_as_their_bytes_do():
    def cost(at_once: int) -> float:
        """Of 28,000 requests, so many at a time."""
        reading = reader()
        began = process_time()
        for _ in range(28_000 // at_once):
            reading.feed(TINY * at_once)
            assert len(drained(reading)) == at_once
        return process_time() - began

    assert min(cost(7_000) for _ in range(3)) < 5 * min(cost(70) for _ in range(3))


bodies = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


@given(bodies, st.lists(st.integers(1, 60), max_size=40), st.booleans())
def test_requests_are_the_same_however_they_are_cut(
    sent: list[bytes], cuts: list[int], in_chunks: bool
):
    parts = []
    for body in sent:
        if in_chunks and body:
            half = len(body) // 2
            parts.append(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            for part in (body[:half], body[half:]):
                parts.append(b"%x;a=b\r\n%b\r\n" % (len(part), part) if part else b"")
            parts.append(b"0\r\n\r\n")
        else:
            parts.append(POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    data, reading, found = b"".join(parts), reader(), []
    for cut in cuts:
        reading.feed(data[:cut])
        data = data[cut:]
        found += drained(reading)
    reading.feed(data)
    found += drained(reading)
    assert [request.body for request in found] == sent
    assert reading.stage == "idle"


@pytest.mark.parametrize(
    "target",
    [
        b"https://evil.example/healthz",
        b"http://evil.example?x/healthz",
        b"https://user@pdp.example/healthz",
        b"https://pdp.example:1/healthz",
        b"https:///healthz",
    ],
)
def test_a_target_of_another_host_reaches_no_page(target: bytes):
    with pytest.raises(HttpViolation) as caught:
        parse_head(b"GET " + target + b" HTTP/1.1\r\nHost: pdp.example\r\n\r\n", DEFAULT)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"https://PDP.example/healthz", "/healthz"),
        (b"http://pdp.example", "/"),
        (b"http://pdp.example?/healthz", "/"),
        (b"https://pdp.example/a?/b", "/a"),
    ],
)
def test_an_absolute_target_of_this_host_is_its_path(target: bytes, path: str):
    head = parse_head(b"GET " + target + b" HTTP/1.1\r\nHost: pdp.example\r\n\r\n", DEFAULT)
    assert head.path == path
