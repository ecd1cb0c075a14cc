"""The codec as a client of a real PostgreSQL: login, and conversations that it must follow."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from chartgate.adapters.embedded_postgres import EmbeddedPostgres, ServerUnavailable
from chartgate.pgwire import messages as m
from chartgate.pgwire.frames import FrameReader, StartupMessage
from chartgate.pgwire.replies import Expectations
from chartgate.pgwire.scram import MECHANISM, AuthenticationFailed, ScramClient, mint_verifier

pytestmark = pytest.mark.system
PASSWORD = "\u2168 pencils"  # SASLprep makes it "IX pencils"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(
        tmp_path_factory.mktemp("upstream") / "server",
        hba=("local all clerk scram-sha-256",),
    )
    try:
        made.start()
    except ServerUnavailable as reason:
        pytest.skip(f"no private PostgreSQL here: {reason}")
    with psycopg.connect(made.conninfo("postgres", "postgres"), autocommit=True) as admin:
        verifier = mint_verifier(PASSWORD, salt=secrets.token_bytes(16))
        admin.execute(f"CREATE ROLE clerk LOGIN PASSWORD '{verifier}'")
    yield made
    made.destroy()


class Upstream:
    """A blocking client made of the codec; checks that every message encodes back to itself."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        (path,) = Path(server.socket_dir).glob(".s.PGSQL.*[0-9]")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.frames = FrameReader()
        self.waiting: list[tuple[int, bytes]] = []
        self.expectations = Expectations()

    def receive(self) -> tuple[int, m.BackendMessage]:
        while not self.waiting:
            data = self.socket.recv(65536)
            assert data, "the server hung up"
            self.frames.feed(data)
            self.waiting = self.frames.take()
        kind, whole = self.waiting.pop(0)
        decoded = m.decode_backend(kind, whole[5:])
        assert bytes(decoded) == whole
        return kind, decoded

    def log_in(self, protocol: int, password: str = PASSWORD) -> list[m.BackendMessage]:
        parameters = {"user": "clerk", "database": "postgres", "client_encoding": "UTF8"}
        self.socket.sendall(bytes(StartupMessage(protocol, parameters)))
        scram = ScramClient("clerk", password, secrets.token_urlsafe(18).encode())
        heard: list[m.BackendMessage] = []
        while not isinstance(message := self.receive()[1], m.ReadyForQuery):
            match message:
                case m.AuthenticationSASL(mechanisms):
                    assert MECHANISM in mechanisms
                    answer = m.SASLInitialResponse(MECHANISM, scram.initial())
                    self.socket.sendall(bytes(answer))
                case m.AuthenticationSASLContinue(data):
                    self.socket.sendall(bytes(m.SASLResponse(scram.respond(data))))
                case m.AuthenticationSASLFinal(data):
                    scram.verify(data)
                case m.ErrorResponse():
                    raise AuthenticationFailed(message.sqlstate)
            heard.append(message)
        return heard

    def send(self, *messages: m.FrontendMessage) -> None:
        out = b""
        for message in messages:
            wire = bytes(message)
            target = message.kind if isinstance(message, m.Describe) else "P"
            self.expectations.sent(wire[0], target, message)
            out += wire
        self.socket.sendall(out)

    def hear(self, syncs: int = 1) -> str:
        """Server messages up to ``syncs`` ReadyForQuery, checked; a letter each, ``.`` = ended."""
        script = ""
        while syncs:
            kind, _ = self.receive()
            answer = self.expectations.on(kind)
            script += chr(kind) + "." * answer.finished
            syncs -= kind == ord("Z")
        return script


@pytest.fixture
def upstream(server: EmbeddedPostgres) -> Iterator[Upstream]:
    made = Upstream(server)
    made.log_in(0x30002)
    yield made
    made.send(m.Terminate())
    made.socket.close()


