"""Unix sockets: where one listens, and who is at the other end.

The rules kept: nobody can connect before the mode says who may; a socket at which nobody answers was
left by a predecessor and is replaced, anything else is left alone; the kernel, not the caller, says who
calls.
"""

import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chartgate.errors import Misconfigured

_PATH_LIMIT: Final = 103
"""Of ``sun_path``, with room for its end, on the system that has least of it."""


def bound_at(
    path: Path, check_folder: Callable[[os.stat_result], None], *, group: int | None = None
) -> socket.socket:
    """A listening place: of mode 0600, or 0660 for a group.

    ``check_folder`` raises where others could replace it. Raises ``Misconfigured`` as well where
    something else is in the way.
    """
    if len(str(path).encode()) > _PATH_LIMIT:
        raise Misconfigured(f"the path of a Unix socket has at most {_PATH_LIMIT} bytes: {path}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        check_folder(path.parent.stat())
        if os.path.lexists(path):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise Misconfigured(f"{path} is in the way and is not a socket")
            _check_left(path)
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o600)  # before listening: nobody can connect yet
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o660)
    except OSError as exc:
        listening.close()
        raise Misconfigured(f"cannot listen at {path}: {exc.strerror}") from exc
    except BaseException:
        listening.close()
        raise
    return listening


def _check_left(path: Path) -> None:
    """Raise unless the socket was left behind: whoever still answers there keeps its place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.setblocking(False)
        found = link.connect_ex(str(path))
    if found in (0, errno.EAGAIN):  # answered, or has a full queue of callers
        raise Misconfigured(f"{path} is in use: another program listens there")
    if found not in (errno.ECONNREFUSED, errno.ENOENT):
        raise Misconfigured(f"{path} is in the way: {os.strerror(found)}")


def peer_uid(link: socket.socket) -> int:
    """The user at the other end, as she was when the connection was made."""
    if sys.platform == "darwin":
        # struct xucred of <sys/ucred.h>: version, uid, …; SOL_LOCAL = 0, LOCAL_PEERCRED = 1
        found: tuple[int, int] = struct.unpack_from("=II", link.getsockopt(0, 1, 76))
        return found[1]
    pid_uid_gid = struct.Struct("=iII")
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, pid_uid_gid.size)
    uid: int = pid_uid_gid.unpack(credentials)[1]
    return uid
