"""The HTTPS door with real sockets: order, limits, slow and hostile callers, overload, its end."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chartgate.adapters.decision_callers import PER_WINDOW
from chartgate.adapters.decision_doors import Doors, NotLoopback, Opening, check_opening
from chartgate.adapters.decision_limits import DEFAULT, Limits
from chartgate.adapters.decision_memory import MemoryNode, anyone
from chartgate.adapters.decision_tls import CERTIFICATE, KEY, Tls, own_certificate
from chartgate.app.question import Question
from chartgate.app.ruling import Reason, Ruling
from chartgate.errors import Misconfigured
from chartgate.model.service import Service

pytestmark = [pytest.mark.system, pytest.mark.timeout(20)]

TOKEN = "service-token-1"
Asker = Callable[..., Any]


def rule(question: Question, service: Service) -> Ruling:
    """Who is called alice may; the id of the resource is said back as a policy's."""
    allowed = question.subject.id == "alice"
    reason = None if allowed else Reason("no_permit", "no policy permits this")
    return Ruling(allowed=allowed, determining=(question.resource.id,), reason=reason)


@asynccontextmanager
async def served(limits: Limits = DEFAULT, **opening: Any) -> AsyncIterator[tuple[Doors, Any]]:
    node = MemoryNode(rule, {TOKEN: anyone("app"), "service-token-2": anyone("app")})
    doors = Doors(
        node, Opening(plain="tls" not in opening, limits=limits, **opening), pager_key=bytes(32)
    )
    await doors.open()
    try:
        yield doors, node
    finally:
        await doors.close()


def question(resource: str = "1", subject: str = "alice") -> bytes:
    return json.dumps(
        {
            "subject": {"type": "User", "id": subject},
            "action": {"name": "view"},
            "resource": {"type": "Record", "id": resource},
        }
    ).encode()


def post(
    body: bytes,
    *lines: str,
    token: str | None = TOKEN,
    path: str = "/access/v1/evaluation",
    length: bool = True,
) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *lines]
    if token is not None:
        head.append(f"Authorization: Bearer {token}")
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


