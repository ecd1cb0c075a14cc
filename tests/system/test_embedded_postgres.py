"""The private server: peer login of one user, clean restarts, no orphan, one clear line on failure."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from chartgate.adapters.embedded_postgres import EmbeddedPostgres, ServerUnavailable, find_psql

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(tmp_path / "server", roles=("clerk",))
    yield made
    made.destroy()


def ask(server: EmbeddedPostgres, query: str, user: str = "postgres") -> tuple[object, ...]:
    with psycopg.connect(server.conninfo("postgres", user)) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row


def is_gone(pid: int, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_a_new_server_is_private_durable_and_speaks_utf8(server: EmbeddedPostgres) -> None:
    server.start()
    settings = (
        "listen_addresses",
        "data_checksums",
        "fsync",
        "server_encoding",
        "log_min_error_statement",
    )
    assert [ask(server, f"SHOW {name}")[0] for name in settings] == [
        "",
        "on",
        "on",
        "UTF8",
        "panic",
    ]
    assert ask(server, "SELECT upper('é')") == ("É",)
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(str(ask(server, "SHOW data_directory")[0])).stat().st_mode) == 0o700


def test_a_second_start_keeps_the_data(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.conninfo("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    server.start()
    assert ask(server, "SELECT n FROM kept") == (7,)


def test_only_the_named_roles_may_log_in_and_there_is_no_password(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    with psycopg.connect(server.conninfo("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE clerk LOGIN")
        connection.execute("CREATE ROLE stranger LOGIN SUPERUSER")
    assert ask(server, "SELECT current_user", "clerk") == ("clerk",)
    with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
        ask(server, "SELECT 1", "stranger")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_operating_system_user_is_refused(server: EmbeddedPostgres) -> None:
    server.start()
    server.socket_dir.chmod(0o777)  # even if the folder stood open, the ident map would refuse
    (server.socket_dir / ".s.PGSQL.5432").chmod(0o777)
    psql = find_psql()
    assert psql is not None
    if not os.access("/usr/bin/psql", os.X_OK):
        pytest.skip("no system psql that another user could run")
    for user in ("nobody", "daemon"):
        done = subprocess.run(
            ["/usr/bin/psql", "-X", "-c", "SELECT 1", server.conninfo("postgres", "postgres")],
            user=user,
            group="nogroup",
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert "Peer authentication failed" in done.stderr


def test_a_killed_server_recovers_at_the_next_start(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.conninfo("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert is_gone(server.pid)
    assert not server.is_running()
    server.start()
    assert ask(server, "SELECT n FROM kept") == (7,)


CHILD = """
import sys, time
from pathlib import Path
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def start_in_child(directory: Path) -> tuple[subprocess.Popen[str], int]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    return child, int(child.stdout.readline())


def let_go(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def test_a_killed_parent_leaves_no_orphan(server: EmbeddedPostgres) -> None:
    child, pid = start_in_child(server.directory)
    let_go(child)
    assert is_gone(pid)
    server.start()


def test_an_orphan_whose_watcher_died_too_is_stopped_at_the_next_start(
    server: EmbeddedPostgres,
) -> None:
    child, pid = start_in_child(server.directory)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"/bin/sh", b"-c"] and str(pid).encode() in words:
            os.kill(int(folder.name), signal.SIGKILL)
    let_go(child)
    os.kill(pid, 0)  # it is an orphan now
    server.start()
    assert is_gone(pid)
    assert ask(server, "SELECT 1") == (1,)


def test_a_folder_in_use_says_by_whom(server: EmbeddedPostgres) -> None:
    server.start()
    with pytest.raises(ServerUnavailable, match=rf"in use by process {os.getpid()}: stop it first"):
        EmbeddedPostgres(server.directory).start()
    assert ask(server, "SELECT 1") == (1,)


