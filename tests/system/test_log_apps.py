"""Applications at the log's door: whom it opens to, what they may write, and that no key stays."""

import asyncio
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_link import LogLink
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.log_service import LogService
from chartgate.adapters.log_socket import AppDoor, serve_log_socket
from chartgate.adapters.log_verify import verify
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import load_or_create_signer
from chartgate.adapters.state import RolledBack, State
from chartgate.app.evaluation_events import Keys, evaluation_events, search_events
from chartgate.app.question import Action, Question, Resource, Subject
from chartgate.app.ruling import Ruling
from chartgate.app.tokens import PatientTokens
from chartgate.errors import LogUnavailable, Misconfigured, Refused
from chartgate.model.event import (
    CallerRefused,
    Decision,
    Evaluation,
    NodeStarted,
    NodeStopped,
    Recovered,
    decode,
    encode,
)
from chartgate.sdk.token import FileToken

pytestmark = pytest.mark.system

AT = "2026-03-02T09:00:00.000000Z"
NOW = datetime(2026, 3, 2, 9, 0, 30, tzinfo=UTC)
TOKENS = PatientTokens({2026: b"k" * 32}, "hospital")


async def accepting(token: str) -> str | None:
    return {"good": "s_1"}.get(token)


def door(**parts: object) -> AppDoor:
    return AppDoor(accepting, TOKENS, now=lambda: NOW, **parts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run" / "log.sock"


@asynccontextmanager
async def writing(tmp_path: Path, path: Path, opened: AppDoor | None) -> AsyncIterator[None]:
    signer = load_or_create_signer(tmp_path / "log.key", "test.example/log")
    writer = LogWriter(LogFiles.open(tmp_path / "log", signer))
    async with await serve_log_socket(path, writer, node="n1", door=opened):
        yield
    await writer.close()


def stored(tmp_path: Path) -> list[bytes]:
    return [entry for _, entry in LogReader(tmp_path / "log").entries()]


def asked(**parts: object) -> tuple[bytes, ...]:
    facts: dict[str, object] = {
        "at": AT,
        "node": "n1/app-clinic",
        "service": "s_1",
        "channel": "embedded",
        "request": "r1",
        "tokens": Keys(),
    }
    question = Question(Subject("User", "jdoe"), Action("view"), Resource("Record", "7"))
    answer = Ruling(
        allowed=True,
        patient="4711",
        person="p_1",
        policy_set="ps",
        levels={"labs": "full"},
        held=(("proxy", "4711"),),
    )
    return evaluation_events([(question, answer)], **{**facts, **parts})


async def test_an_application_s_keys_become_tokens_in_the_writer(
    tmp_path: Path, path: Path
) -> None:
    async with (
        writing(tmp_path, path, door()),
        await RemoteLog.open(path, kind="app", token="good") as log,
    ):
        assert log.welcome.service == "s_1"
        assert await log.append(asked()) == 0
        found = search_events(
            at=AT,
            node="n1/app-clinic",
            service="s_1",
            channel="embedded",
            request="r2",
            sought="resource",
            policy_set="ps",
            tokens=Keys(),
            patients=["4711", "é"],
        )
        assert await log.append(found) == 1
        item = decode(stored(tmp_path)[0]).items[0]
        token = TOKENS.token("patient", "4711", year=2026)
        assert (item.patient, item.assignments) == (token, (f"proxy!{token}",))
        assert item.resource == TOKENS.token("resource", "Record:7", year=2026)
        search = decode(stored(tmp_path)[1])
        assert search.patients == (token, TOKENS.token("patient", "é", year=2026))
        assert b"4711" not in b"".join(stored(tmp_path))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (asked(service="s_2")[0], "its own questions"),
        (asked(channel="https")[0], "its own questions"),
        (asked(node="n1")[0], "node name"),
        (asked(node="n2/app-clinic")[0], "node name"),
        (asked(at="2026-03-02T09:10:00.000000Z")[0], "clock"),
        (asked(at="2025-03-02T09:00:00.000000Z")[0], "clock"),
        (asked(at="2026-03-02T09:00:00")[0], "version"),
        (asked()[0].replace(b"~patient:34373131~", b"4711"), "placeholder"),
        (asked()[0].replace(b"~patient:34373131~", b"~patient:ff~"), "not text"),
        (asked()[0].replace(b'"items"', b'"itemz"'), "version"),
        (
            encode(
                Decision(
                    at=AT,
                    node="n1/app-clinic",
                    session="s",
                    person="p",
                    request="r",
                    allowed=True,
                    action="select",
                )
            ),
            "the gate alone",
        ),
        (encode(NodeStopped(at=AT, node="n1/app-clinic", reason="x")), "the gate alone"),
        (
            encode(CallerRefused(at=AT, node="n1/app-x", channel="embedded", reason="r")),
            "its own questions",
        ),
    ],
)
async def test_what_an_application_may_not_write(
    tmp_path: Path, path: Path, entry: bytes, why: str
) -> None:
    async with (
        writing(tmp_path, path, door()),
        await RemoteLog.open(path, kind="app", token="good") as log,
    ):
        with pytest.raises(Refused, match=re.escape(why)):
            await log.append([entry])
        assert not stored(tmp_path)


