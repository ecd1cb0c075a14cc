"""What one worker counts, and the text a scraper reads (OpenMetrics 1.0).

The rules kept: no label holds what belongs to a patient or a person; services and actions are names
of ours, the latter only as far as the policies know them; the number of series has an end.

A scrape reaches one worker. Each keeps its newest numbers in a file of its own in the state folder,
and whoever is asked answers with all of them, told apart by the label ``worker``.
"""

import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_BOUNDS: Final = (
    25e-6, 50e-6, 75e-6, 100e-6, 150e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2e-3, 3e-3,
    5e-3, 7.5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 250e-3, 1.0,
)  # fmt: skip
_STAGES: Final = ("wait", "parse", "decide", "record", "total")
"""For a turn; of its bytes; facts and decision; until the log has acknowledged it; all of it."""
_MOST_SERIES: Final = 1_000
_STALE_SECONDS: Final = 15.0
_SUFFIX: Final = ".metrics"


class Histogram:
    """Times in seconds. ``add`` only notes them: they are counted when somebody looks."""

    __slots__ = ("_counts", "_noted", "_total", "add")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._total = 0.0
        self._noted: list[float] = []
        self.add: Final[Callable[[float], None]] = self._noted.append
        """One more."""

    def fold(self) -> tuple[list[int], float]:
        """Counts for each bound, and their sum; to be called now and then."""
        noted = sorted(self._noted)
        self._noted.clear()  # the list stays the same: ``add`` is its own
        before = 0
        for number, bound in enumerate(_BOUNDS):
            at = bisect_right(noted, bound)
            self._counts[number] += at - before
            before = at
        self._counts[-1] += len(noted) - before
        self._total += sum(noted)
        return self._counts, self._total


class _Kept(msgspec.Struct, frozen=True):
    """The file of one worker."""

    worker: str
    pid: int
    at: float
    decisions: list[tuple[str, str, str, int]]
    requests: list[tuple[str, int, int]]
    stages: dict[str, tuple[list[int], float]]
    gauges: dict[str, float]
    counters: dict[str, int]
    versions: list[tuple[str, str]]


class Metrics:
    """Counters of one worker; everything is of one event loop."""

    def __init__(self, worker: str, folder: Path | None = None) -> None:
        self._worker = worker
        self._folder = folder
        self._decisions: dict[tuple[str, str, str], int] = {}
        self._requests: dict[tuple[str, int], int] = {}
        self.stages: Final = {stage: Histogram() for stage in _STAGES}
        self.gauges: dict[str, float] = {}
        self.counters: dict[str, int] = {}
        self.policy_set = self.data_map = ""

    def decided(self, outcome: str, action: str, service: str) -> None:
        """One decision: ``allow`` or ``deny``."""
        key = (outcome, action, service)
        count = self._decisions.get(key)
        if count is None and len(self._decisions) >= _MOST_SERIES:
            key = (outcome, "other", "other")
            count = self._decisions.get(key)
        self._decisions[key] = (count or 0) + 1

    def requested(self, endpoint: str, status: int) -> None:
        """One request, answered."""
        key = (endpoint, status)
        self._requests[key] = self._requests.get(key, 0) + 1

    def count(self, name: str, by: int = 1) -> None:
        """One more of something."""
        self.counters[name] = self.counters.get(name, 0) + by

    def fold(self) -> None:
        """Twice a second: what was noted is counted."""
        for one in self.stages.values():
            one.fold()

    def _kept(self) -> _Kept:
        return _Kept(
            self._worker,
            os.getpid(),
            time.time(),
            [(*key, count) for key, count in self._decisions.items()],
            [(*key, count) for key, count in self._requests.items()],
            {name: one.fold() for name, one in self.stages.items()},
            self.gauges,
            self.counters,
            [(self.policy_set, self.data_map)] if self.policy_set else [],
        )

    # --- files, and text -------------------------------------------------------------------

    def save(self) -> None:
        """Keep the numbers where the other workers find them. Not synced: they are only numbers.

        Where there is no room for them, the service goes on without.
        """
        if self._folder is None:
            return
        path = self._folder / f"{self._worker}{_SUFFIX}"
        fresh = path.with_suffix(".fresh")
        with contextlib.suppress(OSError):
            fresh.write_bytes(msgspec.json.encode(self._kept()))
            fresh.replace(path)

    def forget(self) -> None:
        """The worker ends in order."""
        if self._folder is not None:
            (self._folder / f"{self._worker}{_SUFFIX}").unlink(missing_ok=True)

    def text(self) -> bytes:
        """What a scraper reads, of all workers that are alive."""
        return "".join(_lines((self._kept(), *self._others()))).encode()

    def _others(self) -> list[_Kept]:
        found = []
        if self._folder is not None:
            for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
                try:
                    kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
                except (OSError, msgspec.MsgspecError):
                    continue  # being replaced, or of another version
                if kept.worker != self._worker and time.time() - kept.at < _STALE_SECONDS:
                    found.append(kept)
        return found


