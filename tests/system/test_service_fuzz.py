"""Whatever is sent, the decision service answers in well-formed HTTP, or closes; and it lives on.

The rules held: never a status of failure but 501, 503 and 505 (each says what is not done), never a
wait without end, never a word of what was asked in an answer that refuses it, nothing on its error
output but what it means to say; and afterwards it decides as it did.
"""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from strategies.authzen_service import TOKEN, Reached, decision_service
from strategies.http_answers import Answer, answers_in

pytestmark = pytest.mark.system

ASKED: dict[str, Any] = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "read"},
    "resource": {"type": "record", "id": "record-1"},
}
PATHS = (
    "/access/v1/evaluation",
    "/access/v1/evaluations",
    "/access/v1/search/subject",
    "/access/v1/search/resource",
    "/access/v1/search/action",
)
WHOLE: dict[str, Any] = {
    **ASKED,
    "context": {"time": "now"},
    "options": {"evaluations_semantic": "deny_on_first_deny"},
    "evaluations": [{}, {"action": {"name": "write", "properties": {"soft": True}}}],
    "page": {"limit": 2, "token": ""},
}
MEANT = {200, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 429, 431, 501, 503, 505}
SECRET = "Jane-Q-Patient"
PATIENCE = 8.0

_busy = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Reached]:
    folder = project_root / "tests/cases/authzen/certification"
    with decision_service(folder, tmp_path_factory.mktemp("fuzz"), "--plain-http") as reached:
        yield reached
        assert_decides(reached)


def assert_decides(service: Reached) -> None:
    answers = exchanged(service, request(PATHS[0], json.dumps(ASKED).encode()))
    assert [answer.status for answer in answers] == [200]
    told = answers[0].json()
    assert isinstance(told, dict)
    assert told["decision"] is True


def exchanged(service: Reached, sent: bytes, *, to_head: bool = False) -> list[Answer]:
    """What comes back for these bytes, until the service closes; it must, once nothing more comes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as link:
        received = b""
        try:
            link.sendall(sent)
            link.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it may have seen enough already
        try:
            while piece := link.recv(65_536):
                received += piece
        except ConnectionResetError:
            pass
    return answers_in(received, to_head=to_head)


def request(path: str, body: bytes, *, more: bytes = b"", method: bytes = b"POST") -> bytes:
    return (
        b"%b %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
        % (method, path.encode(), TOKEN.encode(), len(body), more)
        + body
    )


def check(answers: list[Answer]) -> None:
    for answer in answers:
        assert answer.status in MEANT, answer
        assert answer.headers["cache-control"] == "no-store"
        if answer.body and answer.headers["content-type"] == "application/json":
            assert isinstance(answer.json(), dict)
        if answer.status != 200:
            assert SECRET.encode() not in answer.body
        assert b"Traceback" not in answer.body


# --- bodies -----------------------------------------------------------------------------------

texts = st.text(max_size=8) | st.sampled_from([SECRET, "", "\0", "é", "𝄞", "a" * 2000, "record-1"])
numbers = (
    st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, -0.0])
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A whole request in which things are replaced, removed and added."""
    body = json.loads(json.dumps(WHOLE))
    for _ in range(draw(st.integers(1, 4))):
        at: Any = body
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            match draw(st.sampled_from(["replace", "remove", "add"])):
                case "replace":
                    at[key] = draw(values)
                case "remove":
                    del at[key]
                case _ if isinstance(at, dict):
                    at[draw(texts)] = draw(values)
                case _:
                    at.append(draw(values))
            break
    return body


@settings(suppress_health_check=_busy)
@given(path=st.sampled_from(PATHS), body=mutated())
@example(path=PATHS[1], body=5)
@example(path=PATHS[0], body={**ASKED, "context": {"a": "\ud800"}})
def test_wrong_values_anywhere_are_answered(service: Reached, path: str, body: Any):
    answers = exchanged(service, request(path, json.dumps(body).encode()))
    assert len(answers) == 1
    check(answers)
    assert answers[0].status in (200, 400, 403)


@settings(suppress_health_check=_busy)
@given(path=st.sampled_from(PATHS), data=st.data())
def test_bodies_with_bytes_changed_are_answered(service: Reached, path: str, data: st.DataObject):
    body = bytearray(json.dumps(WHOLE).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"]", b"\\u", b":"]))
        body[at : at + data.draw(st.integers(0, 3))] = piece
    answers = exchanged(service, request(path, bytes(body)))
    assert len(answers) == 1
    check(answers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"subject":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"evaluations":[' + b"{}," * 5_000 + b"{}]}",
        b'{"evaluations":[' + b"[" * 100_000,
        b'{"context":{"a":' + b"9" * 500_000 + b"}}",
        b'{"context":{' + b",".join(b'"%d":1' % n for n in range(50_000)) + b"}}",
        b'{"a":"' + b"\\u0041" * 100_000 + b'"}',
        b" " * 900_000,
        b"\xff" * 1_000,
        b"\x00" * 1_000,
        json.dumps({**ASKED, "resource": {"type": SECRET * 200, "id": "1"}}).encode(),
    ],
    ids=lambda body: f"{body[:14].decode('latin-1')}-{len(body)}",
)
def test_bodies_that_would_cost_much_cost_little(service: Reached, path: str, body: bytes):
    answers = exchanged(service, request(path, body))
    assert [answer.status for answer in answers] in ([400], [413])
    check(answers)


def test_a_body_larger_than_is_read_is_refused_before_it_is_read(service: Reached):
    head = request(PATHS[0], b"", more=b"").replace(
        b"Content-Length: 0", b"Content-Length: 99999999"
    )
    answers = exchanged(service, head)
    assert [answer.status for answer in answers] == [413]


