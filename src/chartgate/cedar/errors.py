"""The error of an evaluation. In Cedar it is an outcome: it skips the policy and is reported."""

from typing import Literal as OneOf
from typing import TypeAlias

from chartgate.errors import ChartgateError

ErrorKind: TypeAlias = OneOf[
    "type", "overflow", "missing_attribute", "missing_entity", "missing_tag", "extension", "arity",
    "slot", "depth",
]  # fmt: skip


class EvaluationError(ChartgateError):
    """A condition has no value. ``kind`` is for programs; the words hold no value from data."""

    code = "evaluation_error"

    def __init__(self, kind: ErrorKind, words: str) -> None:
        super().__init__(f"{kind}: {words}")
        self.kind = kind
