"""The decision service as processes: one dies, and nobody gets an answer that is not recorded."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chartgate.adapters.decision_service import DecisionService, ServiceFailed, notify
from chartgate.adapters.decision_worker import ServiceConfig
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.state import State
from chartgate.model.event import Evaluation, NodeStopped, decode

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]

TOKEN = "cgs_01234567_" + "t" * 43
POLICIES = """
@id("alice_reads")
permit (principal == User::"alice", action == Action::"read", resource);
"""
SCHEMA = """
entity User; entity Page;
action read appliesTo { principal: [User], resource: [Page] };
"""


def config(root: Path, **more: object) -> ServiceConfig:
    """A service that decides by a folder."""
    policies = root / "policies"
    policies.mkdir(parents=True)
    (policies / "schema.cedarschema").write_text(SCHEMA)
    (policies / "all.cedar").write_text(POLICIES)
    (policies / "roles.toml").write_text("")
    (policies / "purposes.toml").write_text("")
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (root / "services.toml").write_text(
        '[services.app]\nactions = ["*"]\nresource_types = ["*"]\n'
        f'tokens = [{{ id = "01", sha256 = "{digest}", valid_until = 2099-01-01T00:00:00Z }}]\n'
    )
    people = [
        {"uid": {"type": "User", "id": name}, "attrs": {}, "parents": []}
        for name in ("alice", "bob")
    ]
    (root / "entities.json").write_text(json.dumps(people))
    state = root / "state"
    return ServiceConfig(
        root=str(state), port=0, plain=True, policies=str(policies),
        entities=str(root / "entities.json"),
        services=str(root / "services.toml"), unix=str(state / "decide.sock"), **more,
    )  # fmt: skip


def question(who: str) -> bytes:
    return json.dumps(
        {
            "subject": {"type": "User", "id": who},
            "action": {"name": "read"},
            "resource": {"type": "Page", "id": "1"},
        }
    ).encode()


class Asking:
    """Asks without end, alice and bob in turn, and keeps what it was answered."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.allowed: list[int] = []
        self.denied = self.refused = self.lost = 0
        self.wrong: list[object] = []

    async def run(self) -> None:
        turn = 0
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.lost += 1
                await asyncio.sleep(0.02)
                continue
            try:
                while True:
                    turn += 1
                    await self.one(reader, writer, "alice" if turn % 2 else "bob")
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
            finally:
                writer.close()

    async def one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str
    ) -> None:
        body = question(who)
        writer.write(
            b"POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (TOKEN.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(size))
        if head.startswith(b"HTTP/1.1 503"):
            self.refused += 1
            await asyncio.sleep(0.01)
        elif answer.get("decision") is (who == "alice"):
            if answer["decision"]:
                self.allowed.append(answer["context"]["audit"]["index"])
            else:
                self.denied += 1
        else:
            self.wrong.append(answer)


@contextlib.asynccontextmanager
async def asked(service: DecisionService, many: int = 8) -> AsyncIterator[Asking]:
    asking = Asking(service.port)
    tasks = [asyncio.create_task(asking.run()) for _ in range(many)]
    try:
        await until(lambda: len(asking.allowed) > 50)
        yield asking
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(test: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not test():  # noqa: ASYNC110  other processes set no event of ours
            await asyncio.sleep(0.01)


def recorded(root: Path) -> dict[int, Evaluation]:
    reader = LogReader(State(root).log_dir)
    return {
        index: event
        for index, entry in reader.entries()
        if isinstance(event := decode(entry), Evaluation)
    }


async def test_whatever_dies_no_answer_is_wrong_and_every_allow_is_on_record(tmp_path: Path):
    wanted = config(tmp_path, workers=2)
    async with DecisionService(wanted) as service, asked(service) as asking:
        # (1) a worker
        killed = service.pids["decide-1"]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: service.pids.get("decide-1") not in {None, killed})
        before = len(asking.allowed)
        await until(lambda: len(asking.allowed) > before + 100)
        # (2) the writer: nothing is decided without it
        killed = service.pids["write-1"]
        os.kill(killed, signal.SIGSTOP)
        stopped = len(asking.allowed)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: asking.refused > 0)
        await until(lambda: service.pids.get("write-1") not in {None, killed})
        await until(lambda: len(asking.allowed) > stopped + 100)
        assert asking.lost > 0
        # (3) certificates are read again at a signal that harms nobody
        service.reload()
        pids = service.pids
    assert asking.wrong == []
    assert asking.denied > 0
    assert all(not alive(pid) for pid in pids.values())
    assert os.path.basename(wanted.unix) not in os.listdir(wanted.root)
    found = recorded(Path(wanted.root))
    for index in asking.allowed:
        (item,) = found[index].items
        assert item.allowed


async def test_one_worker_writes_the_log_itself_and_goes_on_where_it_died(tmp_path: Path):
    wanted = config(tmp_path)
    async with DecisionService(wanted) as service, asked(service, 4) as asking:
        (killed,) = service.pids.values()
        os.kill(killed, signal.SIGKILL)
        await until(lambda: service.pids.get("decide-1") not in {None, killed})
        before = len(asking.allowed)
        await until(lambda: len(asking.allowed) > before + 50)
    assert asking.wrong == []
    found = recorded(Path(wanted.root))
    assert all(found[index].items[0].allowed for index in asking.allowed)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_unix_socket_is_shared_and_an_end_answers_what_is_under_way(tmp_path: Path):
    wanted = config(tmp_path)
    async with DecisionService(wanted) as service:
        assert os.stat(wanted.unix).st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(wanted.unix)
        for number in range(300):
            who = b"alice" if number % 2 else b"bob"
            frame = b'{"v":1,"op":"evaluation","token":"%b","id":%d,"body":%b}' % (
                TOKEN.encode(), number, question(who.decode()),
            )  # fmt: skip
            writer.write(len(frame).to_bytes(4, "big") + frame)
        await writer.drain()
        first = await read_frame(reader)
        os.kill(service.pids["decide-1"], signal.SIGTERM)  # asked to end, not killed
        answers = [first]
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                answers.append(await read_frame(reader))
        writer.close()
        for answer in answers:
            assert answer["status"] in {200, 503}
            if answer["status"] == 200:
                assert answer["body"]["decision"] is (answer["id"] % 2 == 1)
    events = [decode(entry) for _, entry in LogReader(State(Path(wanted.root)).log_dir).entries()]
    assert isinstance(events[-1], NodeStopped)
    allowed = sum(item.allowed for e in events if isinstance(e, Evaluation) for item in e.items)
    assert allowed >= sum(a["status"] == 200 and a["body"]["decision"] for a in answers)


async def read_frame(reader: asyncio.StreamReader) -> dict:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return json.loads(await reader.readexactly(size))


async def test_what_stands_in_the_way_is_said_at_once(tmp_path: Path):
    wanted = config(tmp_path)
    (tmp_path / "policies" / "all.cedar").write_text("permit (principal, action, nonsense);")
    with pytest.raises(ServiceFailed, match="decide-1 does not start"):
        async with DecisionService(wanted):
            pass


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert listening.recv(100) == b"READY=1"
