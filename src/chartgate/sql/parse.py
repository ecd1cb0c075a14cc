"""Text to statements. Rule kept: the one grammar that decides is PostgreSQL's own (libpg_query).

Caps are here, in one place. libpg_query recurses on the C stack (22,039 terms of ``1+1`` end the
process) and cuts the text at a NUL, so long texts and NULs never reach it.
"""

from dataclasses import dataclass

import postgast
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused

MAX_BYTES = 16 * 1024
"""Longest text parsed: 2.7 times below what overflows an 8 MiB stack."""

MAX_STATEMENTS = 64


class SyntaxRefused(Refused):
    """Not a statement of the grammar. The message never quotes the text: it may hold PHI."""

    code = "syntax"
    sqlstate = "42601"


class TextTooLong(Refused):
    """The text exceeds what is parsed in process."""

    code = "text_too_long"
    sqlstate = "54000"


@dataclass(frozen=True, slots=True)
class ParsedStatement:
    """One statement of a message. ``node`` is never changed: passes work on copies."""

    node: pb.Node
    position: int
    """Where it starts in the text, in bytes."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return self.node.WhichOneof("node") is None


def split(text: str) -> tuple[ParsedStatement, ...]:
    """The statements of a message; no statement at all gives an empty tuple."""
    if "\x00" in text:
        raise SyntaxRefused("NUL in the statement")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise SyntaxRefused("the statement is not valid UTF-8") from exc
    if size > MAX_BYTES:
        raise TextTooLong(f"the statement is longer than {MAX_BYTES} bytes")
    try:
        parsed = postgast.parse(text)
    except postgast.PgQueryError as exc:
        position = getattr(exc, "cursorpos", 0) or 0
        raise SyntaxRefused(f"syntax error at character {position}") from exc
    except Exception as exc:
        raise Refused("the statement is nested too deeply") from exc
    if len(parsed.stmts) > MAX_STATEMENTS:
        raise TextTooLong(f"more than {MAX_STATEMENTS} statements in one message")
    return tuple(ParsedStatement(raw.stmt, raw.stmt_location) for raw in parsed.stmts)
