"""Puts policy versions in force from a thread of its own, while the engine goes on answering.

One version at a time, in the order asked for. The thread works for less than half a millisecond at a
time and rests three times as long. A decision that falls into its work waits that long; those behind
it find caches that the work has filled otherwise; and both must stay fewer than one in a hundred, so
that the 99th percentile is hardly moved. While the thread works Python hands the interpreter over
more often than it otherwise would, so that a step that takes longer is waited for half a millisecond,
not five.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Self

from chartgate.app.engine import Engine, ValidPolicies
from chartgate.app.policy_bundle import PolicyVersion

_TURN: Final = 0.0005
_WORK: Final = 0.0004
_REST: Final = 0.0012


class EngineLoader:
    """Loads versions into one engine, in the background."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine
        self._worker: Final = ThreadPoolExecutor(1, thread_name_prefix="policy-warmup")

    def load(self, source: PolicyVersion | ValidPolicies) -> "Future[None]":
        """The version is in force when the future is done; ``Misconfigured`` is its exception,
        and then nothing has changed."""
        return self._worker.submit(self._load, source)

    def _load(self, source: PolicyVersion | ValidPolicies) -> None:
        paced(self._engine.loading(source))

    def close(self) -> None:
        """Wait for what was asked for and end the thread."""
        self._worker.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def paced(steps: Iterator[int]) -> None:
    """Take all steps, in this thread, at the pace at which others go on."""
    with _short_turns():
        began = time.perf_counter()
        for _ in steps:
            if time.perf_counter() - began > _WORK:
                time.sleep(_REST)
                began = time.perf_counter()


@contextmanager
def _short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