@pytest.mark.parametrize("protocol", [0x30000, 0x30002])
def test_the_scram_client_logs_in_with_a_verifier_that_we_minted(
    server: EmbeddedPostgres, protocol: int
) -> None:
    upstream = Upstream(server)
    heard = upstream.log_in(protocol)
    (key,) = (message for message in heard if isinstance(message, m.BackendKeyData))
    if protocol == 0x30000:
        assert len(key.key) == 4
    else:
        assert len(key.key) > 4 or any(
            isinstance(message, m.NegotiateProtocolVersion) for message in heard
        )
    upstream.socket.close()


def test_a_wrong_password_is_refused(server: EmbeddedPostgres) -> None:
    upstream = Upstream(server)
    with pytest.raises(AuthenticationFailed, match="28P01"):
        upstream.log_in(0x30000, "IX pencil")
    upstream.socket.close()


def prepared(sql: str, *, rows: int = 0, describe: bool = True) -> list[m.FrontendMessage]:
    looked = [m.Describe("P", "")] if describe else []
    return [m.Parse("", sql), m.Bind("", ""), *looked, m.Execute("", rows)]


def test_simple_queries_are_followed(upstream: Upstream) -> None:
    upstream.send(m.Query("select 1; select 2 where false; set x.y = 1; select 1/0; select 3"))
    assert upstream.hear() == "TDCTCCEZ."
    upstream.send(m.Query(""))
    assert upstream.hear() == "IZ."


def test_a_pipeline_with_an_error_is_followed(upstream: Upstream) -> None:
    upstream.send(
        m.Parse("a", "select $1::int"),
        m.Describe("S", "a"),
        m.Sync(),
        *prepared("select 1/0"),
        *prepared("select 2"),
        m.Sync(),
        *prepared("set x.y = 1"),
        m.Close("S", "a"),
        m.Sync(),
    )
    assert upstream.hear(3) == "1.tT.Z.1.E.Z.1.2.n.C.3.Z."  # 1/0 fails at Bind
    assert len(upstream.expectations) == 0


def test_a_suspended_portal_is_followed(upstream: Upstream) -> None:
    upstream.send(
        *prepared("select generate_series(1, 3)", rows=2, describe=False),
        m.Execute("", 2),
        *prepared("", describe=False),
        m.Sync(),
    )
    assert upstream.hear() == "1.2.DDs.DC.1.2.I.Z."


def test_copy_out_is_followed(upstream: Upstream) -> None:
    upstream.send(m.Query("copy (select 1) to stdout; select 2"))
    assert upstream.hear() == "HdcCTDCZ."
    upstream.send(*prepared("copy (select 1) to stdout"), m.Sync())
    assert upstream.hear() == "1.2.n.HdcC.Z."


def test_copy_in_is_followed_with_syncs_that_the_server_ignores(upstream: Upstream) -> None:
    upstream.send(m.Query("create temp table t (x int)"))
    assert upstream.hear() == "CZ."
    upstream.send(m.Query("copy t from stdin"), m.CopyData(b"1\n"), m.CopyDone())
    assert upstream.hear() == "GCZ."
    copy = prepared("copy t from stdin", describe=False)
    upstream.send(*copy, m.Sync(), m.CopyData(b"2\n"), m.CopyDone(), m.Sync())
    assert upstream.hear() == "1.2.GC.Z."
    upstream.send(*copy, m.Sync(), m.CopyData(b"x\n"), m.CopyDone(), m.Sync())
    assert upstream.hear() == "1.2.GE.Z."
    upstream.send(*copy, m.CopyFail("no"), m.Sync(), m.Query("select count(*) from t"))
    assert upstream.hear(2) == "1.2.GE.Z.TDCZ."
    assert len(upstream.expectations) == 0


def test_notices_and_settings_answer_nobody(upstream: Upstream) -> None:
    upstream.send(m.Query("do $$ begin raise notice 'hm'; end $$"))
    assert upstream.hear() == "NCZ."
    upstream.send(m.Query("listen c; notify c; set application_name = 'x'"))
    assert sorted(upstream.hear()) == sorted("CCCASZ.")
