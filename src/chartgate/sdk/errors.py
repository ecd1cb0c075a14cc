"""What an application sees when it may not, or cannot: named for what happened, without PHI.

The rule kept: every way that is not a clear yes ends here or in a ``Decision`` that says no.
"""

from typing import TYPE_CHECKING, ClassVar

from chartgate.errors import Misconfigured, Refused

if TYPE_CHECKING:
    from chartgate.sdk.decision import Decision


class AccessDenied(Refused):
    """The policy says no; ``decision`` holds the reason and what would change the answer."""

    code = "access_denied"

    def __init__(self, decision: "Decision") -> None:
        reason = decision.reason
        super().__init__(reason.text if reason is not None and reason.text else "access denied")
        self.decision = decision


class Unavailable(Refused):
    """No answer could be had in time, so the answer is no; ask again later."""

    code = "unavailable"
    retry_after: ClassVar[int] = 1
    """Seconds that a client is told to wait."""


class QuestionRefused(Refused):
    """The service did not take the question: our account may not ask it, or it is malformed."""

    code = "question_refused"


class NotIdentified(Refused):
    """Nobody is signed in, so nobody can be asked about."""

    code = "not_identified"


class Unasked(Misconfigured):
    """A route answered without having asked Chartgate, and is not marked ``public``."""

    code = "unasked"


class Misused(Misconfigured):
    """The SDK was called in a way that could not be safe; the message says what to change."""

    code = "misused"
