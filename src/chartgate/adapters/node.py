"""What a deciding process holds in memory, and the one way to ask it.

The rules kept: decide, record, act (an answer exists only once it is in the audit log); a node that
could not hear from the control plane for 15 s, has no policies or cannot record answers nothing
(``NodeNotReady``, fail closed). Used alike by server workers and by the SDK inside an application.

``Node`` follows a control plane; ``node_plain.PlainNode`` decides by a folder.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from chartgate.adapters.audit_log import AuditLog
from chartgate.adapters.control_plane_feed import STALE_SECONDS, SWEEP_SECONDS, ControlPlaneFeed
from chartgate.adapters.control_plane_snapshot import ControlPlaneSnapshot
from chartgate.adapters.node_desk import AnswerDesk
from chartgate.adapters.node_grants import GrantKeeper
from chartgate.adapters.node_rulings import Ready, RulingsInForce
from chartgate.adapters.node_state import (
    PeopleNow,
    Turn,
    VersionLog,
    node_folder,
    source_reader,
)
from chartgate.adapters.patient_facts import PatientFacts
from chartgate.adapters.policy_in_force import load_in_force, trusted_keys
from chartgate.adapters.policy_keeper import PolicyKeeper
from chartgate.adapters.state import Instance, State
from chartgate.app.authzen_search import Sought
from chartgate.app.evaluation_events import Tokens
from chartgate.app.node_asked import Answered, Asked, Caller, Readiness, Searched
from chartgate.app.rulings import Rulings
from chartgate.model.event import Alarm, CallerRefused, encode
from chartgate.model.service import Service

_READY: Final = Readiness()
_STALE: Final = Readiness(("the control plane was not heard from for 15 seconds",))
_NO_LOG: Final = Readiness(("the audit log's writer is not reached",), is_log_lost=True)
_NOT_YET: Final = Readiness(("the node is not started",))

_logger = logging.getLogger(__name__)


class Node:
    """Use as an async context manager; entering waits until it may decide.

    ``name`` is the node's name in the log and in ``policy status``, ``<node>/decide-1``. ``log`` is a
    ``RemoteLog`` or anything like it; who made it closes it. ``tokens`` makes the log's tokens of
    patients (``Keys()`` in an application, which holds no key). ``durable=False``: decisions that
    release nothing are answered up to 5 ms before they are on disk. ``own_events=False`` is for an
    application, which may not write events of nodes. ``folder``: where it keeps what it last obeyed,
    if not below the instance's own folder.
    """

    def __init__(
        self,
        state: State,
        instance: Instance,
        name: str,
        log: AuditLog,
        tokens: Tokens | None = None,
        *,
        durable: bool = True,
        own_events: bool = True,
        folder: Path | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
        stale_seconds: float = STALE_SECONDS,
        on_change: Callable[[ControlPlaneSnapshot], None] | None = None,
    ) -> None:
        self.name: Final = name
        self.origin: Final = instance.origin
        self._state: Final = state
        self._instance: Final = instance
        self._log: Final = log
        self._folder: Final = folder
        self._on_change: Final = on_change
        self._seconds: Final = (sweep_seconds, stale_seconds)
        self._turn: Final = Turn()
        self._own_log: Final = VersionLog(log, self._turn, recorded=own_events)
        self._people: Final = PeopleNow({})
        self._feed: ControlPlaneFeed | None = None
        self._in_force: RulingsInForce | None = None
        self._keeper: PolicyKeeper | None = None
        self._grants: GrantKeeper | None = None
        self._facts: PatientFacts | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_started = False
        self._stack = contextlib.AsyncExitStack()
        self._closing: set[asyncio.Task[None]] = set()
        self._desk: Final = AnswerDesk(
            name,
            instance.origin,
            log,
            tokens if tokens is not None else _tokens(state, instance),
            self._turn,
            ready=lambda: self.ready,
            facts=lambda: self._facts,
            epoch=lambda: self.epoch,
            readiness=self.is_ready,
            is_durable=durable,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    # --- asking ---------------------------------------------------------------------------

    async def answer(self, asked: Asked, caller: Caller) -> Answered:
        """Decide, record, answer. Raises ``NodeNotReady`` or ``LogUnavailable``: nothing is told."""
        return await self._desk.answer(asked, caller)

    async def search(
        self, sought: Sought, caller: Caller, *, request: str, trace: str = ""
    ) -> Searched:
        """One page of a search, exact, recorded. Raises ``SearchRefused`` as well."""
        return await self._desk.search(sought, caller, request=request, trace=trace)

    @property
    def ready(self) -> Ready:
        """What decides now."""
        assert self._in_force is not None, "the node is not started"
        return self._in_force.ready

    @property
    def rulings(self) -> Rulings:
        """The ``Rulings`` in force: policies, people and grants."""
        return self.ready.rulings

    @property
    def people(self) -> ControlPlaneSnapshot:
        """The control plane, as it is known here."""
        assert self._feed is not None, "the node is not started"
        return self._feed.snapshot

    @property
    def epoch(self) -> int:
        """Of the control plane, as it is known here."""
        return 0 if self._feed is None else self._feed.snapshot.epoch

    def is_ready(self) -> Readiness:
        """Whether it may decide now; the reasons are for ``/readyz``."""
        feed = self._feed
        if not self._is_started or feed is None:
            return _NOT_YET
        if not feed.is_fresh(time.monotonic()):
            return _STALE
        if not getattr(self._log, "is_linked", True):
            return _NO_LOG
        return _READY

    def measures(self) -> dict[str, float]:
        """What a watcher wants to see rising before anything stops."""
        measured = {"log_queue": float(self._log.queued)}
        if self._feed is not None:
            measured["feed_age_seconds"] = self._feed.age(time.monotonic())
        return measured

    # --- who asks -------------------------------------------------------------------------

    def service_of_token(self, token: str) -> Service:
        """Who sends this token; raises ``UnknownCaller`` with a reason for the log alone."""
        return self.people.services.of_token(token, at=datetime.now(UTC))

    def service_of_certificate(self, fingerprint: str, subject: str = "") -> Service:
        """Whose certificate it is (SHA-256 in hex; or the subject's name of a trusted issuer)."""
        return self.people.services.of_certificate(fingerprint, subject)

    def service_named(self, name: str) -> Service:
        """The service of this name: for channels that know it by other means (unix, embedded)."""
        return self.people.services.named(name)

    async def refuse_caller(
        self, reason: str, *, channel: str, client: str = "", service: str = ""
    ) -> None:
        """Record a caller that could not be authenticated, or asked beyond its scope."""
        event = CallerRefused(
            at=_stamp(),
            node=self.name,
            service=service,
            channel=channel,
            client=client,
            reason=reason[:200],
        )
        await self._log.append((encode(event),), durable=False)

    # --- what it follows ------------------------------------------------------------------

    async def _start(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        state, instance = node_folder(self._state, self.name, self._folder), self._instance
        # People first: policies are built for those who are there.
        feed = ControlPlaneFeed(
            instance.control,
            on_change=self._changed,
            on_forged=self._forged_notice,
            sweep_seconds=self._seconds[0],
            stale_seconds=self._seconds[1],
        )
        self._feed = await self._stack.enter_async_context(feed)
        self._people.follow(feed.snapshot.persons)
        loaded = await asyncio.to_thread(
            load_in_force,
            state,
            policies=Path(instance.policies),
            data_map=Path(instance.data_map),
            source=instance.source,
        )
        read = source_reader(instance)
        source = await asyncio.to_thread(read, loaded.data_map.schema)
        in_force = await asyncio.to_thread(
            RulingsInForce, loaded, source, self._people, self._alarmed
        )
        in_force.on_replaced = self._replaced
        self._in_force = in_force
        self._follow_facts(in_force.ready)
        self._keeper = await self._stack.enter_async_context(
            PolicyKeeper(
                state,
                self.name,
                instance.control,
                self._own_log,
                loaded,
                in_force,
                read,
                in_force.prepare,
            )
        )
        keys = trusted_keys(state)
        self._grants = GrantKeeper(keys, in_force, lambda: feed.snapshot, self._alarmed)
        await self._grants.start()
        self._stack.push_async_callback(self._grants.stop)
        self._keeper.wake()  # what came between the first look and the link
        self._is_started = loop is self._loop

    async def _stop(self) -> None:
        self._is_started = False
        await self._stack.aclose()
        if self._facts is not None:
            await self._facts.close()
        for task in tuple(self._closing):
            await task

    def _changed(self, people: ControlPlaneSnapshot) -> None:
        changed = people.changed
        self._people.follow(people.persons)
        if self._in_force is not None:
            self._in_force.forget(None if changed.everything else changed.names)
        if self._grants is not None:
            self._grants.on_change(people)
        if self._keeper is not None and (changed.everything or changed.policies):
            self._keeper.wake()
        if self._on_change is not None:
            self._on_change(people)

    def _replaced(self, ready: Ready) -> None:
        """A version is in force, as of now."""
        self._follow_facts(ready)
        self._turn.open()

    def _follow_facts(self, ready: Ready) -> None:
        """Facts are read by the map in force; what was fetched by another counts no more."""
        before, self._facts = self._facts, None
        if ready.data_map is not None and self._instance.legacy and ready.rulings.shape.has_records:
            self._facts = PatientFacts(self._instance.legacy, ready.data_map, ready.version.schema)
        if before is not None:
            task = asyncio.get_running_loop().create_task(before.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _forged_notice(self, words: str) -> None:
        if self._keeper is not None:
            self._keeper.forged_notice(words)

    def _alarmed(self, what: str, words: str) -> None:
        """From any thread."""
        _logger.error("ALARM: %s", words)
        event = Alarm(at=_stamp(), node=self.name, what=what, words=words)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._own_log.post, (encode(event),))


def _tokens(state: State, instance: Instance) -> Tokens:
    from chartgate.adapters.keys import KeyStore, TokenKeys
    from chartgate.app.evaluation_events import CachedTokens
    from chartgate.app.tokens import PatientTokens

    keys = TokenKeys(KeyStore(state.keys_dir), create=True)
    return CachedTokens(PatientTokens(keys, instance.source))


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
