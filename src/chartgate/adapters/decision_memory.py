"""A node of which everything is in memory: what the doors are tested against.

The rules are a real node's: an answer has its place in the log, an unknown token is nobody, what is
not ready decides nothing. There is no control plane, and the log is a list that ends with the
process: nothing that releases data may be built on it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chartgate.app.node_asked import Answered, Asked, Caller, NodeNotReady, Readiness, UnknownCaller
from chartgate.app.question import Question
from chartgate.app.ruling import Ruling
from chartgate.model.service import EVERYTHING, Service

Rule = Callable[[Question, Service], Ruling]
LOG: Final = "memory.invalid/log"


@dataclass(frozen=True, slots=True)
class Searched:
    """One page of a search, as it was recorded."""

    found: Any
    index: int
    log: str
    epoch: int
    policy_set: str


class MemoryNode:
    """``rule`` decides; ``services`` by token. ``reasons`` says why it is not ready, for a test."""

    def __init__(
        self,
        rule: Rule,
        services: Mapping[str, Service],
        *,
        search: Callable[[Any, Service], Any] | None = None,
        certificates: Mapping[str, Service] | None = None,
    ) -> None:
        self._rule = rule
        self._search = search
        self.services = dict(services)
        self.certificates = dict(certificates or {})
        self.log: list[Any] = []
        self.reasons: tuple[str, ...] = ()
        self.epoch = 1
        self.gate: asyncio.Event | None = None
        """What a decision waits for before it counts as recorded; for tests of slow logs."""

    def is_ready(self) -> Readiness:
        return Readiness(self.reasons)

    def measures(self) -> Mapping[str, float]:
        return {}

    def service_of_token(self, token: str) -> Service:
        return _known(self.services, token)

    def service_of_certificate(self, fingerprint: str, subject: str = "") -> Service:
        return _known(self.certificates, fingerprint, subject)

    def service_named(self, name: str) -> Service:
        return _known({service.name: service for service in self.services.values()}, name)

    async def refuse_caller(
        self, reason: str, *, channel: str, client: str = "", service: str = ""
    ) -> None:
        self.log.append((reason, channel, client, service))

    async def answer(self, asked: Asked, caller: Caller) -> Answered:
        self._check_ready()
        rulings: list[Ruling] = []
        for question in asked.questions:
            rulings.append(self._rule(question, caller.service))
            if rulings[-1].allowed is asked.semantic.last:
                break
        index = len(self.log)
        self.log.append((asked, caller, tuple(rulings)))
        if self.gate is not None:
            await self.gate.wait()
        return Answered(tuple(rulings), index, LOG, self.epoch)

    async def search(
        self, sought: Any, caller: Caller, *, request: str, trace: str = ""
    ) -> Searched:
        self._check_ready()
        assert self._search is not None, "nobody said how to search"
        found = self._search(sought, caller.service)
        index = len(self.log)
        self.log.append((sought, caller, found))
        return Searched(found, index, LOG, self.epoch, "")

    def _check_ready(self) -> None:
        if self.reasons:
            raise NodeNotReady("; ".join(self.reasons))


def anyone(name: str = "app") -> Service:
    """A service that may ask everything."""
    return Service(uid=f"uid-{name}", name=name, active=True, scope=EVERYTHING)


def _known(services: Mapping[str, Service], *names: str) -> Service:
    for name in names:
        service = services.get(name)
        if service is not None and service.active:
            return service
    raise UnknownCaller("a credential that is nobody's")