class Caller:
    """One connection; reads one answer at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:-2])}
        size = int(headers.get("content-length", 0)) if body else 0
        return int(head[0].split()[1]), headers, await self.reader.readexactly(size)

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(data)
        return await self.answer()

    async def ended(self) -> bool:
        return await self.reader.read() == b""


@asynccontextmanager
async def calling(doors: Doors, **tls: Any) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port, **tls)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()


async def test_answers_come_in_the_order_of_the_questions():
    async with served() as (doors, node), calling(doors) as caller:
        node.gate = asyncio.Event()
        asked = b"".join(post(question(str(n))) for n in range(200))
        caller.writer.write(asked + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        assert len(node.log) == DEFAULT.pipeline  # no more of one caller is under way at once
        node.gate.set()
        for number in range(200):
            status, _, body = await caller.answer()
            assert (status, json.loads(body)["context"]["policies"]) == (200, [str(number)])
        assert (await caller.answer())[2] == b'{"status":"ok"}'


async def test_an_answer_says_where_it_is_recorded_and_echoes_the_request_id():
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with served() as (doors, node), calling(doors) as caller:
        sent = post(question(), "X-Request-ID: r-1", f"traceparent: 00-{trace}-b7ad6b7169203331-01")
        status, headers, body = await caller.ask(sent)
        assert status == 200
        assert json.loads(body)["context"]["audit"] == {"log": "memory.invalid/log", "index": 0}
        assert headers["x-request-id"] == "r-1"
        assert headers["traceresponse"].startswith(f"00-{trace}-")
        assert headers["cache-control"] == "no-store"
        assert node.log[0][0].trace == trace


async def test_a_batch_ends_where_its_semantic_says():
    items = [{"subject": {"type": "User", "id": name}} for name in ("alice", "bob", "alice")]
    body = json.loads(question())
    body |= {"evaluations": items, "options": {"evaluations_semantic": "deny_on_first_deny"}}
    async with served() as (doors, node), calling(doors) as caller:
        path = "/access/v1/evaluations"
        answer = json.loads((await caller.ask(post(json.dumps(body).encode(), path=path)))[2])
        assert [one["decision"] for one in answer["evaluations"]] == [True, False]
        assert len(node.log) == 1
        body["evaluations"] = [items[0], {"subject": 7}, items[0]]
        answer = json.loads((await caller.ask(post(json.dumps(body).encode(), path=path)))[2])
        assert [one["decision"] for one in answer["evaluations"]] == [True, False]
        del body["options"]
        answer = json.loads((await caller.ask(post(json.dumps(body).encode(), path=path)))[2])
        assert [one["decision"] for one in answer["evaluations"]] == [True, False, True]


async def test_whoever_is_not_known_learns_only_that_and_is_on_record():
    async with served() as (doors, node), calling(doors) as caller:
        status, headers, _ = await caller.ask(post(question(), token=None))
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="chartgate"')
        status, headers, _ = await caller.ask(post(question(), token="wrong"))
        assert status == 401
        assert 'error="invalid_token"' in headers["www-authenticate"]
        assert (await caller.ask(post(b"not JSON", token="wrong")))[0] == 401
        await asyncio.sleep(0)
        assert [entry[0] for entry in node.log] == [
            "no credential",
            "a credential that is nobody's",
        ]


async def test_a_flood_of_wrong_tokens_is_a_number_in_the_log():
    async with served() as (doors, node), calling(doors) as known:
        assert (await known.ask(post(question())))[0] == 200
        statuses = []
        for _ in range(3):
            async with calling(doors) as caller:
                statuses += [
                    (await caller.ask(post(question(), token=f"wrong{n}")))[0] for n in range(10)
                ]
        assert statuses.count(401) == PER_WINDOW
        assert statuses.count(429) == 30 - PER_WINDOW
        assert (await known.ask(post(question())))[0] == 200  # at the same address
    assert [entry[0] for entry in node.log if isinstance(entry[0], str)] == [
        "a credential that is nobody's",
        "a credential that is nobody's, 29 more times",
    ]


async def test_two_tokens_of_a_service_are_valid_at_once_until_one_is_taken_back():
    async with served() as (doors, node), calling(doors) as caller:
        for token in (TOKEN, "service-token-2"):
            assert (await caller.ask(post(question(), token=token)))[0] == 200
        del node.services[TOKEN]
        assert (await caller.ask(post(question())))[0] == 401
        assert (await caller.ask(post(question(), token="service-token-2")))[0] == 200


@pytest.mark.parametrize(
    ("data", "status", "ends"),
    [
        (b"GET /access/v1/evaluation HTTP/1.1\r\nHost: x\r\n\r\n", 405, False),
        (b"DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405, False),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404, False),
        (post(b"{", path="/access/v1/evaluation"), 400, False),
        (post(b""), 400, False),
        (post(question(), "Content-Encoding: gzip"), 415, False),
        (post(question()).replace(b"application/json", b"text/plain"), 400, False),
        (post(b"[" * 100_000), 400, False),
        (post(question(), "Transfer-Encoding: chunked"), 400, True),
        (post(question(), "Content-Length: 1"), 400, True),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400, True),
        (post(b"", "Content-Length: 9999999", length=False), 413, True),
        (post(b"", "Content-Length: 1000000", token="wrong", length=False), 401, True),
        (b"GET /" + b"a" * 20_000, 414, True),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 431, True),
    ],
)
async def test_what_is_not_answered_is_refused_cheaply(data: bytes, status: int, ends: bool):
    async with served() as (doors, _), calling(doors) as caller:
        found, headers, body = await caller.ask(data)
        assert found == status
        assert json.loads(body)["error"]
        if status == 405:
            assert headers["allow"] in {"POST", "GET, HEAD"}
        if ends:
            assert headers["connection"] == "close"
            assert await caller.ended()
        else:
            assert (await caller.ask(post(question())))[0] == 200


async def test_a_smuggled_request_is_never_answered():
    hidden = post(question("hidden"))
    async with served() as (doors, node), calling(doors) as caller:
        caller.writer.write(
            post(b"0\r\n\r\n" + hidden, "Transfer-Encoding: chunked", "Content-Length: 5")
        )
        assert (await caller.answer())[0] == 400
        assert await caller.ended()
        assert node.log == []


async def test_a_body_in_chunks_and_one_that_waits_for_leave_are_read():
    body = question()
    async with served() as (doors, _), calling(doors) as caller:
        caller.writer.write(post(b"", "Transfer-Encoding: chunked", length=False))
        for byte in body:
            caller.writer.write(b"1\r\n%c\r\n" % byte)
        assert (await caller.ask(b"0\r\n\r\n"))[0] == 200
        caller.writer.write(post(body, "Expect: 100-continue")[: -len(body)])
        assert (await caller.answer())[0] == 100
        assert (await caller.ask(body))[0] == 200
        caller.writer.write(post(body, "Expect: 100-continue", token="wrong")[: -len(body)])
        assert (await caller.answer())[0] == 401  # before the body


async def test_head_is_get_without_a_body_and_close_is_obeyed():
    async with served() as (doors, _), calling(doors) as caller:
        caller.writer.write(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await caller.answer(body=False)
        assert (status, headers["content-length"]) == (200, "15")
        status, headers, _ = await caller.ask(post(question(), "Connection: close"))
        assert (status, headers["connection"]) == (200, "close")
        assert await caller.ended()


async def test_the_slow_are_cut_off():
    limits = replace(DEFAULT, head_seconds=0.2, body_seconds=0.2, idle_seconds=0.3)
    async with served(limits) as (doors, _):
        async with calling(doors) as head, calling(doors) as body, calling(doors) as idle:
            head.writer.write(b"POST /access/v1/evaluation HTTP/1.1\r\n")
            body.writer.write(post(question())[:-10])
            for _ in range(4):  # a byte now and then does not help
                await asyncio.sleep(0.1)
                head.writer.write(b"X")
            assert (await head.answer())[0] == 408
            assert (await body.answer())[0] == 408
            assert await idle.ended()
        assert doors.metrics.counters["cut_off"] == 3


async def test_whoever_does_not_read_is_read_no_more_and_cut_off():
    limits = replace(DEFAULT, unanswered_bytes=4_096, stalled_seconds=0.2)
    async with served(limits) as (doors, _), calling(doors) as caller:
        caller.writer.transport.pause_reading()
        page = b"GET /.well-known/authzen-configuration HTTP/1.1\r\nHost: localhost\r\n\r\n"
        caller.writer.write(page * 40_000)
        for _ in range(60):
            await asyncio.sleep(0.05)
            if not doors.http.connections:
                break
        assert not doors.http.connections


async def test_there_is_an_end_to_connections():
    async with (
        served(replace(DEFAULT, connections=2)) as (doors, _),
        calling(doors) as first,
        calling(doors) as second,
    ):
        for known in (first, second):
            assert (await known.ask(post(question())))[0] == 200
        async with calling(doors) as third:
            assert (await third.answer())[0] == 503
            assert await third.ended()
        assert (await first.ask(post(question())))[0] == 200


async def test_under_overload_some_are_refused_at_once_and_the_others_answered():
    async with served(replace(DEFAULT, in_flight=8)) as (doors, node), calling(doors) as caller:
        node.gate = asyncio.Event()
        caller.writer.write(b"".join(post(question()) for _ in range(8)))
        async with calling(doors) as late:
            await asyncio.sleep(0.02)
            status, headers, body = await late.ask(post(b"not even JSON"))
            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(body)["error"] == "overloaded"
            node.gate.set()
            assert [(await caller.answer())[0] for _ in range(8)] == [200] * 8
            assert (await late.ask(post(question())))[0] == 200


async def test_a_decision_that_is_not_recorded_in_time_is_none():
    async with served(replace(DEFAULT, recording_seconds=0.2)) as (doors, node):
        node.gate = asyncio.Event()
        async with calling(doors) as caller:
            status, _, body = await caller.ask(post(question()))
            assert (status, json.loads(body)["error"]) == (503, "log_unavailable")


async def test_a_node_that_is_not_ready_decides_nothing_and_says_why():
    async with served() as (doors, node), calling(doors) as caller:
        node.reasons = ("the control plane was not heard of for 15 s",)
        status, headers, _ = await caller.ask(post(question()))
        assert (status, headers["retry-after"]) == (503, "1")
        status, _, body = await caller.ask(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, json.loads(body)["reasons"]) == (503, list(node.reasons))
        assert (await caller.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200


async def test_a_fault_of_ours_is_500_without_a_word_of_what_was_asked(
    caplog: pytest.LogCaptureFixture,
):
    async with served() as (doors, node), calling(doors) as caller:
        node._rule = lambda question, service: {}[question.resource.id]
        status, _, body = await caller.ask(post(question("MRN-0815")))
        assert (status, json.loads(body)["error"]) == (500, "failed")
        assert "MRN-0815" not in caplog.text + body.decode()
        assert "KeyError in test_decision_http" in caplog.text.replace("tests.system.", "")


async def test_the_numbers_are_open_metrics(tmp_path: Path):
    async with served(metrics=tmp_path) as (doors, _), calling(doors) as caller:
        await caller.ask(post(question()))
        await caller.ask(post(question(subject="eve")))
        _, headers, body = await caller.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        text = body.decode()
        assert headers["content-type"].startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        for outcome in ("allow", "deny"):
            labels = f'worker="worker-1",outcome="{outcome}",action="view",service="app"'
            assert f"chartgate_decisions_total{{{labels}}} 1\n" in text


async def test_an_orderly_end_answers_what_is_under_way_and_takes_nothing_new():
    async with served() as (doors, node), calling(doors) as caller, calling(doors) as idle:
        node.gate = asyncio.Event()
        caller.writer.write(post(question()))
        await asyncio.sleep(0.02)
        ending = asyncio.create_task(doors.close())
        assert await idle.ended()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", doors.port)
        node.gate.set()
        status, headers, _ = await caller.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await caller.ended()
        await ending


def test_without_tls_only_this_machine_is_listened_to():
    check_opening(Opening(plain=True, host="::1"))
    with pytest.raises(NotLoopback):
        check_opening(Opening(plain=True, host="0.0.0.0"))
    with pytest.raises(Misconfigured):
        check_opening(Opening())


# --- TLS -------------------------------------------------------------------------------------


def client(folder: Path) -> tuple[Path, Path]:
    """An authority of callers, and a certificate and key of its own, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "billing")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "callers.pem").write_bytes(pem)
    (folder / "caller.pem").write_bytes(pem + secret)
    return folder / "callers.pem", folder / "caller.pem"


