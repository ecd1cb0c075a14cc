"""Answers used again for a moment: only such as release nothing of a patient. Off by default.

The rule kept (45 CFR 164.312(b)): every use of a decision that opens a patient's record has an entry
of its own in the audit log. An answer used again has none, so that an answer about a record, one with
levels, fields or a patient, is never kept. What may be kept is an allowed answer to a plain question
("may she open the scheduling screen?"), and the screen's own questions about records are asked. A no
is not kept either: an attempt that was refused is evidence, and a right just given counts at once.

An answer is kept for ``max_age`` at most (5 s, the longest that any part of Chartgate may lag), never
past its ``valid_until``; all are dropped as soon as any answer shows another policy set or epoch.
"""

from collections import OrderedDict
from datetime import datetime
from threading import Lock
from typing import Final

import msgspec

from chartgate.app.question import Question
from chartgate.sdk.decision import Decision
from chartgate.sdk.errors import Misused
from chartgate.sdk.questions import RECORD, question_body

MAX_AGE: Final = 5.0
_ENTRIES: Final = 4096

_encoder: Final = msgspec.json.Encoder(order="deterministic")


class AnswerCache:
    """Thread-safe; the oldest make room."""

    def __init__(self, *, max_age: float, entries: int = _ENTRIES) -> None:
        if not 0 < max_age <= MAX_AGE:
            raise Misused(f"an answer is kept for more than 0 and at most {MAX_AGE:g} seconds")
        self._max_age: Final = max_age
        self._most: Final = max(1, entries)
        self._lock: Final = Lock()
        self._kept: Final[OrderedDict[bytes, tuple[float, Decision]]] = OrderedDict()
        self._version: tuple[str, str, int] | None = None

    def find(self, asked: Question, now: float) -> Decision | None:
        """The answer, if there is one that still counts."""
        if not may_be_kept(asked):
            return None
        key = _key(asked)
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            ends, decision = found
            if now >= ends:
                del self._kept[key]
                return None
            return decision

    def answered(self, asked: Question, decision: Decision, now: float, at: datetime) -> None:
        """Take note of an answer: keep it if it may be kept, drop others if it is of another time."""
        if not decision.is_answer:
            return
        version = (decision.policy_set, decision.data_map, decision.epoch)
        ends = now + self._max_age
        if decision.valid_until is not None:
            ends = min(ends, now + (decision.valid_until - at).total_seconds())
        with self._lock:
            if version != self._version:
                self._kept.clear()
                self._version = version
            if not decision.allowed or decision.levels or decision.fields:
                return
            if not may_be_kept(asked) or ends <= now:
                return
            self._kept[_key(asked)] = (ends, decision)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


def may_be_kept(asked: Question) -> bool:
    """Whether the question is none about a patient's record."""
    return asked.resource.type != RECORD and "patient" not in asked.resource.properties


def _key(asked: Question) -> bytes:
    try:
        return _encoder.encode(question_body(asked))
    except (TypeError, ValueError) as exc:
        raise Misused("a question holds JSON values only") from exc
