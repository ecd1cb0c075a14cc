"""A source that takes a connection and does not answer: the gate does not keep it open."""

import asyncio
from pathlib import Path

import pytest

from chartgate.adapters.upstream import SourceUnavailable, UpstreamAddress, connect_upstream

pytestmark = pytest.mark.system


async def test_a_connection_whose_login_was_given_up_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chartgate.adapters.upstream.CONNECT_SECONDS", 0.2)
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side ends
        ended.set()
        writer.close()

    path = tmp_path / "source"
    server = await asyncio.start_unix_server(silent, path)
    with pytest.raises(SourceUnavailable):
        await connect_upstream(UpstreamAddress(path, "d", "u", "p"), {}, nonce=b"n")
    async with asyncio.timeout(5):
        await ended.wait()
    server.close()
