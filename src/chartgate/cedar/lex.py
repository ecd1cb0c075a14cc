"""Cutting a policy file into single policies, with lines, before anything parses it.

cedarpy reports no positions, and its parser overflows the stack (the process dies) on text nested
a few thousand deep. So this pass, which needs only to know strings, comments and brackets, finds
where each policy begins and refuses what is nested too deeply or too long to be handed on. It
decides nothing about meaning: each piece must then parse as exactly one policy, so a
misjudged cut is an error, never another policy.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from chartgate.errors import Misconfigured

# Far above any policy a person writes, far below what overflows the stack of the parser or the
# validator. Measured: with 8 MiB the parser dies between 400 and 1,000 brackets deep; with 1 MiB,
# as a thread may have, everything within these limits still passes.
MAX_NESTING: Final = 30
MAX_STEPS: Final = 2_000
# An "else if" nests without a bracket and costs the parser more than an operator does.
_IF_STEPS: Final = 8


class InvalidPolicies(Misconfigured):
    """A policy or schema text cannot be obeyed; each line reads ``file:line: reason``."""

    code = "invalid_policies"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def one_line(text: object) -> str:
    """A message of the parser on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one policy and the line of its first token."""

    text: str
    line: int


# Order matters: strings and comments first, so that what they contain is not seen as code.
_TOKEN: Final = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<comment>//[^\n\r]*)"
    r"|(?P<blank>\s+)"
    r"|(?P<word>[A-Za-z_0-9]+)"
    r"|(?P<open>[(\[{])"
    r"|(?P<close>[)\]}])"
    r"|(?P<end>;)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}
_STEP_WORDS: Final = frozenset({"if", "has", "is", "in", "like"})


class _Piece:
    """The policy being cut: where it began, and how deep and long it has grown."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.start: int | None = None
        self.line = 0
        self.open: list[tuple[str, int]] = []
        self.steps = 0

    def step(self, line: int, cost: int) -> None:
        self.steps += cost
        if self.steps > MAX_STEPS:
            raise InvalidPolicies(
                f"{self.file}:{line}: more than {MAX_STEPS} operators in one policy"
            )

    def opened(self, bracket: str, line: int) -> None:
        self.open.append((bracket, line))
        if len(self.open) > MAX_NESTING:
            raise InvalidPolicies(
                f"{self.file}:{line}: brackets nested more than {MAX_NESTING} deep"
            )

    def closed(self, bracket: str, line: int) -> None:
        if not self.open or self.open.pop()[0] != _PAIRS[bracket]:
            raise InvalidPolicies(f"{self.file}:{line}: {bracket} closes nothing")


def cut(text: str, file: str) -> Iterator[Piece]:
    """The policies of a file in order, comments and blanks before them dropped."""
    piece, line = _Piece(file), 1
    for found in _TOKEN.finditer(text):
        kind, lexeme = found.lastgroup, found.group()
        if kind not in ("blank", "comment") and piece.start is None:
            piece.start, piece.line = found.start(), line
        if kind == "open":
            piece.opened(lexeme, line)
        elif kind == "close":
            piece.closed(lexeme, line)
        elif kind == "end" and not piece.open:
            yield Piece(text[piece.start : found.end()], piece.line)
            piece = _Piece(file)
        elif kind == "other" and lexeme == '"':
            raise InvalidPolicies(f"{file}:{line}: the string is not closed")
        elif (kind == "other" and lexeme not in ",:") or lexeme in _STEP_WORDS:
            piece.step(line, _IF_STEPS if lexeme == "if" else 1)
        line += lexeme.count("\n")
    if piece.open:
        bracket, opened = piece.open[-1]
        raise InvalidPolicies(f"{file}:{opened}: {bracket} is not closed")
    if piece.start is not None:
        raise InvalidPolicies(f"{file}:{piece.line}: the policy does not end with ;")