async def test_tls_by_an_authority_of_its_own_and_callers_by_certificate(tmp_path: Path):
    authority = own_certificate(tmp_path, datetime.now(UTC))
    callers, certificate = client(tmp_path)
    tls = Tls(tmp_path / CERTIFICATE, tmp_path / KEY, callers=callers)
    trust = ssl.create_default_context(cafile=str(authority))
    with_certificate = ssl.create_default_context(cafile=str(authority))
    with_certificate.load_cert_chain(certificate)
    async with served(tls=tls) as (doors, node):
        node.certificates["billing"] = anyone("billing")
        for name in ("localhost", "127.0.0.1"):
            async with calling(doors, ssl=trust, server_hostname=name) as caller:
                assert (await caller.ask(post(question())))[0] == 200
                assert caller.writer.get_extra_info("ssl_object").version() == "TLSv1.3"
                assert (await caller.ask(post(question(), token=None)))[0] == 401
        async with calling(doors, ssl=with_certificate, server_hostname="localhost") as caller:
            assert (await caller.ask(post(question(), token=None)))[0] == 200
            assert node.log[-1][1].service.name == "billing"
            assert node.log[-1][1].channel == "https"
            del node.certificates["billing"]
            assert (await caller.ask(post(question(), token=None)))[0] == 401
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(
                "127.0.0.1",
                doors.port,
                ssl=ssl.create_default_context(),
                server_hostname="localhost",
            )


async def test_certificates_are_read_again_and_a_bad_one_changes_nothing(tmp_path: Path):
    now = datetime.now(UTC)
    authority = own_certificate(tmp_path, now)
    tls = Tls(tmp_path / CERTIFICATE, tmp_path / KEY)
    trust = ssl.create_default_context(cafile=str(authority))

    async def number(doors: Doors) -> str:
        async with calling(doors, ssl=trust, server_hostname="localhost") as caller:
            return caller.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]

    async with served(tls=tls) as (doors, _):
        first = await number(doors)
        own_certificate(tmp_path, now)  # still good: it stays
        assert await number(doors) == first
        own_certificate(tmp_path, now, ("pdp.hospital.example",))
        tls.reload()
        second = await number(doors)
        assert second != first
        (tmp_path / CERTIFICATE).write_bytes(b"broken")
        with pytest.raises(Misconfigured):
            tls.reload()
        assert await number(doors) == second


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path):
    own_certificate(tmp_path, datetime.now(UTC))
    (tmp_path / KEY).chmod(0o640)
    with pytest.raises(Misconfigured, match="chmod 0600"):
        Tls(tmp_path / CERTIFICATE, tmp_path / KEY)