def test_a_pid_file_that_names_a_stranger_is_stale(server: EmbeddedPostgres) -> None:
    server.start()
    data = Path(str(ask(server, "SHOW data_directory")[0]))
    text = (data / "postmaster.pid").read_text()
    server.stop()
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        (data / "postmaster.pid").write_text(
            text.replace(text.split("\n", 1)[0], str(stranger.pid))
        )
        server.start()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_long_path_gets_a_short_socket_folder(tmp_path: Path) -> None:
    # Below /tmp and open to all, so that root's server stays here as well.
    base = Path(tempfile.mkdtemp(prefix="cg-long-", dir="/tmp"))
    base.chmod(0o755)
    server = EmbeddedPostgres(base / ("x" * 100))
    try:
        server.directory.mkdir(mode=0o755)
        server.start()
        short = server.socket_dir
        assert len(str(short)) < 60
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
        assert ask(server, "SELECT 1") == (1,)
        server.stop()
        assert not short.exists()
    finally:
        server.destroy()
        shutil.rmtree(base)


def test_missing_programs_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARTGATE_PG_BIN", str(tmp_path))
    with pytest.raises(ServerUnavailable, match=r"CHARTGATE_PG_BIN: no postgres and initdb in"):
        EmbeddedPostgres(tmp_path / "server").start()


def test_a_place_that_cannot_be_written_is_one_clear_line() -> None:
    with pytest.raises(ServerUnavailable, match=r"^/proc/self/chartgate: No such file"):
        EmbeddedPostgres(Path("/proc/self/chartgate")).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    base = Path(tempfile.mkdtemp(prefix="cg-full-", dir="/tmp"))
    base.chmod(0o755)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0755", "tmpfs", str(base)],
        capture_output=True,
    )
    if mounted.returncode:
        base.rmdir()
        pytest.skip("a small disk cannot be mounted here")
    try:
        (base / "server").mkdir(mode=0o755)
        with pytest.raises(ServerUnavailable, match="disk"):
            EmbeddedPostgres(base / "server").start()
    finally:
        subprocess.run(["umount", str(base)], check=True)
        base.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data can lie elsewhere")
def test_data_whose_state_folder_was_deleted_by_hand_are_removed(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    server.start()
    kept = server.log_file.parent
    forsaken = EmbeddedPostgres(tmp_path / "forsaken")
    forsaken.start()
    forsaken.stop()
    home = forsaken.log_file.parent
    assert home != forsaken.directory
    shutil.rmtree(forsaken.directory)
    with EmbeddedPostgres(tmp_path / "third") as third:
        assert not home.exists()
        assert kept.exists()
    third.destroy()
    assert not third.log_file.parent.exists()


PLAIN = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2])); os.chdir("/")
from pathlib import Path
from chartgate.adapters.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
assert (Path(sys.argv[1]) / "data").stat().st_uid == int(sys.argv[2])
server.stop()
server.start()
server.destroy()
assert not Path(sys.argv[1]).exists()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming a plain user needs root")
def test_a_plain_user_starts_it_the_same_way() -> None:
    user = pwd.getpwnam("daemon")
    base = Path(tempfile.mkdtemp(prefix="cg-plain-", dir="/tmp"))
    os.chown(base, user.pw_uid, user.pw_gid)
    # An interpreter below root's home is closed to others: use the system's if it is alike.
    python = next(
        (
            name
            for name in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}")
            if not str(Path(name).resolve()).startswith("/root") and Path(name).exists()
        ),
        None,
    )
    if python is None:
        pytest.skip("no interpreter here that a plain user may run")
    packages = sysconfig.get_path("purelib")
    try:
        done = subprocess.run(
            [python, "-c", PLAIN, str(base / "server"), str(user.pw_uid), str(user.pw_gid)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'src'}:{packages}"},
            cwd="/",
            capture_output=True,
            text=True,
        )
        if "Permission denied" in done.stderr or "No module named" in done.stderr:
            pytest.skip("the packages here cannot be read by a plain user")
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(base)
