"""What the decision service says of itself: JSON lines on standard error.

The rule kept: a line is made of names of ours, numbers and kinds of faults. Never of a body, a query
string, an id or a header: any of them may be a patient's. Text of exceptions stays out for the same
reason.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

_FIELDS: Final = ("endpoint", "status", "micros", "service", "worker", "pid", "peer_uid")


class JsonLines(logging.Formatter):
    """One record, one line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "process": self._process,
            "from": record.name,
            "message": record.getMessage(),
        }
        said |= {name: record.__dict__[name] for name in _FIELDS if name in record.__dict__}
        if record.exc_info is not None and record.exc_info[0] is not None:
            said["fault"] = record.exc_info[0].__name__
        return msgspec.json.encode(said).decode()


def log_to_stderr(process: str, level: int = logging.INFO) -> None:
    """Everything that this process logs goes to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
