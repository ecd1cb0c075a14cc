"""Where in a policy the parser stumbled: cedarpy says what is wrong, never where.

The rule kept: the parser alone judges; this only asks it again, about beginnings of the text. A
text that ends before its fault fails with "unexpected end of input", one that holds the fault
fails with the fault, so the first beginning that fails otherwise ends with the faulty token. That
is a binary search: some ten more parses, for texts small enough that a person wrote them.
"""

import re
from collections.abc import Callable
from typing import Final

from chartgate.cedar.lex import token_starts

MAX_SEARCHED: Final = 64 * 1024

_ENDED_EARLY: Final = "unexpected end of input"
# "`foo` is not a valid function", "this identifier is reserved and cannot be used: if"
_QUOTED: Final = re.compile(r"`([^`]+)`|: ([A-Za-z_][A-Za-z_0-9]*)\Z")


def fault_at(text: str, reason: str, parse: Callable[[str], object]) -> int:
    """The offset of the token that ``reason``, the parser's complaint, is about; else 0."""
    if len(text) > MAX_SEARCHED:
        return 0
    tokens = token_starts(text)
    if reason.startswith("unexpected token"):
        return _first_bad(text, tokens, parse)
    # Other faults name what they dislike: a function, an escape. Told only if it is there once.
    for word in (found[1] or found[2] for found in _QUOTED.finditer(reason)):
        found = [start for start, token in tokens if word == token]
        inside = [
            start + token.index(word)
            for start, token in tokens
            if token.startswith('"') and word in token
        ]
        if len(found or inside) == 1:
            return (found or inside)[0]
    return 0


def named_at(text: str, reason: str) -> int:
    """The offset of the first thing that ``reason`` names, where it stands there once; else 0."""
    found = _QUOTED.search(reason)
    if found is None or len(text) > MAX_SEARCHED:
        return 0
    names = {found[0], found[1], f'"{found[1]}"'}
    starts = [start for start, token in token_starts(text) if token in names]
    return starts[0] if len(starts) == 1 else 0


def _first_bad(text: str, tokens: list[tuple[int, str]], parse: Callable[[str], object]) -> int:
    low, high = 0, len(tokens) - 1
    while low < high:
        middle = (low + high) // 2
        start, token = tokens[middle]
        try:
            parse(text[: start + len(token)])
            is_bad = False
        except ValueError as fault:
            is_bad = _ENDED_EARLY not in str(fault)
        if is_bad:
            high = middle
        else:
            low = middle + 1
    return tokens[low][0] if tokens else 0