# --- heads, order, ends -----------------------------------------------------------------------

GOOD = request(PATHS[0], json.dumps(ASKED).encode())
tokens = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
odd_bytes = st.binary(max_size=40) | tokens.map(str.encode)
header_lines = st.one_of(
    st.tuples(tokens, tokens).map(lambda pair: f"{pair[0]}: {pair[1]}".encode()),
    st.tuples(odd_bytes, odd_bytes).map(lambda pair: pair[0] + b":" + pair[1]),
    st.sampled_from(
        [
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Content-Length: +5",
            b"Content-Length: 5, 5",
            b"Content-Length: 0x5",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding : chunked",
            b"Content-Encoding: gzip",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: h2c",
            b"Expect: 100-continue",
            b"Expect: 200-ok",
            b"Host: a",
            b"Host:",
            b"X-Request-ID: a\x0bb",
            b"X-Request-ID: " + b"x" * 4_000,
            b"X-Request-ID: \xc3\xa9",
            b"traceparent: 00-00000000000000000000000000000000-0000000000000000-00",
            b"traceparent: " + b"f" * 300,
            b"Authorization: Basic eA==",
            b"Authorization: Bearer",
            b"Authorization: Bearer \xff",
            b"Content-Type: text/plain",
            b" folded",
            b"\tfolded",
            b": nothing",
            b"no colon",
            b"\x00",
        ]
    ),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request with odd things about it."""
    match draw(st.integers(0, 4)):
        case 0:
            return GOOD
        case 1:
            lines = draw(st.lists(header_lines, max_size=4))
            return request(
                PATHS[0],
                json.dumps(ASKED).encode(),
                more=b"".join(
                    line + draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
                    for line in lines
                ),
            )
        case 2:
            method = draw(
                st.sampled_from(
                    [b"GET", b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"CONNECT", b"post", b"PRI"]
                )
                | odd_bytes
            )
            target = draw(
                st.sampled_from(
                    [
                        *(p.encode() for p in PATHS),
                        b"/healthz",
                        b"/readyz",
                        b"/metrics",
                        b"*",
                        b"//",
                        b"/..",
                        b"http://a/healthz",
                        b"/healthz?x=" + SECRET.encode(),
                        b"/%00",
                        b"/" + b"a" * 20_000,
                    ]
                )
                | odd_bytes
            )
            version = draw(
                st.sampled_from(
                    [
                        b"HTTP/1.1",
                        b"HTTP/1.1",
                        b"HTTP/1.0",
                        b"HTTP/2.0",
                        b"HTTP/1.9",
                        b"http/1.1",
                        b"",
                    ]
                )
            )
            return b"%b %b %b\r\nHost: x\r\n\r\n" % (method, target, version)
        case 3:
            chunks = draw(
                st.lists(
                    st.sampled_from(
                        [
                            b"5\r\nhello\r\n",
                            b"0\r\n\r\n",
                            b"5\r\nhel",
                            b"-1\r\n",
                            b"FFFFFFFFFFFFFFFFF\r\n",
                            b"5;x=y\r\nhello\r\n",
                            b"0\r\nX: y\r\n\r\n",
                            b"\r\n",
                            b"zz\r\n",
                        ]
                    ),
                    max_size=4,
                )
            )
            head = GOOD.partition(b"\r\n\r\n")[0].replace(b"Content-Length", b"X-Length")
            return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)
        case _:
            return draw(st.binary(min_size=1, max_size=200))


@settings(suppress_health_check=_busy)
@given(sent=st.lists(requests(), min_size=1, max_size=4).map(b"".join), cut=st.integers(0, 400))
@example(sent=GOOD * 50, cut=0)
@example(sent=GOOD * 3, cut=20)
@example(sent=b"\r\n" * 1_000, cut=0)
@example(sent=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, cut=0)
@example(sent=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", cut=0)
@example(sent=b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000, cut=0)
@example(sent=b"GET /" + b"a" * 100_000, cut=0)
def test_whatever_is_sent_is_answered_in_order_or_closed(service: Reached, sent: bytes, cut: int):
    sent = sent[: len(sent) - cut] if cut < len(sent) and cut < 200 else sent
    answers = exchanged(service, sent, to_head=b"HEAD" in sent)
    check(answers)
    if sent.startswith(GOOD):
        assert answers[0].status == 200


def test_pipelined_questions_are_answered_in_their_order(service: Reached):
    names = [f"id-{n}" for n in range(40)]
    sent = b"".join(
        request(PATHS[0], json.dumps(ASKED).encode(), more=f"X-Request-ID: {name}\r\n".encode())
        for name in names
    )
    answers = exchanged(service, sent)
    assert [answer.headers["x-request-id"] for answer in answers] == names
    assert {answer.status for answer in answers} <= {200, 503}


@settings(suppress_health_check=_busy)
@given(value=st.binary(max_size=200))
@example(value=b"a\r\nX-Injected: 1")
@example(value=b"a\nX-Injected: 1")
@example(value=b"a\rX-Injected: 1")
@example(value="é".encode())
def test_a_request_id_never_becomes_anything_else(service: Reached, value: bytes):
    sent = request(PATHS[0], json.dumps(ASKED).encode(), more=b"X-Request-ID: " + value + b"\r\n")
    for answer in exchanged(service, sent):
        assert "x-injected" not in answer.headers
        if "x-request-id" in answer.headers:
            # of a value that ends its own line, what comes before the end
            line = re.split(rb"[\r\n]", value)[0].strip(b" \t")
            assert answer.headers["x-request-id"].encode("latin-1") == line


def test_it_decides_as_it_did(service: Reached):
    assert_decides(service)