_COUNTERS: Final[Mapping[str, str]] = {
    "refused_overload": "Requests answered 503 because they would have waited too long",
    "refused_unready": "Requests answered 503 because the node may not decide or cannot record",
    "refused_caller": "Requests of callers that could not be authenticated",
    "refused_malformed": "Requests that were refused before they were understood",
    "refused_connections": "Connections beyond what a worker takes",
    "cut_off": "Connections ended because they were too slow",
}
_GAUGES: Final[Mapping[str, str]] = {
    "connections": "Open connections",
    "in_flight": "Decisions begun and not yet answered",
    "handshakes": "TLS handshakes under way",
    "feed_age_seconds": "Time since the control plane was last compared with what is known here",
    "log_queue": "What waits for the log's writer: its entries, or the requests to it",
    "ready": "Whether the node may decide",
    "epoch": "Epoch of the control plane as this node knows it",
    "log_entries": "Index of the newest entry that was recorded for this worker",
    "start_time_seconds": "When the worker began, since the epoch",
}


def _lines(all_kept: Iterable[_Kept]) -> Iterable[str]:
    all_kept = tuple(all_kept)
    yield from _family("decisions", "counter", "Decisions, recorded and answered")
    for kept in all_kept:
        for outcome, action, service, count in kept.decisions:
            labels = _labels(worker=kept.worker, outcome=outcome, action=action, service=service)
            yield f"chartgate_decisions_total{labels} {count}\n"
    yield from _family("requests", "counter", "Requests by endpoint and HTTP status")
    for kept in all_kept:
        for endpoint, status, count in kept.requests:
            labels = _labels(worker=kept.worker, endpoint=endpoint, status=str(status))
            yield f"chartgate_requests_total{labels} {count}\n"
    for name, words in _COUNTERS.items():
        yield from _family(name, "counter", words)
        for kept in all_kept:
            labels = _labels(worker=kept.worker)
            yield f"chartgate_{name}_total{labels} {kept.counters.get(name, 0)}\n"
    for name, words in _GAUGES.items():
        yield from _family(name, "gauge", words)
        for kept in all_kept:
            if name in kept.gauges:
                yield f"chartgate_{name}{_labels(worker=kept.worker)} {kept.gauges[name]:.17g}\n"
    yield from _family("version", "info", "What this node has in force")
    for kept in all_kept:
        for policy_set, data_map in kept.versions:
            labels = _labels(worker=kept.worker, policy_set=policy_set, data_map=data_map)
            yield f"chartgate_version_info{labels} 1\n"
    yield from _family("stage_seconds", "histogram", "Where the time of a request goes", "seconds")
    for kept in all_kept:
        for stage, (counts, total) in kept.stages.items():
            yield from _histogram(kept.worker, stage, counts, total)
    yield "# EOF\n"


def _histogram(worker: str, stage: str, counts: list[int], total: float) -> Iterable[str]:
    so_far = 0
    for bound, count in zip((*_BOUNDS, None), counts, strict=True):
        so_far += count
        le = "+Inf" if bound is None else repr(float(bound))
        labels = _labels(worker=worker, stage=stage, le=le)
        yield f"chartgate_stage_seconds_bucket{labels} {so_far}\n"
    labels = _labels(worker=worker, stage=stage)
    yield f"chartgate_stage_seconds_count{labels} {so_far}\n"
    yield f"chartgate_stage_seconds_sum{labels} {total:.9g}\n"


def _family(name: str, kind: str, words: str, unit: str = "") -> Iterable[str]:
    yield f"# TYPE chartgate_{name} {kind}\n"
    if unit:
        yield f"# UNIT chartgate_{name} {unit}\n"
    yield f"# HELP chartgate_{name} {words}.\n"


def _labels(**labels: str) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{quoted(value)}"' for name, value in labels.items()) + "}"
