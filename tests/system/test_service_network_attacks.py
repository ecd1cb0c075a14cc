"""The decision service against strangers: on the network, and on the same computer as another user."""

import asyncio
import contextlib
import http.client
import json
import shlex
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
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

from chartgate.adapters import decision_handshakes
from chartgate.adapters.decision_doors import Doors, Opening
from chartgate.adapters.decision_limits import DEFAULT, Limits
from chartgate.adapters.decision_memory import MemoryNode, anyone
from chartgate.adapters.decision_metrics import Metrics
from chartgate.adapters.decision_service import DecisionService, ServiceConfig
from chartgate.adapters.decision_tls import CERTIFICATE, KEY, Tls, own_certificate
from chartgate.adapters.decision_turns import weight_of
from chartgate.app.node_asked import NodeNotReady
from chartgate.app.ruling import Ruling
from chartgate.errors import Misconfigured

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]

POLICIES = Path(__file__).resolve().parents[1] / "cases" / "authzen" / "certification"


def config(tmp_path: Path, **more: Any) -> ServiceConfig:
    services = tmp_path / "services.toml"
    services.write_text("[services]\n")
    return ServiceConfig(
        root=str(tmp_path / "state"), port=0, policies=str(POLICIES), services=str(services), **more
    )


def of_process(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


class TestThisComputer:
    async def test_a_folder_that_others_can_write_does_not_become_our_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # whoever operates it may be anywhere, in /tmp for instance
        anywhere = tmp_path / "anywhere"
        anywhere.mkdir()
        for module in ("uvloop", "msgspec", "chartgate"):
            (anywhere / f"{module}.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'w')\n")
        monkeypatch.chdir(anywhere)
        async with DecisionService(config(tmp_path)) as service:
            [pid] = service.pids.values()
            assert not (tmp_path / "taken").exists()
            # neither tokens nor patients in a memory image; files enough beside all connections
            limits = of_process(pid, "limits").splitlines()
            cores = next(line for line in limits if line.startswith("Max core file size"))
            assert cores.split()[4] == "0"
            files = next(line for line in limits if line.startswith("Max open files"))
            assert files.split()[3] == min(files.split()[4], "65536", key=int)
            # what it is told is on its standard input, not where every user can read it
            assert str(tmp_path) not in of_process(pid, "cmdline")


class TestOpenFiles:
    def test_connections_leave_files_for_the_log_and_the_databases(self) -> None:
        script = (
            "import resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1024))\n"
            "from chartgate.adapters.decision_process import fitted, harden\n"
            "from chartgate.adapters.decision_limits import DEFAULT\n"
            "harden()\n"
            "found = fitted(DEFAULT)\n"
            "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0],"
            " found.connections, found.connections_per_address)"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["1024", "384", "192"]


class TestAFullDisk:
    def test_nothing_is_answered_that_is_not_recorded_and_the_command_ends_to_be_started_again(
        self, tmp_path: Path
    ) -> None:
        state = tmp_path / "state"
        command = [sys.executable, "-P", "-m", "chartgate", "serve", "--json", "--plain-http",
                   "--listen", "127.0.0.1:0", "--policies", POLICIES,
                   "--entities", POLICIES / "entities.json", "--state", state]  # fmt: skip
        limited = f"ulimit -f 300; exec {shlex.join(map(str, command))}"
        with subprocess.Popen(
            ["/bin/sh", "-c", limited], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            token = (state / "tokens" / "app").read_text().strip()
            found = list(asked_until_refused(url, token))
            assert found[-1] == (503, "log_unavailable")
            assert {status for status, _ in found[:-1]} == {200}
            assert process.wait(15) == 1
            assert process.stderr is not None
            assert "audit log" in process.stderr.read()

    def test_numbers_that_cannot_be_kept_stop_nothing(self, tmp_path: Path) -> None:
        metrics = Metrics("w", tmp_path / "is not there")
        metrics.save()
        assert b"# EOF" in metrics.text()


def asked_until_refused(url: str, token: str) -> Iterator[tuple[int, str]]:
    """Batches, until one cannot be recorded."""
    items = [{"resource": {"type": "record", "id": f"{n:04}{'x' * 60}"}} for n in range(300)]
    asked = {"subject": {"type": "user", "id": "a"}, "action": {"name": "read"}}
    body = json.dumps({**asked, "evaluations": items})
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    link = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    for _ in range(50):
        link.request("POST", "/access/v1/evaluations", body, head)
        answer = link.getresponse()
        said = json.loads(answer.read())
        yield answer.status, said.get("error", "")
        if answer.status != 200:
            break
    link.close()


TOKEN = "token-1"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def served(limits: Limits = DEFAULT, **opening: Any) -> AsyncIterator[tuple[Doors, Any]]:
    node = MemoryNode(
        lambda question, service: Ruling(allowed=True), {TOKEN: anyone("app"), "s": anyone("s")}
    )
    doors = Doors(
        node, Opening(plain="tls" not in opening, limits=limits, **opening), pager_key=bytes(32)
    )
    await doors.open()
    try:
        yield doors, node
    finally:
        await doors.close()


@asynccontextmanager
async def calling(doors: Doors, **more: Any) -> AsyncIterator[Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port, **more)
    try:
        yield reader, writer
    finally:
        writer.close()


def post(body: Any, path: str = "evaluation", *, token: str | None = TOKEN) -> bytes:
    data = json.dumps(body).encode()
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST /access/v1/{path} HTTP/1.1\r\nHost: localhost\r\n{bearer}"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


QUESTION = {
    "subject": {"type": "User", "id": "a"},
    "action": {"name": "view"},
    "resource": {"type": "Record", "id": "1"},
}


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-L")
    )
    return int(head.split()[1]), await reader.readexactly(length)


class TestConnections:
    async def test_pages_behind_many_questions_are_all_answered(self) -> None:
        async with served() as (doors, node), calling(doors) as (reader, writer):
            node.gate = asyncio.Event()
            writer.write(post(QUESTION) * DEFAULT.pipeline + GET * 2_000)
            await asyncio.sleep(0.05)
            node.gate.set()
            for _ in range(DEFAULT.pipeline + 2_000):
                assert (await answer(reader))[0] == 200

    async def test_one_who_asks_for_thousands_of_pages_lets_others_have_their_turn(self) -> None:
        async with served() as (doors, _), calling(doors) as (_, greedy), calling(doors) as other:
            greedy.write(GET * 5_000)
            other[1].write(GET)
            assert (await answer(other[0]))[0] == 200
            assert doors.metrics._requests[("other", 200)] < 2_000

    async def test_strangers_do_not_keep_callers_out(self) -> None:
        limits = replace(DEFAULT, connections=20, connections_per_address=10)
        async with served(limits) as (doors, _), calling(doors) as (reader, writer):
            writer.write(post(QUESTION))
            assert (await answer(reader))[0] == 200
            idle = [
                await asyncio.open_connection(
                    "127.0.0.1", doors.port, local_addr=(f"127.0.0.{2 + n % 3}", 0)
                )
                for n in range(40)
            ]
            async with calling(doors) as (late, asking):
                asking.write(post(QUESTION))
                assert (await answer(late))[0] == 200
            writer.write(post(QUESTION))  # who is known stays
            assert (await answer(reader))[0] == 200
            assert len(doors.http.connections) <= 20
            for _, other in idle:
                other.close()

    async def test_strangers_are_not_waited_for_as_long_as_callers(self) -> None:
        limits = replace(DEFAULT, stranger_seconds=0.2)
        async with (
            served(limits) as (doors, _),
            calling(doors) as (reader, writer),
            calling(doors) as (stranger, asking),
        ):
            writer.write(post(QUESTION))
            asking.write(GET + post(QUESTION, token=None) + post(QUESTION, token="t"))
            assert [(await answer(stranger))[0] for _ in range(3)] == [200, 401, 401]
            assert (await answer(reader))[0] == 200
            assert await stranger.read() == b""
            writer.write(post(QUESTION))
            assert (await answer(reader))[0] == 200

    def test_an_item_of_two_bytes_counts_as_a_decision(self) -> None:
        batch = json.dumps({**QUESTION, "evaluations": [{}] * 1_000}).encode()
        assert weight_of("evaluations", batch) > 50 * weight_of("evaluation", batch[:500])


class TestSearches:
    async def test_searches_leave_decisions_their_time_and_each_other_room(self) -> None:
        async with served() as (doors, node), calling(doors) as one, calling(doors) as other:
            held = asyncio.Event()

            async def search(*_: Any, **__: Any) -> Any:
                await held.wait()
                raise NodeNotReady("it was held")

            node.search = search
            asked = {**QUESTION, "subject": {"type": "User"}}
            one[1].write(post(asked, "search/subject") * 60)
            other[1].write(post(asked, "search/subject", token="s"))
            await asyncio.sleep(0.06)  # longer than a log may be behind
            async with calling(doors) as (reader, writer):
                writer.write(post(QUESTION))
                assert (await answer(reader))[0] == 200
            assert doors.metrics.counters["refused_overload"] == 58
            assert len(doors.turns.under_way) == 3
            held.set()
            assert b"not_ready" in (await answer(other[0]))[1]
            found = [(await answer(one[0]))[1] for _ in range(60)]
            assert sum(b"overloaded" in body for body in found) == 58
            one[1].write(post(asked, "search/subject"))
            assert b"not_ready" in (await answer(one[0]))[1]


class Authority:
    """An authority for callers' certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._made(self.key, self.name, days=9, is_authority=True))

    def _made(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        *,
        days: float,
        is_authority: bool = False,
        names: tuple[x509.GeneralName, ...] = (),
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)

    def caller(
        self, trust: Path, *names: x509.GeneralName, common: str = "billing", days: float = 1
    ) -> ssl.SSLContext:
        """What a caller with a certificate of this authority connects with."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        file = self.folder / "caller.pem"
        kept = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file.write_bytes(self._made(key, subject, days=days, names=names) + kept)
        context = ssl.create_default_context(cafile=str(trust))
        context.load_cert_chain(file)
        return context


async def asked_by(doors: Doors, context: ssl.SSLContext) -> int:
    """Status of the answer to a caller without a token; 0 where it is not let in at all."""
    try:
        async with calling(doors, ssl=context, server_hostname="localhost") as (reader, writer):
            writer.write(post(QUESTION, token=None))
            return (await answer(reader))[0]
    except (OSError, asyncio.IncompleteReadError):
        return 0


class TestCertificates:
    @pytest.fixture
    def ours(self, tmp_path: Path) -> Path:
        return own_certificate(tmp_path, datetime.now(UTC))

    async def test_an_authority_that_is_taken_away_is_trusted_no_more(
        self, tmp_path: Path, ours: Path
    ) -> None:
        old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
        trusted = tmp_path / "callers.pem"
        trusted.write_bytes(old.file.read_bytes())
        tls = Tls(tmp_path / CERTIFICATE, tmp_path / KEY, callers=trusted)
        async with served(tls=tls) as (doors, node):
            node.certificates["billing"] = anyone("billing")
            before, after = old.caller(ours), new.caller(ours)
            assert [await asked_by(doors, one) for one in (before, after)] == [200, 0]
            trusted.write_bytes(new.file.read_bytes())
            tls.reload()
            assert [await asked_by(doors, one) for one in (before, after)] == [0, 200]
            trusted.write_bytes(b"no certificate")
            with pytest.raises(Misconfigured):
                tls.reload()
            assert [await asked_by(doors, one) for one in (before, after)] == [0, 200]

    async def test_a_common_name_is_not_believed_beside_names_of_another_kind(
        self, tmp_path: Path, ours: Path
    ) -> None:
        people = Authority(tmp_path, "people")
        tls = Tls(tmp_path / CERTIFICATE, tmp_path / KEY, callers=people.file)
        async with served(tls=tls) as (doors, node):
            node.certificates["billing"] = anyone("billing")
            for names, status in (
                ((), 200),
                ((x509.RFC822Name("mallory@people.example"),), 401),
                ((x509.DNSName("mallory"), x509.DNSName("billing")), 401),
                ((x509.DNSName("*"),), 401),
                ((x509.DNSName("billing\0.example"),), 401),
            ):
                assert await asked_by(doors, people.caller(ours, *names)) == status

    async def test_a_certificate_that_ends_ends_the_credit_of_a_kept_connection(
        self, tmp_path: Path, ours: Path
    ) -> None:
        authority = Authority(tmp_path, "callers")
        tls = Tls(tmp_path / CERTIFICATE, tmp_path / KEY, callers=authority.file)
        async with served(tls=tls) as (doors, node):
            node.certificates["billing"] = anyone("billing")
            context = authority.caller(ours)
            async with calling(doors, ssl=context, server_hostname="localhost") as (reader, writer):
                writer.write(post(QUESTION, token=None))
                assert (await answer(reader))[0] == 200
                [connection] = doors.http.connections
                left = connection.peer.until - datetime.now(UTC).timestamp()
                assert 86_000 < left <= 86_400
                # a day later, as it were
                connection.peer = connection.peer._replace(until=datetime.now(UTC).timestamp())
                writer.write(post(QUESTION, token=None))
                assert (await answer(reader))[0] == 401

    @pytest.mark.parametrize("said", ["nothing", "half", "whole"])
    async def test_who_begins_a_handshake_and_leaves_it_gives_way_to_who_waits(
        self, tmp_path: Path, ours: Path, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        monkeypatch.setattr(decision_handshakes, "PRESSED_SECONDS", 0.05)
        tls = Tls(tmp_path / CERTIFICATE, tmp_path / KEY)
        context = ssl.create_default_context(cafile=str(ours))
        hello = greeting(context)
        sent = {"nothing": b"", "half": hello[:-1], "whole": hello}[said]
        limits = replace(DEFAULT, handshakes=2, handshakes_waiting=20)
        async with served(limits, tls=tls) as (doors, _):
            left = [
                await asyncio.open_connection(
                    "127.0.0.1", doors.port, local_addr=(f"127.0.0.{2 + n % 2}", 0)
                )
                for n in range(30 if said == "nothing" else 2)
            ]
            for _, writer in left:
                writer.write(sent)
            async with asyncio.timeout(DEFAULT.handshake_seconds / 2):
                assert await asked_by(doors, context) == 401
            for _, writer in left:
                writer.close()

    async def test_who_does_not_speak_tls_is_let_go_at_once(
        self, tmp_path: Path, ours: Path
    ) -> None:
        async with (
            served(tls=Tls(tmp_path / CERTIFICATE, tmp_path / KEY)) as (doors, _),
            calling(doors) as (reader, writer),
            asyncio.timeout(2),
        ):
            writer.write(GET)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""


def greeting(context: ssl.SSLContext) -> bytes:
    """A ClientHello."""
    out = ssl.MemoryBIO()
    link = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        link.do_handshake()
    return out.read()
