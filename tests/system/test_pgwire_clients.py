"""Real clients log in to a server that is nothing but the codec, and read rows from it."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest

from chartgate.pgwire import messages as m
from chartgate.pgwire.frames import FrameReader, SSLRequest, StartupMessage, StartupReader
from chartgate.pgwire.scram import MECHANISM, AuthenticationFailed, ScramServer, mint_verifier

pytestmark = pytest.mark.system
PASSWORD = "corr\u00e9ct horse"
VERIFIERS = {"ada": mint_verifier(PASSWORD, salt=b"0123456789abcdef")}
INT4 = m.RowDescription((m.Field("one", type_oid=23, type_size=4),))


class Server:
    """Answers every statement with one row: 1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.frames = FrameReader()
        self.queue: list[tuple[int, bytes]] = []
        self.binary = False

    async def message(self) -> m.FrontendMessage:
        while not self.queue:
            data = await self.reader.read(65536)
            if not data:
                return m.Terminate()
            self.frames.feed(data)
            self.queue = [(kind, body) for kind, body in self.frames.frames()]
        return m.decode_frontend(*self.queue.pop(0))

    async def run(self) -> None:
        startup = StartupReader()
        while True:
            packet = startup.next()
            if isinstance(packet, StartupMessage):
                break
            if packet is not None:
                self.writer.write(b"N")
            startup.feed(await self.reader.read(4096))
        negotiation = packet.negotiation()
        if negotiation:
            self.writer.write(bytes(negotiation))
        self.frames.feed(startup.rest())
        try:
            await self.log_in(packet)
        except AuthenticationFailed as failure:
            self.writer.write(m.error(failure.sqlstate, str(failure), severity="FATAL"))
        else:
            await self.serve()
        await self.writer.drain()
        self.writer.close()

    async def log_in(self, packet: StartupMessage) -> None:
        nonce = secrets.token_urlsafe(18).encode()
        scram = ScramServer(VERIFIERS.get(packet.user), nonce, mock_salt=b"m" * 16)
        self.writer.write(bytes(m.AuthenticationSASL((MECHANISM,))))
        first = await self.message()
        assert isinstance(first, m.AuthenticationResponse)
        initial = m.SASLInitialResponse.parse(first.data)
        assert initial.mechanism == MECHANISM
        self.writer.write(bytes(m.AuthenticationSASLContinue(scram.start(initial.data or b""))))
        final = await self.message()
        assert isinstance(final, m.AuthenticationResponse)
        self.writer.write(bytes(m.AuthenticationSASLFinal(scram.finish(final.data))))
        self.writer.write(bytes(m.AuthenticationOk()))
        for name, value in (
            ("server_version", "15.0"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
        ):
            self.writer.write(bytes(m.ParameterStatus(name, value)))
        self.writer.write(bytes(m.BackendKeyData(1, b"abcd")) + bytes(m.ReadyForQuery()))

    async def serve(self) -> None:
        while not isinstance(message := await self.message(), m.Terminate):
            self.writer.write(b"".join(map(bytes, self.answer(message))))

    def answer(self, message: m.FrontendMessage) -> list[object]:
        value = b"\0\0\0\1" if self.binary else b"1"
        match message:
            case m.Query("error"):
                return [m.error("42501", "refused", hint="ask"), m.ReadyForQuery()]
            case m.Query(sql) if "SELECT" not in sql:
                return [m.CommandComplete("SET"), m.ReadyForQuery()]
            case m.Query():
                row = m.DataRow((b"1",))
                return [
                    m.notice("limited"),
                    INT4,
                    row,
                    m.CommandComplete("SELECT 1"),
                    m.ReadyForQuery(),
                ]
            case m.Parse():
                return [m.ParseComplete()]
            case m.Bind():
                self.binary = message.result_formats[:1] == (1,)
                return [m.BindComplete()]
            case m.Describe(kind):
                return [m.ParameterDescription(()), INT4] if kind == "S" else [self.described()]
            case m.Execute():
                return [m.DataRow((value,)), m.CommandComplete("SELECT 1")]
            case m.Close():
                return [m.CloseComplete()]
            case m.Sync():
                return [m.ReadyForQuery()]
            case m.Flush():
                return []
        raise AssertionError(message)

    def described(self) -> m.RowDescription:
        return m.RowDescription((m.Field("one", 0, 0, 23, 4, -1, int(self.binary)),))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server(reader, writer).run()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def conninfo(port: int, user: str = "ada", **more: str) -> dict[str, object]:
    given = {"host": "127.0.0.1", "port": port, "user": user, "password": PASSWORD, "dbname": "h"}
    return given | {"sslmode": "disable"} | more


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
async def test_psycopg_logs_in_and_reads_a_row(port: int, sslmode: str) -> None:
    info = conninfo(port, sslmode=sslmode)
    async with await psycopg.AsyncConnection.connect(**info, autocommit=True) as connection:
        notices: list[str | None] = []
        connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
        assert notices == ["limited"]
        assert await (await connection.execute("SELECT 1", prepare=True)).fetchone() == (1,)
        cursor = connection.cursor(binary=True)
        assert await (await cursor.execute("SELECT %s", (1,))).fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="refused"):
            await connection.execute("error")


async def test_asyncpg_logs_in_and_reads_a_row(port: int) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="ada", password=PASSWORD, database="h", ssl=False
    )
    assert await connection.fetchval("SELECT 1") == 1
    statement = await connection.prepare("SELECT 1")
    assert [await statement.fetchval() for _ in range(2)] == [1, 1]
    await connection.execute("SET x = 1")
    connection.terminate()


async def test_psql_logs_in_and_reads_a_row(port: int) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("no psql on the path")
    where = f"host=127.0.0.1 port={port} user=ada dbname=h sslmode=disable"
    process = await asyncio.create_subprocess_exec(
        *(psql, "-XAtq", where, "-c", "SELECT 1"),
        env={"PGPASSWORD": PASSWORD, "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (out, process.returncode) == (b"1\n", 0), err


@pytest.mark.parametrize(("user", "password"), [("ada", "wrong"), ("eve", PASSWORD)])
async def test_wrong_passwords_and_unknown_users_look_the_same(
    port: int, user: str, password: str
) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await psycopg.AsyncConnection.connect(**conninfo(port, user, password=password))
    with pytest.raises(asyncpg.InvalidPasswordError, match="password authentication failed"):
        await asyncpg.connect(
            host="127.0.0.1", port=port, user=user, password=password, database="h", ssl=False
        )


async def test_the_ssl_request_of_a_client_is_understood(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bytes(SSLRequest()))
    assert await reader.readexactly(1) == b"N"
    writer.write(bytes(StartupMessage(0x3270F, {"user": "ada"})))
    first = await reader.readexactly(13)
    assert first == bytes(m.NegotiateProtocolVersion(0x30002))
    writer.close()
