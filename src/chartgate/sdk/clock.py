"""The machine's clocks and chance, for those who are given them."""

import random
import time
from datetime import UTC, datetime
from typing import Final


class SystemClock:
    """What the machine says."""

    def now(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()

    def at(self) -> datetime:
        """The time of day."""
        return datetime.now(UTC)

    def jitter(self) -> float:
        """From 0 to 1."""
        return random.random()  # noqa: S311  (when to come back, nothing to guess)


SYSTEM: Final = SystemClock()
