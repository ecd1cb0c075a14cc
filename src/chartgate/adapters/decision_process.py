"""What a process of the decision service asks of the kernel for itself.

The rules kept: callers cannot take the files away that the log, the control plane and the source
need, for there are more than connections may use; a process that dies leaves no memory image behind,
which would hold tokens and patients (45 CFR 164.312(a)(1)).
"""

import contextlib
import resource
from dataclasses import replace
from typing import Final

from chartgate.adapters.decision_limits import Limits

_WANTED: Final = 65_536
"""Open files; connections beyond ``Limits`` are open for a moment too."""
_OURS: Final = 256
"""Of them, what is no caller's."""
_LEAST: Final = 16


def harden() -> None:
    """As many open files as we may have, and no core dumps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    with contextlib.suppress(
        ValueError, OSError
    ):  # macOS has a limit of its own below the hard one
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fitted(limits: Limits) -> Limits:
    """Limits that this process can hold: half of its open files, at most, are callers'.

    The other half is for connections whose handshake is not over, and for ourselves.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    room = max(_LEAST, (soft - _OURS) // 2)
    return replace(
        limits,
        connections=min(limits.connections, room),
        connections_per_address=min(limits.connections_per_address, room // 2),
    )
