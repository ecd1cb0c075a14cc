"""An application whose token was revoked writes nothing more, though its link is still open."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from chartgate.adapters import log_socket
from chartgate.adapters.log_files import LogFiles
from chartgate.adapters.log_reader import LogReader
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.log_socket import AppDoor, serve_log_socket
from chartgate.adapters.log_writer import LogWriter
from chartgate.adapters.signing import load_or_create_signer
from chartgate.app.tokens import PatientTokens
from chartgate.errors import LogUnavailable
from chartgate.model.event import CallerRefused, encode

pytestmark = [pytest.mark.system, pytest.mark.timeout(20)]

NOW = datetime(2026, 3, 2, 9, 0, 30, tzinfo=UTC)
ENTRY = encode(
    CallerRefused(
        at="2026-03-02T09:00:00.000000Z",
        node="n1/app-clinic",
        service="s_1",
        channel="embedded",
        reason="a test",
    )
)


@pytest.mark.parametrize("instead", [None, "s_2", LogUnavailable("the accounts cannot be read")])
async def test_a_link_outlives_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: str | LogUnavailable | None
) -> None:
    answers: list[str | LogUnavailable | None] = ["s_1"]

    async def verify(token: str) -> str | None:
        answer = answers[-1]
        if isinstance(answer, LogUnavailable):
            raise answer
        return answer

    (tmp_path / "run").mkdir(mode=0o700)
    path = tmp_path / "run" / "log.sock"
    door = AppDoor(verify, PatientTokens({2026: b"k" * 32}, "hospital"), now=lambda: NOW)
    signer = load_or_create_signer(tmp_path / "log.key", "test.example/log")
    writer = LogWriter(LogFiles.open(tmp_path / "log", signer))
    monkeypatch.setattr(log_socket, "TOKEN_SECONDS", 0.0)
    async with (
        await serve_log_socket(path, writer, node="n1", door=door),
        RemoteLog(path, kind="app", token="good") as log,
    ):
        await log.append((ENTRY,))
        await log.append((ENTRY,))
        answers.append(instead)
        with pytest.raises(LogUnavailable):
            await log.append((ENTRY,))
    await writer.close()
    assert LogReader(tmp_path / "log").size == 2
