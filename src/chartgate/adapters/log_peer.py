"""Who is at the other end of a Unix socket: the kernel knows."""

import socket
import struct
import sys


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
