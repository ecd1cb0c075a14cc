"""Group commit for asyncio: many waiters, one signed checkpoint and one ``fdatasync``.

Rules kept: ``append`` returns only when its entries are on the medium (45 CFR 164.312(b): nothing
is released before); order of arrival is order in the log; a waiter that is cancelled changes
nothing for the others, and its entries are recorded all the same (too much is logged, never too
little); when the log is poisoned every waiter, present and later, gets ``LogUnavailable``. The
queue is bounded: appends wait for room, posts are refused.

Entries that nobody waits for yet (``place``, ``post``) linger for up to 5 ms, so that what is waited
for next shares their commit. Their place in the log is known at once: there is one writer, the order
is that of arrival, and a commit that fails is the last. Entries that may be lost with the power
(``durable=False``) are written at once and linger on the file instead: signed and synced within 5 ms.

A fast disk is synced on the loop's own thread, which saves the hop to a worker (0.1-0.2 ms); a
slow one in a worker, so that the loop keeps serving.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from chartgate.adapters.audit_log import Answered
from chartgate.adapters.log_files import Commit, LogFiles, Packed, check_entries
from chartgate.adapters.log_queue import MAX_QUEUED, LogQueue, Waiting, answer, entries_of
from chartgate.errors import ChartgateError, LogUnavailable

FAST_SECONDS = 0.0005
LINGER_SECONDS = 0.005
_WEIGHT = 0.2

Callback = Callable[[int, tuple[bytes, ...]], None]
"""(index of the first entry, entries), called on the loop after they are on the medium."""


class LogWriter:
    """The one committer of a node, on one event loop. Closing it closes the files."""

    def __init__(self, files: LogFiles, *, max_queued: int = MAX_QUEUED) -> None:
        self._files = files
        self._queue = LogQueue(max_queued)
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._next = files.size
        self._wake = asyncio.Event()
        self._is_due = False
        self._is_write_due = False
        self._untold: list[bytes] = []
        """Entries that are written and not signed yet."""
        self._lingering: asyncio.TimerHandle | None = None
        self._settling: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        # one commits, one packs a segment, one makes room ahead
        self._executor = ThreadPoolExecutor(3, "audit-log")
        self._packing: asyncio.Future[Packed] | None = None
        self._extending: asyncio.Future[None] | None = None
        self._usual_sync = 2 * FAST_SECONDS  # slow until shown otherwise
        self._failure: LogUnavailable | None = None
        self._closing = False
        self._callbacks: list[Callback] = []

    @property
    def size(self) -> int:
        """Entries on the medium."""
        return self._files.size

    @property
    def checkpoint(self) -> str:
        """The signed checkpoint over them."""
        return self._files.checkpoint

    @property
    def origin(self) -> str:
        """Origin line of the log's checkpoints."""
        return self._files.origin

    @property
    def is_linked(self) -> bool:
        """Whether it takes entries: a log that has failed is opened by a new process, or not."""
        return self._failure is None

    @property
    def queued(self) -> int:
        """Entries that wait for their commit."""
        return self._queue.count

    @property
    def is_full(self) -> bool:
        """Whether an append would have to wait for room."""
        return self._queue.is_full

    async def append(self, entries: Sequence[bytes], *, durable: bool = True) -> int:
        """The index of the first of these entries, once they are on the medium.

        With ``durable=False``, once they are written: on the medium within 5 ms.
        """
        check_entries(entries)
        self._check_usable()
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        answered = partial(_resolve, done)
        if self.is_full or self._turn.locked():
            async with self._turn:  # first come, first served
                await self._wait_for_room()
                self._put(entries, answered, durable=durable)
        else:
            self._put(entries, answered, durable=durable)
        return await done

    def submit(self, entries: Sequence[bytes], answered: Answered, *, durable: bool = True) -> None:
        """As ``append``; calls back, and does not wait for room: see ``is_full``."""
        check_entries(entries)
        self._check_usable()
        self._put(entries, answered, durable=durable)

    def take(self, entries: Sequence[bytes]) -> int:
        """As ``place``; does not wait for room: see ``is_full``."""
        check_entries(entries)
        self._check_usable()
        return self._put(entries, None)

    async def room(self) -> None:
        """Returns once the queue has room; who waits is served in the order of coming."""
        async with self._turn:
            await self._wait_for_room()

    async def place(self, entries: Sequence[bytes]) -> int:
        """Give entries their place in the log and go on; answers the index of the first.

        They are on the medium within 5 ms, or once somebody waits: see ``settled``.
        """
        check_entries(entries)
        self._check_usable()
        if self.is_full or self._turn.locked():
            await self.room()
        return self._put(entries, None)

    async def settled(self, index: int) -> None:
        """Returns once the entry with this index is on the medium.

        A log that has failed lets nothing go, be it on the medium or not.
        """
        self._check_sound()
        if index < self._files.size:
            return
        self._check_usable()
        if index >= self._next:
            raise LogUnavailable("the audit log has promised no such entry")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append((index, done))
        self._commit_now()
        await done

    def post(self, entries: Sequence[bytes]) -> None:
        """Queue entries and go on; a failure to write them is raised by the next ``append``."""
        check_entries(entries)
        if self._failure is not None:
            return
        if self._closing or self.is_full:
            raise LogUnavailable("the audit log takes no entries: its queue is full or closing")
        self._put(entries, None)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call back with each commit, in order; the answer ends the subscription."""
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    async def close(self) -> None:
        """Write what is queued, then close the files."""
        self._closing = True
        self._commit_now()
        self._room.set()  # who waits for room is let go, and raises
        try:
            if self._task is not None:
                await asyncio.wait([self._task])
            if self._extending is not None:
                await asyncio.wait([self._extending])
            if self._packing is not None and self._failure is None:
                done, self._packing = await self._packing, None
                self._files.switch(done)
        finally:
            self._executor.shutdown(wait=True)
            self._files.close()

    async def head(self) -> tuple[int, str]:
        """Size, and the signed checkpoint over exactly as many entries."""
        self._check_sound()
        return self._files.size, self._files.checkpoint

    async def _wait_for_room(self) -> None:
        while self.is_full and self._failure is None and not self._closing:
            self._room.clear()
            await self._room.wait()
        self._check_usable()

    def _check_sound(self) -> None:
        if self._failure is None and self._files.is_poisoned and not self._closing:
            # Poisoned beside us: it is not for the next commit to find out.
            try:
                self._files.check_usable()
            except LogUnavailable as exc:
                self._fail([], exc)
        if self._failure is not None:
            raise LogUnavailable(str(self._failure)) from self._failure

    def _check_usable(self) -> None:
        if self._failure is None and self._closing:
            raise LogUnavailable("the audit log takes no entries: it is closing")
        self._check_sound()

    def _put(
        self, entries: Sequence[bytes], answered: Answered | None, *, durable: bool = True
    ) -> int:
        waiting = Waiting(tuple(entries), self._next, answered, durable)
        self._queue.put(waiting)
        self._next += len(waiting.entries)
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="audit log")
        if (answered is not None and durable) or self.is_full:
            self._commit_now()
        elif answered is not None:
            self._is_write_due = True
            self._wake.set()
        else:
            self._linger()
        return waiting.first

    def _linger(self) -> None:
        if self._lingering is None and not self._is_due:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(LINGER_SECONDS, self._commit_now)

    def _commit_now(self) -> None:
        self._is_due = True
        self._wake.set()
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _take_batch(self) -> list[Waiting]:
        batch = self._queue.take_batch()
        self._room.set()
        return batch

    async def _run(self) -> None:
        batch: list[Waiting] = []
        try:
            while True:
                if not await self._has_work():
                    return
                if self._is_due:
                    batch = self._take_batch()
                    await self._commit_batch(batch)
                else:
                    batch = self._take_batch()
                    self._write_batch(batch)
                batch = []
                await asyncio.sleep(0)
        except LogUnavailable as exc:
            self._fail(batch, exc)
        except BaseException as exc:
            # a cancelled committer, or a fault of ours: nobody may believe they were recorded
            reason = str(exc) if isinstance(exc, ChartgateError) else type(exc).__name__
            self._files.poison(reason)
            self._fail(batch, LogUnavailable(f"the audit log stopped: {reason}"))
            if isinstance(exc, asyncio.CancelledError):
                raise

    async def _has_work(self) -> bool:
        """Wait for some; False when there will be none."""
        while True:
            if self._is_due and (self._queue or self._untold):
                return True
            if self._is_write_due and self._queue:
                return True
            if self._closing and not self._queue and not self._untold:
                return False
            self._is_due = self._closing
            self._is_write_due = False
            if not self._is_due:
                self._wake.clear()
                await self._wake.wait()

    async def _commit_batch(self, batch: list[Waiting]) -> None:
        if not self._queue:
            self._is_due = self._closing
        entries = entries_of(batch)
        commit = await self._commit(entries)
        if batch and commit.first_index != batch[0].first:
            raise LogUnavailable("the audit log is not where it was said to be")
        answer(batch)
        self._settle()
        self._tell(entries)
        await self._extend()

    def _write_batch(self, batch: list[Waiting]) -> None:
        entries = entries_of(batch)
        if self._files.write(entries) != batch[0].first:
            raise LogUnavailable("the audit log is not where it was said to be")
        answer(batch)
        if self._files.written > self._files.size:
            self._untold += entries
            self._linger()
        else:  # it ended a segment, and was signed
            self._settle()
            self._tell(entries)

    async def _commit(self, entries: tuple[bytes, ...]) -> Commit:
        await self._roll()
        append = partial(self._files.append, entries, roll=False) if entries else self._files.seal
        if self._usual_sync < FAST_SECONDS:
            commit = append()
        else:
            loop = asyncio.get_running_loop()
            commit = await loop.run_in_executor(self._executor, append)
        took = min(self._files.sync_seconds, 2 * FAST_SECONDS)  # one slow sync is no slow disk
        self._usual_sync += _WEIGHT * (took - self._usual_sync)
        return commit

    async def _roll(self) -> None:
        """Pack a full segment in the background; wait for it only when the next is full too."""
        loop = asyncio.get_running_loop()
        if self._packing is None and self._files.is_roll_due:
            self._packing = loop.run_in_executor(self._executor, self._files.pack)
        if self._packing is not None and (self._packing.done() or self._files.is_roll_overdue):
            done = await self._packing
            self._packing = None
            await self._extended()
            await loop.run_in_executor(self._executor, self._files.switch, done)

    async def _extend(self) -> None:
        """Make room in the background; nobody waits for it."""
        if self._extending is not None and self._extending.done():
            await self._extended()
        if self._extending is None and self._files.is_extension_due:
            loop = asyncio.get_running_loop()
            self._extending = loop.run_in_executor(self._executor, self._files.extend)

    async def _extended(self) -> None:
        if self._extending is not None:
            extending, self._extending = self._extending, None
            await extending

    def _settle(self) -> None:
        waiting, self._settling = self._settling, deque()
        for index, done in waiting:
            if index >= self._files.size:
                self._settling.append((index, done))
            elif not done.done():
                done.set_result(None)

    def _fail(self, batch: list[Waiting], failure: LogUnavailable) -> None:
        self._failure = failure
        for beside in (self._packing, self._extending):
            if beside is not None:  # its failure is told by this one
                beside.add_done_callback(lambda done: done.cancelled() or done.exception())
        for waiting in (*batch, *self._queue.take_all()):
            if waiting.answered is not None:
                waiting.answered(_because(failure))
        for _, settled in self._settling:
            if not settled.done():
                settled.set_exception(_because(failure))
        self._settling.clear()
        self._room.set()

    def _tell(self, entries: tuple[bytes, ...]) -> None:
        if self._untold:
            entries, self._untold = (*self._untold, *entries), []
        index = self._files.size - len(entries)
        for callback in tuple(self._callbacks):
            try:
                callback(index, entries)
            except Exception as exc:  # noqa: BLE001  a tail that fails must not stop the log
                context = {"message": "a subscriber of the audit log failed", "exception": exc}
                asyncio.get_running_loop().call_exception_handler(context)


def _resolve(done: "asyncio.Future[int]", answer: int | ChartgateError) -> None:
    if done.done():
        return  # its waiter went away
    if isinstance(answer, int):
        done.set_result(answer)
    else:
        done.set_exception(answer)


def _because(failure: LogUnavailable) -> LogUnavailable:
    error = LogUnavailable(str(failure))
    error.__cause__ = failure
    return error
