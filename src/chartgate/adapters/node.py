"""What a deciding process holds in memory, and the one way to ask it.

The rules kept: decide, record, act (an answer exists only once it is in the audit log); a node that
could not hear from the control plane for 15 s, has no policies or cannot record answers nothing
(``NodeNotReady``, fail closed). Used alike by server workers and by the SDK inside an application.
"""

from typing import Any, Self

from chartgate.adapters.state import Instance, State
from chartgate.app.node_asked import Answered, Asked, Caller, Readiness
from chartgate.model.service import Service


class Node:
    """Use as an async context manager; entering waits until it may decide.

    ``name`` is the node's name in the log and in ``policy status``, ``<node>/decide-1``.
    ``log`` is a ``RemoteLog`` or anything like it; who made it closes it.
    """

    def __init__(self, state: State, instance: Instance, name: str, log: Any) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError

    @property
    def rulings(self) -> Any:
        """The ``Rulings`` in force: policies, people and grants."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """Of the control plane, as it is known here."""
        raise NotImplementedError

    def is_ready(self) -> Readiness:
        """Whether it may decide now; the reasons are for ``/readyz``."""
        raise NotImplementedError

    def service_of_token(self, token: str) -> Service:
        """Who sends this token; raises ``UnknownCaller`` with a reason for the log alone."""
        raise NotImplementedError

    def service_of_certificate(self, fingerprint: str, subject: str = "") -> Service:
        """Whose certificate it is (SHA-256 in hex; or the subject's name of a trusted issuer)."""
        raise NotImplementedError

    def service_named(self, name: str) -> Service:
        """The service of this name: for channels that know it by other means (unix, embedded)."""
        raise NotImplementedError

    async def refuse_caller(
        self, reason: str, *, channel: str, client: str = "", service: str = ""
    ) -> None:
        """Record a caller that could not be authenticated, or asked beyond its scope."""
        raise NotImplementedError

    async def answer(self, asked: Asked, caller: Caller) -> Answered:
        """Decide, record, answer. Raises ``NodeNotReady`` or ``LogUnavailable``: then nothing is."""
        raise NotImplementedError

    async def search(self, sought: Any, caller: Caller, *, request: str, trace: str = "") -> Any:
        """One page of a search, exact, recorded."""
        raise NotImplementedError
