"""A node's side of the policy life cycle: hear of a new version, verify it, record it, obey it.

Rules kept: what the control plane says is verified against the log before anything else is done
with it (``app.policy_orders``); a version that cannot be verified, read or enforced never replaces
the one in force, and is an alarm in the log and on stderr. Reading and building happen in a worker
thread, the replacement is one assignment between two statements. ``policy_in_force`` takes its place
in the log in the same instant: every decision after it is by the new version, every one before it by
another, and nothing decided by the new one leaves before both are on disk (decide, record, act).
What cannot be kept for the next start is not obeyed at all.

A version that is approved is read and built before anybody orders it, and the one that was in force
before is kept, so that an activation or a rollback has nothing left to do but to be verified.

The node looks when the control plane notifies, and every five seconds by itself, so a row that was
put in behind the triggers' back is found too.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Self

import psycopg

from chartgate.adapters.audit_log import AuditLog
from chartgate.adapters.control_plane import ControlPlaneUnavailable
from chartgate.adapters.policy_in_force import Loaded, load, stage, trusted_keys
from chartgate.adapters.policy_store import (
    ForgedContent,
    NodeRow,
    PolicyStore,
    StepRow,
    connect,
)
from chartgate.adapters.state import State
from chartgate.app.in_force import InForce
from chartgate.app.policy_bundle import Bundle
from chartgate.app.policy_orders import Obeyed, Order, check_approval, check_order, open_step
from chartgate.app.session_views import Source
from chartgate.errors import ChartgateError, LogUnavailable, Misconfigured
from chartgate.govern.policy_version import MAP, POLICIES
from chartgate.model.event import Alarm, PolicyInForce, encode

LOOK_SECONDS: Final = 5.0
_BUILT_AHEAD: Final = 4
_QUIET_SECONDS: Final = 2.0
_MOST_ALARMS: Final = 20
"""Of one look; how many more there are is said in one."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Found:
    """What one look came to."""

    alarms: list[tuple[str, str]] = field(default_factory=list)
    steps: list[tuple[str, Obeyed, Loaded, Source]] = field(default_factory=list)
    """(subject, order, everything with it in force, source) in the order to obey."""
    ahead: list[tuple[str, str]] = field(default_factory=list)
    """(subject, content) of approved versions, to be built ahead."""


