"""Cutting a policy file into single policies, with places, before anything parses it.

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
# Room for sets of 10,000 named entities, at six tokens each, three times over. cedarpy and its
# JSON form take about a kilobyte for each token, so this is what bounds memory.
MAX_TOKENS: Final = 200_000
# ``has a.b.c`` is written out by the parser as a conjunction of every prefix: quadratic in length.
MAX_HAS_CHAIN: Final = 50
# An "else if" nests without a bracket and costs the parser more than an operator does.
_IF_STEPS: Final = 8


class InvalidPolicies(Misconfigured):
    """A policy or schema text cannot be obeyed.

    Each line reads ``file:line:column: reason``, or ``file:line: reason`` where only a whole policy
    is at fault.
    """

    code = "invalid_policies"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def one_line(text: object) -> str:
    """A message of the parser on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one policy, and where its first token is; lines and columns count from 1."""

    text: str
    line: int
    column: int = 1
    tokens: int = 0

    def place(self, offset: int) -> str:
        """``line:column`` of a character of the text."""
        before = self.text[:offset]
        breaks = before.count("\n")
        if not breaks:
            return f"{self.line}:{self.column + offset}"
        return f"{self.line + breaks}:{offset - before.rindex(chr(10))}"


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
        self.line = self.column = 0
        self.open: list[tuple[str, str]] = []
        self.steps = self.tokens = 0
        self.has_chain: int | None = None

    def token(self, kind: str | None, lexeme: str, place: str) -> None:
        self.tokens += 1
        if self.tokens > MAX_TOKENS:
            raise InvalidPolicies(
                f"{self.file}:{place}: more than {MAX_TOKENS} words in one policy"
            )
        if lexeme == "has":
            self.has_chain = 0
        elif lexeme == "." and self.has_chain is not None:
            self.has_chain += 1
            if self.has_chain > MAX_HAS_CHAIN:
                raise InvalidPolicies(
                    f"{self.file}:{place}: has with more than {MAX_HAS_CHAIN} steps"
                )
        elif kind not in ("word", "string"):
            self.has_chain = None

    def step(self, place: str, cost: int) -> None:
        self.steps += cost
        if self.steps > MAX_STEPS:
            raise InvalidPolicies(
                f"{self.file}:{place}: more than {MAX_STEPS} operators in one policy"
            )

    def opened(self, bracket: str, place: str) -> None:
        self.open.append((bracket, place))
        if len(self.open) > MAX_NESTING:
            raise InvalidPolicies(
                f"{self.file}:{place}: brackets nested more than {MAX_NESTING} deep"
            )

    def closed(self, bracket: str, place: str) -> None:
        if not self.open or self.open.pop()[0] != _PAIRS[bracket]:
            raise InvalidPolicies(f"{self.file}:{place}: {bracket} closes nothing")


def cut(text: str, file: str) -> Iterator[Piece]:
    """The policies of a file in order, comments and blanks before them dropped."""
    piece, line, begins = _Piece(file), 1, 0
    for found in _TOKEN.finditer(text):
        kind, lexeme = found.lastgroup, found.group()
        column = found.start() - begins + 1
        if kind not in ("blank", "comment"):
            piece.token(kind, lexeme, f"{line}:{column}")
            if piece.start is None:
                piece.start, piece.line, piece.column = found.start(), line, column
        if kind == "open":
            piece.opened(lexeme, f"{line}:{column}")
        elif kind == "close":
            piece.closed(lexeme, f"{line}:{column}")
        elif kind == "end" and not piece.open:
            yield Piece(text[piece.start : found.end()], piece.line, piece.column, piece.tokens)
            piece = _Piece(file)
        elif kind == "other" and lexeme == '"':
            raise InvalidPolicies(f"{file}:{line}:{column}: the string is not closed")
        elif (kind == "other" and lexeme not in ",:") or lexeme in _STEP_WORDS:
            piece.step(f"{line}:{column}", _IF_STEPS if lexeme == "if" else 1)
        if "\n" in lexeme:
            line += lexeme.count("\n")
            begins = found.start() + lexeme.rindex("\n") + 1
    if piece.open:
        bracket, opened = piece.open[-1]
        raise InvalidPolicies(f"{file}:{opened}: {bracket} is not closed")
    if piece.start is not None:
        raise InvalidPolicies(f"{file}:{piece.line}:{piece.column}: the policy does not end with ;")


def token_starts(text: str) -> list[tuple[int, str]]:
    """Where each token of a policy begins and what it reads, blanks and comments left out."""
    return [
        (found.start(), found.group())
        for found in _TOKEN.finditer(text)
        if found.lastgroup not in ("blank", "comment")
    ]


_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{\[}\]]', re.DOTALL)


def bounded_brackets(text: str, file: str, limit: int) -> None:
    """Refuses JSON nested deeper than ``limit`` before any parser, all of which recurse, sees it."""
    depth = 0
    for found in _JSON_TOKEN.finditer(text):
        depth += (found.group() in "{[") - (found.group() in "}]")
        if depth > limit:
            line = text.count("\n", 0, found.start()) + 1
            raise InvalidPolicies(f"{file}:{line}: brackets nested more than {limit} deep")


def check_unicode(text: str, file: str) -> None:
    """Refuses a lone surrogate, at its place: no Unicode text has one, and no parser takes it."""
    found = _SURROGATE.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - (text.rfind("\n", 0, found.start()) + 1) + 1
        raise InvalidPolicies(f"{file}:{line}:{column}: not Unicode text")


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
