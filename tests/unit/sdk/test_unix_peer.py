"""Who listens at a service's socket is known before she is given a token."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chartgate.sdk import AsyncChartgate, Chartgate, Record
from chartgate.sdk import unix as sdk_unix
from chartgate.sdk.calling import NotTrusted
from chartgate.sdk.unix import check_peer, is_trusted

OWN, SERVICE, STRANGER, ROOT = 1000, 900, 1001, 0
RECORD = Record(patient="17", category="labs")


@pytest.mark.parametrize(
    ("peer", "folder_owner", "mode", "trusted"),
    [
        (OWN, STRANGER, 0o777, True),
        (ROOT, STRANGER, 0o1777, True),
        (SERVICE, SERVICE, 0o755, True),
        (SERVICE, SERVICE, 0o750, True),
        (SERVICE, SERVICE, 0o2750, True),
        (SERVICE, SERVICE, 0o775, False),
        (SERVICE, SERVICE, 0o757, False),
        (STRANGER, ROOT, 0o1777, False),
        (STRANGER, SERVICE, 0o755, False),
        (STRANGER, OWN, 0o700, False),
    ],
)
def test_who_listens_is_we_or_root_or_who_alone_fills_the_folder(
    peer: int, folder_owner: int, mode: int, trusted: bool
) -> None:
    assert is_trusted(peer, OWN, folder_owner, 0o040000 | mode) is trusted


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """A socket in a folder of everybody's, and what each caller has said there."""
    tmp_path.chmod(0o777)
    path, said = tmp_path / "s.sock", list[bytes]()
    place = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place.bind(str(path))
    place.listen()

    def listen() -> None:
        while True:
            try:
                link, _ = place.accept()
            except OSError:
                return
            with link:
                said.append(link.recv(1 << 16))

    listening = threading.Thread(target=listen)
    listening.start()
    yield path, said
    place.shutdown(socket.SHUT_RDWR)
    listening.join()
    place.close()


def test_our_own_user_is_asked_wherever_she_listens(heard: tuple[Path, list[bytes]]) -> None:
    path, _ = heard
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(str(path))
        check_peer(link, str(path))


def test_a_stranger_is_told_no_token(
    heard: tuple[Path, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said = heard
    stranger = os.geteuid() + 1
    monkeypatch.setattr(sdk_unix, "peer_uid", lambda link: stranger)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(str(path))
        with pytest.raises(NotTrusted):
            check_peer(link, str(path))

    with Chartgate(f"unix:{path}", token="secret", timeout=5) as gate:
        blocking = gate.decide("nadams", "view", RECORD)

    async def asked() -> str:
        async with AsyncChartgate(f"unix:{path}", token="secret", timeout=5) as gate:
            decision = await gate.decide("nadams", "view", RECORD)
        assert not decision
        assert decision.reason is not None
        return decision.reason.text

    assert not blocking
    assert not blocking.is_answer
    assert blocking.reason is not None
    assert "who listens at its socket is not known" in blocking.reason.text
    assert asyncio.run(asked()) == blocking.reason.text
    assert not any(said)
