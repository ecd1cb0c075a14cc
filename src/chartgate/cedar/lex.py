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
    ends: tuple[int, ...] = ()
    """Where its parts begin and the last one ends: annotations, effect and scope, each clause."""

    def place(self, offset: int) -> str:
        """``line:column`` of a character of the text."""
        before = self.text[:offset]
        breaks = before.count("\n")
        if not breaks:
            return f"{self.line}:{self.column + offset}"
        return f"{self.line + breaks}:{offset - before.rindex(chr(10))}"


# Order matters: strings and comments first, so that what they contain is not seen as code. Blanks
# belong to the token after them; nothing is tried twice, so that no text takes quadratic time.
_TOKEN: Final = re.compile(
    r'\s*+(?:("[^"\\]*+(?:\\.[^"\\]*+)*+")'
    r"|(//[^\n\r]*+)"
    r"|([A-Za-z_0-9]++)"
    r"|([(\[{])"
    r"|([)\]}])"
    r"|([,:])"
    r"|(;)"
    r"|(.)"
    r"|\Z)",
    re.DOTALL,
)
_STRING, _COMMENT, _WORD, _OPEN, _CLOSE, _PLAIN, _END, _OTHER = range(1, 9)
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}
_STEP_WORDS: Final = frozenset({"if", "has", "is", "in", "like"})
_PART_WORDS: Final = frozenset({"permit", "forbid", "when", "unless"})


class _Text:
    """The text of a file, and the place of any character of it, asked for in rising order."""

    def __init__(self, text: str, file: str) -> None:
        self._text, self._file = text, file
        self._line, self._begins = 1, 0

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column; no earlier line is asked for afterwards."""
        breaks = self._text.count("\n", self._begins, offset)
        if breaks:
            self._line += breaks
            self._begins = self._text.rindex("\n", self._begins, offset) + 1
        return self._line, offset - self._begins + 1

    def fault(self, found: re.Match[str], reason: str) -> InvalidPolicies:
        """At any token, whatever was asked before."""
        assert found.lastindex is not None
        offset = found.start(found.lastindex)
        line = self._text.count("\n", 0, offset) + 1
        column = offset - self._text.rfind("\n", 0, offset)
        return InvalidPolicies(f"{self._file}:{line}:{column}: {reason}")


def cut(text: str, file: str) -> Iterator[Piece]:
    """The policies of a file in order, comments and blanks before them dropped."""
    where = _Text(text, file)
    opened: list[re.Match[str]] = []
    # Of the policy being cut: where it begins, its parts, how long it has grown; the steps of the
    # ``has`` being read, or -1; whether an annotation's name comes next.
    start, parts, tokens, steps = -1, [0], 0, 0
    chain, note = -1, False
    for found in _TOKEN.finditer(text):
        kind = found.lastindex
        if kind is None:
            break
        if kind == _COMMENT:
            continue
        tokens += 1
        if tokens > MAX_TOKENS:
            raise where.fault(found, f"more than {MAX_TOKENS} words in one policy")
        if start < 0:
            start = found.start(kind)
        if kind == _PLAIN:
            chain, note = -1, False
        elif kind == _WORD:
            lexeme = found[_WORD]
            if lexeme in _STEP_WORDS:
                if lexeme == "has":
                    chain = 0
                steps += _IF_STEPS if lexeme == "if" else 1
                if steps > MAX_STEPS:
                    raise where.fault(found, f"more than {MAX_STEPS} operators in one policy")
            elif lexeme in _PART_WORDS and not opened and not note:
                parts.append(found.start(_WORD) - start)
            note = False
        elif kind == _OTHER:
            lexeme = found[_OTHER]
            note = lexeme == "@"
            if lexeme == "." and chain >= 0:
                chain += 1
                if chain > MAX_HAS_CHAIN:
                    raise where.fault(found, f"has with more than {MAX_HAS_CHAIN} steps")
            else:
                chain = -1
            if lexeme == '"':
                raise where.fault(found, "the string is not closed")
            steps += 1
            if steps > MAX_STEPS:
                raise where.fault(found, f"more than {MAX_STEPS} operators in one policy")
        elif kind != _STRING:
            chain, note = -1, False
            if kind == _OPEN:
                opened.append(found)
                if len(opened) > MAX_NESTING:
                    raise where.fault(found, f"brackets nested more than {MAX_NESTING} deep")
            elif kind == _CLOSE:
                if not opened or opened.pop()[_OPEN] != _PAIRS[found[_CLOSE]]:
                    raise where.fault(found, f"{found[_CLOSE]} closes nothing")
            elif not opened:
                at = found.start(_END)
                line, column = where.place(start)
                yield Piece(text[start : at + 1], line, column, tokens, (*parts, at - start))
                start, parts, tokens, steps = -1, [0], 0, 0
    if opened:
        raise where.fault(opened[-1], f"{opened[-1][_OPEN]} is not closed")
    if start >= 0:
        line, column = where.place(start)
        raise InvalidPolicies(f"{file}:{line}:{column}: the policy does not end with ;")


def token_starts(text: str) -> list[tuple[int, str]]:
    """Where each token of a policy begins and what it reads, blanks and comments left out."""
    return [
        (found.start(found.lastindex), found[found.lastindex])
        for found in _TOKEN.finditer(text)
        if found.lastindex not in (None, _COMMENT)
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
