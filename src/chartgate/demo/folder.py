"""The demo's place on this computer: its state folder and its port, taken and given back.

Rules kept: whatever stands in the way is one clear line (a port or folder in use, a full disk, a
folder that is somebody else's), and what a demo did not make it neither takes over nor removes.
"""

import errno
import fcntl
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from chartgate.adapters.embedded_postgres import EmbeddedPostgres
from chartgate.adapters.state import State
from chartgate.errors import Misconfigured

_FULL_BELOW: Final = 16 << 20
"""With less room than this, PostgreSQL cannot add a segment to its write-ahead log."""


class AlreadyRunning(Misconfigured):
    """Another process runs an instance in the same state folder."""

    code = "already_running"


def refuse_foreign(state: State) -> None:
    """A folder that holds somebody else's files is never taken over, nor emptied by a reset."""
    try:
        names = {path.name for path in state.root.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise Misconfigured(f"{state.root} is a file: name a folder with --state") from None
    if names and not names & {state.lock_file.name, state.instance_file.name, state.log_dir.name}:
        raise Misconfigured(
            f"{state.root} holds other files: name an empty or a new folder with --state"
        )


def reset(root: Path) -> None:
    """Remove all that a demo keeps in ``root``; refused while one runs there.

    Only what a demo makes is removed, by name: a file that somebody put beside it stays.
    """
    state = State(root)
    with one_line_for_the_disk(root):
        refuse_foreign(state)
        if not root.exists():
            return
        state.create()
        with locked(state):
            for folder in (state.legacy_pg, state.control_pg):
                EmbeddedPostgres(folder).destroy()
            for path in (
                state.instance_file,
                state.passfile,
                state.tokens_dir,
                state.tls_dir,
                root / "nodes",
                root / "data",
                state.log_dir,
                state.checkpoint_file.parent,
                state.keys_dir,
                state.sockets,
                root / "maps",
            ):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


@contextmanager
def locked(state: State) -> Iterator[None]:
    with state.lock_file.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"a demo is already running in {state.root}: stop it first, or use another --state"
            ) from None
        yield


@contextmanager
def one_line_for_the_disk(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise Misconfigured(_full(root)) from exc
        raise Misconfigured(f"{exc.filename or root}: {exc.strerror or exc}") from exc
    except psycopg.Error as exc:
        # A server that lost its disk often says no more than that it went away.
        if isinstance(exc, psycopg.errors.DiskFull) or _is_full(root):
            raise Misconfigured(_full(root)) from exc
        raise Misconfigured(
            "a private PostgreSQL server failed "
            f"(SQLSTATE {exc.sqlstate or 'none'}); its log is below {root}"
        ) from exc


def _is_full(root: Path) -> bool:
    try:
        return shutil.disk_usage(root).free < _FULL_BELOW
    except OSError:
        return False


def _full(root: Path) -> str:
    return f"the disk that holds {root} is full: make room, or use another folder with --state"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal that comes meanwhile takes effect at the end.

    An exception out of a signal handler between the start of a server and the note that we have
    started it would leave the server to nobody.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def require_free(host: str, port: int, *, option: str = "--port") -> None:
    """Say that a port is taken before seconds are spent on everything behind it."""
    try:
        socket.create_server((host, port)).close()
    except OSError as exc:
        raise unheard(host, port, exc, option) from exc


def unheard(host: str, port: int, exc: OSError, option: str = "--port") -> Misconfigured:
    if exc.errno == errno.EADDRINUSE:
        return Misconfigured(
            f"port {port} on {host} is in use by another program: choose another with {option}, "
            "where port 0 takes any free one"
        )
    return Misconfigured(f"cannot listen on {host} port {port}: {exc.strerror or exc}")
