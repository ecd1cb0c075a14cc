"""Where a service listens: only what a predecessor left is replaced."""

import os
import socket
from pathlib import Path

import pytest

from chartgate.adapters.unix_place import bound_at, peer_uid
from chartgate.errors import Misconfigured


def anywhere(folder: os.stat_result) -> None:
    """Every folder will do."""


def test_what_a_predecessor_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    bound_at(path, anywhere).close()
    assert path.exists()
    with bound_at(path, anywhere) as place, socket.socket(socket.AF_UNIX) as link:
        place.listen()
        link.connect(str(path))
        assert peer_uid(link) == os.geteuid()


@pytest.mark.parametrize("callers", [0, 3])
def test_whoever_still_listens_keeps_its_place(tmp_path: Path, callers: int) -> None:
    path = tmp_path / "s.sock"
    with bound_at(path, anywhere) as place:
        place.listen(1)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(callers)]
        for link in waiting:
            link.setblocking(False)
            link.connect_ex(str(path))
        with pytest.raises(Misconfigured, match="is in use"):
            bound_at(path, anywhere)
        for link in waiting:
            link.close()
        assert path.exists()


def test_what_is_no_stream_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(Misconfigured, match="is in the way: "):
            bound_at(path, anywhere)
    assert path.exists()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(Misconfigured, match="is not a socket"):
        bound_at(path, anywhere)
    assert path.read_text() == "mine"