async def test_nobody_comes_in_without_an_accepted_token(tmp_path: Path, path: Path) -> None:
    async with writing(tmp_path, path, door()):
        for token in ("", "bad"):
            with pytest.raises(Refused, match="token is not accepted"):
                await RemoteLog.open(path, kind="app", token=token)
        link = LogLink(path, kind="app", token="bad")
        with pytest.raises(Refused, match="token is not accepted"):
            await asyncio.to_thread(link.append, asked())
        with pytest.raises(Refused, match="kind of caller"):
            await RemoteLog.open(path, kind="root")
    async with writing(tmp_path, path, None):
        with pytest.raises(Refused, match="not let in"):
            await RemoteLog.open(path, kind="app", token="good")


def relaxed(**parts: object) -> bytes:
    question = Question(Subject("User", "jdoe"), Action("view"), Resource("Record", "7"))
    facts: dict[str, object] = {"allowed": False, "policy_set": "ps"}
    return evaluation_events(
        [(question, Ruling(**{**facts, **parts}))],
        at=AT,
        node="n1",
        service="s",
        channel="https",
        request="r",
        tokens=TOKENS,
    )[0]


async def test_what_releases_phi_is_never_answered_before_it_is_on_the_medium(
    tmp_path: Path, path: Path
) -> None:
    async with writing(tmp_path, path, None), await RemoteLog.open(path) as log:
        assert await log.append([relaxed()], durable=False) == 0
        assert await log.append([relaxed(levels={"labs": "withheld"})], durable=False) == 1
        for entry in (
            relaxed(patient="4711"),
            relaxed(levels={"labs": "masked"}),
            encode(NodeStopped(at=AT, node="n1", reason="x")),
        ):
            with pytest.raises(Refused, match="not for what releases PHI"):
                await log.append([relaxed(), entry], durable=False)
        await log.settled(1)
        assert len(stored(tmp_path)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
async def test_another_user_comes_in_by_the_group_s_socket_as_an_application_alone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "door"
    folder.mkdir()
    os.chown(folder, -1, 65534)
    folder.chmod(0o750)
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(stat.S_IMODE(above.stat().st_mode) | 0o011)
    path = folder / "log.sock"
    async with writing(tmp_path, path, door(group=65534)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _STRANGER, str(path), asked()[0].decode()
        )
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert [type(decode(entry)) for entry in stored(tmp_path)] == [Evaluation]
    folder.chmod(0o755)
    with pytest.raises(Misconfigured, match="open to others: chmod 0750"):
        await serve_log_socket(path, object(), door=door(group=65534))


_STRANGER = """
import sys
from pathlib import Path
from chartgate.adapters.log_link import LogLink
from chartgate.errors import Refused
import os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
path, entry = Path(sys.argv[1]), sys.argv[2].encode()
try:
    LogLink(path, kind="worker").append([entry])
    sys.exit(2)
except Refused as exc:
    assert "application alone" in str(exc), exc
assert LogLink(path, kind="app", token="good").append([entry]) == 0
"""


# the process


async def test_the_service_records_its_life_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.create()
    async with LogService(state, "n1", "test.example/log") as service:
        async with await RemoteLog.open(state.log_socket) as log:
            assert log.welcome.node == "n1"
            assert await log.append([relaxed()]) == 1
        assert service.log.size == 2
    kinds = [type(decode(e)) for _, e in LogReader(state.log_dir).entries()]
    assert kinds == [NodeStarted, Evaluation, NodeStopped]
    known = state.known_checkpoint()
    assert known == LogReader(state.log_dir).checkpoint
    newest = max(state.log_dir.glob("wal-*"))
    (state.log_dir / "checkpoint").unlink()
    good = newest.read_bytes()
    newest.write_bytes(good + b"\xc9WL")
    async with LogService(state, "n1", "test.example/log"):
        pass
    recovered = [decode(e) for _, e in LogReader(state.log_dir).entries()][3]
    assert isinstance(recovered, Recovered)
    for old in state.log_dir.glob("*"):
        old.unlink()
    with pytest.raises(RolledBack):
        await LogService(state, "n1", "test.example/log").__aenter__()


async def test_a_stopped_process_drops_nothing(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.create()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chartgate.adapters.log_service",
        "--state",
        str(state.root),
        "--node",
        "n1",
        "--origin",
        "test.example/log",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20)
    answered: dict[int, bytes] = {}
    async with await RemoteLog.open(state.log_socket) as log:

        async def one(number: int) -> None:
            entry = relaxed(person=f"p_{number}")
            for turn in range(1000):
                index = await log.append([entry], durable=turn % 2 == 0)
                answered[index] = entry
                if len(answered) == 200:
                    process.terminate()

        ends = await asyncio.gather(*(one(n) for n in range(16)), return_exceptions=True)
        assert all(isinstance(end, LogUnavailable) for end in ends)
    assert await process.wait() == 0
    found = dict(LogReader(state.log_dir).entries())
    assert len(answered) >= 200
    assert all(found[index] == entry for index, entry in answered.items())
    vkey = state.log_public_key.read_text().strip()
    assert verify(state.log_dir, vkey, state.known_checkpoint()).size == len(found)
    assert isinstance(decode(found[len(found) - 1]), NodeStopped)


async def test_the_process_says_in_a_line_what_stands_in_its_way(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chartgate.adapters.log_service",
        "--state",
        str(tmp_path / "nothing"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.startswith(b"misconfigured: ")
    assert said.count(b"\n") == 1


async def test_a_rotated_token_counts_at_the_next_link(tmp_path: Path, path: Path) -> None:
    valid, file = {"first"}, tmp_path / "token"

    async def verify(token: str) -> str | None:
        return "s_1" if token in valid else None

    file.write_text("first\n", encoding="ascii")
    ups: list[bool] = []
    linked = asyncio.Event()

    def on_link(is_up: bool) -> None:
        ups.append(is_up)
        if is_up:
            linked.set()

    source = FileToken(file).value
    link = LogLink(path, kind="app", token=source)
    remote = RemoteLog(path, kind="app", token=source, on_link=on_link)
    async with AsyncExitStack() as stack:
        opened = AppDoor(verify, TOKENS, now=lambda: NOW)
        async with writing(tmp_path, path, opened):
            await stack.enter_async_context(remote)
            assert await remote.append(asked()) == 0
            assert await asyncio.to_thread(link.append, asked()) == 1
        # Rotated while the writer is away: the old token opens nothing when it is back.
        linked.clear()
        valid.clear()
        valid.add("second")
        async with writing(tmp_path, path, opened):
            with pytest.raises(Refused, match="token is not accepted"):
                await RemoteLog.open(path, kind="app", token=source)
            fresh = tmp_path / "token.fresh"
            fresh.write_text("second\n", encoding="ascii")
            fresh.replace(file)
            async with asyncio.timeout(10):
                await linked.wait()
            assert ups == [True, False, True]
            assert await remote.append(asked()) == 2
            with suppress(LogUnavailable):  # the link of before: it does not know yet
                await asyncio.to_thread(link.append, asked())
            assert await asyncio.to_thread(link.append, asked()) >= 3
            await remote.close()
            link.close()