class PolicyKeeper:
    """Keeps what a gate decides by up to date; use as an async context manager, entering which
    returns once it is.

    ``read_source`` reads the live catalog for a map's schema. ``prepare`` makes ready whatever else
    decides by a version, in the thread that built it; what it raises counts against the version.
    """

    def __init__(
        self,
        state: State,
        node: str,
        conninfo: str,
        log: AuditLog,
        loaded: Loaded,
        in_force: InForce,
        read_source: Callable[[str], Source],
        prepare: Callable[[Loaded], None] = lambda _loaded: None,
    ) -> None:
        self._state = state
        self._node = node
        self._conninfo = conninfo
        self._log = log
        self._loaded = loaded
        self._in_force = in_force
        self._read_source = read_source
        self._prepare = prepare
        self._subjects = (POLICIES, f"{MAP}{loaded.data_map.source}")
        self._keys = trusted_keys(state)
        self._seen_row = 0
        self._ahead: dict[tuple[str, str], Loaded] = {
            (loaded.version.hash, loaded.map_bundle.hash): loaded
        }
        self._said: dict[str, tuple[str, int]] = {}
        """What the control plane was told that is in force here."""
        self._told: set[str] = set()
        """What was alarmed."""
        self._refused: set[str] = set()
        """Orders that are not looked at again."""
        self._tried: set[int] = set()
        """Approvals whose version was built ahead, or could not be."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._link: psycopg.Connection | None = None
        self._forged = 0
        """Notifications without a change that were not told yet."""
        self._telling: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> Loaded:
        """What is in force here."""
        return self._loaded

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Obey what is newest, then follow. Raises when what is ordered cannot be believed."""
        await self.look()
        if POLICIES not in self._loaded.held and self._told:
            raise Misconfigured(
                "the control plane names policies in force, but no order for them can be verified: "
                "nothing starts on policies that nobody here approved"
            )
        self._task = asyncio.create_task(self._follow(), name="policy-keeper")

    async def stop(self) -> None:
        """Stop following; what is in force stays."""
        for task in (self._task, self._telling):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, LogUnavailable):
                    await task
        self._task = self._telling = None
        async with self._turn:
            if self._link is not None:
                self._link.close()

    def wake(self, _: object = None) -> None:
        """The control plane changed: look soon."""
        self._wake.set()

    def forged_notice(self, words: str) -> None:
        """A notification that no change made: recorded; there is nothing to obey.

        However many come, the log is not filled by them: after the first they are counted.
        """
        self._forged += 1
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell_forged(words))

    async def _tell_forged(self, words: str) -> None:
        while self._forged:
            times, self._forged = self._forged, 0
            many = f" ({times} times)" if times > 1 else ""
            await self._alarm("forged_notification", words + many)
            await asyncio.sleep(_QUIET_SECONDS)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # not wait_for: before Python 3.12 a cancellation in the instant of a wake is lost
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.look()
            except (psycopg.Error, ChartgateError, OSError) as exc:
                _logger.warning("policy store: cannot be read (%s)", type(exc).__name__)
            except Exception:
                _logger.exception("the policy keeper failed; what is in force stays")

    async def look(self) -> None:
        """Look once, and obey what is to be obeyed."""
        async with self._turn:
            found = await asyncio.to_thread(self._look)
            for what, words in found.alarms[:_MOST_ALARMS]:
                await self._alarm(what, words)
            if more := found.alarms[_MOST_ALARMS:]:
                words = "more rows of the control plane are refused; `policy versions` lists them"
                await self._alarm(more[0][0], f"{len(more)} {words}")
            for subject, obeyed, loaded, source in found.steps:
                if not await self._obey(subject, obeyed, loaded, source):
                    break
            for subject, content in found.ahead:
                await asyncio.to_thread(self._build_ahead, subject, content)
            await self._tell_all()

    async def _obey(self, subject: str, obeyed: Obeyed, loaded: Loaded, source: Source) -> bool:
        """Whether it is in force now; if not, what was in force stays and it is tried again."""
        before = self._loaded.held.get(subject)
        event = PolicyInForce(
            at=_stamp(),
            node=self._node,
            subject=subject,
            content=obeyed.content,
            generation=obeyed.generation,
            activation=obeyed.activation.index,
            log=obeyed.activation.log,
            policy_set=loaded.version.policies.hash,
            data_map=loaded.data_map.hash,
            previous="" if before is None else before.content,
        )
        try:
            fresh = await asyncio.to_thread(stage, self._state, subject, obeyed)
        except OSError as exc:
            words = f"{subject} {obeyed.content[:12]} was ordered, but cannot be kept here"
            if words not in self._told:
                self._told.add(words)
                await self._alarm("unusable_version", f"{words}: {exc.strerror}")
            return False
        try:
            index = await self._log.place((encode(event),))
            # No await between the two: no session decides in between.
            self._loaded = loaded
            self._in_force.replace(loaded.point, source)
            await self._log.settled(index)
            await asyncio.to_thread(fresh.take_effect)
        finally:
            fresh.discard()
        await self._tell_all()
        return True

    async def _tell_all(self) -> None:
        """Say what is in force here, until it was heard: only told, never believed."""
        for subject, obeyed in self._loaded.held.items():
            said = (obeyed.content, obeyed.generation)
            if self._said.get(subject) == said:
                continue
            with contextlib.suppress(psycopg.Error, ChartgateError):
                await asyncio.to_thread(self._report, subject, obeyed)
                self._said[subject] = said

    async def _alarm(self, what: str, words: str) -> None:
        _logger.error("ALARM: %s", words)
        await self._log.append(
            (encode(Alarm(at=_stamp(), node=self._node, what=what, words=words)),)
        )

    # In a worker thread, one at a time.

    @contextmanager
    def _open(self) -> Iterator[PolicyStore]:
        """The store, by a connection that is kept: an order is not to wait for a new one."""
        if self._link is None or self._link.closed:
            self._link = connect(self._conninfo)
        try:
            yield PolicyStore(self._link)
        except (psycopg.Error, ControlPlaneUnavailable):
            self._link.close()  # the next look has another
            raise

    def _look(self) -> _Found:
        found = _Found()
        loaded, source = self._loaded, self._in_force.current.source
        with self._open() as store, store.at_one_instant():
            since, self._seen_row = self._seen_row, store.last_id()
            orders: dict[str, Obeyed] = {}
            for subject in self._subjects:
                order = self._newest(store, subject, loaded.held.get(subject), since, found)
                if order is None:
                    found.ahead += self._approved(store, subject)
                else:
                    orders[subject] = order
        # Policies may need the map that was ordered with them, or it them: each after the other.
        failed: dict[str, ChartgateError] = {}
        for subject in (*orders, *orders):
            order = orders[subject]
            if any(done == subject for done, *_ in found.steps):
                continue
            try:
                loaded, source = self._with(subject, order, loaded, source)
            except psycopg.Error:
                _logger.warning("the catalog for %s cannot be read now", subject)
                continue
            except ChartgateError as exc:
                failed[subject] = exc
                continue
            except Exception as exc:
                # A fault of ours must not keep anybody from obeying the other order.
                _logger.exception("%s %s cannot be read", subject, order.content[:12])
                failed[subject] = Misconfigured(f"reading it failed ({type(exc).__name__})")
                continue
            failed.pop(subject, None)
            found.steps.append((subject, order, loaded, source))
        for subject, reason in failed.items():
            self._doubt(
                found,
                self._unusable(subject, orders[subject], loaded),
                "unusable_version",
                f"{subject} {orders[subject].content[:12]} was ordered, but cannot be enforced "
                f"here: {reason}",
            )
        return found

    def _unusable(self, subject: str, order: Obeyed, loaded: Loaded) -> str:
        """Mark of an order that does not go with what else is in force: with another it may."""
        other = loaded.map_bundle if subject == POLICIES else loaded.version.bundle
        return f"unusable {subject} {order.content} {order.generation} with {other.hash}"

    def _newest(
        self, store: PolicyStore, subject: str, held: Obeyed | None, since: int, found: _Found
    ) -> Obeyed | None:
        newest = 0 if held is None else held.generation
        rows = store.orders(subject, above=newest, since=since or 1 << 62)
        orders: list[Obeyed] = []
        for row in rows:
            if held is not None and (row.sealed, row.content, row.generation) == (
                held.order.activation,
                held.content,
                held.generation,
            ):
                continue
            mark = _mark(subject, row)
            if mark in self._refused:
                continue
            try:
                orders.append(self._order(store, subject, row, newest))
            except ChartgateError as exc:
                if not isinstance(exc, ForgedContent):  # content may be put right again
                    self._refused.add(mark)
                self._doubt(
                    found,
                    mark,
                    "forged_order",
                    f"the control plane orders {subject} {row.content[:12]}, which is refused: "
                    f"{exc}",
                )
        if held is not None and not store.holds(subject, held.order.activation):
            self._doubt(
                found,
                f"missing {subject} {held.generation}",
                "lost_order",
                f"the control plane no longer holds the activation of {subject} "
                f"{held.content[:12]}, which is in force here",
            )
        usable = [
            order
            for order in orders
            if self._unusable(subject, order, self._loaded) not in self._told
        ]
        return max(usable, key=lambda order: order.generation, default=None)

    def _order(self, store: PolicyStore, subject: str, row: StepRow, newest: int) -> Obeyed:
        bundle = store.bundle(subject, row.content)
        doubt: ChartgateError | None = None
        for approval in store.approvals(subject, row.content):
            try:
                order = Order(bundle, approval.sealed, row.sealed)
                return check_order(order, subject, self._keys, newest=newest)
            except ChartgateError as exc:
                doubt = doubt or exc
        raise doubt or Misconfigured(f"{row.content[:12]} has no approval")

    def _with(
        self, subject: str, order: Obeyed, loaded: Loaded, source: Source
    ) -> tuple[Loaded, Source]:
        held = {**loaded.held, subject: order}
        if subject == POLICIES:
            fresh = self._built(order.order.bundle, loaded.map_bundle, held)
        else:
            fresh = self._built(loaded.version.bundle, order.order.bundle, held)
            if fresh.data_map.source != loaded.data_map.source:
                raise Misconfigured("the data map is that of another source")
            source = self._read_source(fresh.data_map.schema)
        fresh.point.check_columns(source.tables)
        return fresh, source

    def _built(self, policies: Bundle, data_map: Bundle, held: dict[str, Obeyed]) -> Loaded:
        """From what was built before, if it was."""
        key = (policies.hash, data_map.hash)
        found = self._ahead.pop(key, None) or load(policies, data_map, held)
        self._prepare(found)
        self._ahead[key] = found
        while len(self._ahead) > _BUILT_AHEAD:
            del self._ahead[next(iter(self._ahead))]
        return replace(found, held=held)

    def _approved(self, store: PolicyStore, subject: str) -> list[tuple[str, str]]:
        row = store.approved_last(subject)
        held = self._loaded.held.get(subject)
        if row is None or (held is not None and held.content == row.content):
            return []
        if row.id in self._tried:
            return []
        self._tried.add(row.id)
        try:
            approval = open_step(row.sealed, self._keys)
            check_approval(approval)
        except ChartgateError:
            return []  # told when somebody orders it
        return [(subject, approval.event.content)]

    def _build_ahead(self, subject: str, content: str) -> None:
        loaded = self._loaded
        with contextlib.suppress(ChartgateError, psycopg.Error):  # told when somebody orders it
            with self._open() as store:
                bundle = store.bundle(subject, content)
            if subject == POLICIES:
                self._built(bundle, loaded.map_bundle, {})
            else:
                self._built(loaded.version.bundle, bundle, {})

    def _report(self, subject: str, obeyed: Obeyed) -> None:
        row = NodeRow(self._node, subject, obeyed.content, obeyed.generation, datetime.now(UTC))
        with self._open() as store:
            store.set_node(row)

    def _doubt(self, found: _Found, mark: str, what: str, words: str) -> None:
        if mark not in self._told:
            self._told.add(mark)
            found.alarms.append((what, words))


def _mark(subject: str, row: StepRow) -> str:
    text = f"{subject}\n{row.id}\n{row.content}\n{row.generation}\n{row.sealed.proof}".encode()
    return hashlib.sha256(text + row.sealed.entry).hexdigest()


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
