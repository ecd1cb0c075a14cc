"""Text to statements. Rule kept: the one grammar that decides is PostgreSQL's own (libpg_query).

Caps are here, in one place. libpg_query recurses on the C stack (22,039 terms of ``1+1`` end the
process) and cuts the text at a NUL, so long texts and NULs never reach it.
"""

from collections import Counter
from dataclasses import dataclass

import postgast
from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql.tree import names, walk

MAX_BYTES = 16 * 1024
"""Longest text parsed: 2.7 times below what overflows an 8 MiB stack."""

MAX_STATEMENTS = 64

MAX_RELATIONS = 64
"""References to tables and WITH queries in one message. Each becomes all of a policy's text, and
800 of them kept the gate from everybody else for a minute."""

MAX_STARS = 32
"""``*`` in one message: each becomes the columns of all tables, and there may be thousands."""

MAX_CATALOG_NAMES = 64
"""Casts to names of catalog objects and calls that describe one: each becomes a catalog query."""

_DESCRIBING = frozenset({"current_setting", "format_type", "to_regtype"})

_FEW = 300
"""Bytes in which none of these fit often enough to matter."""


class SyntaxRefused(Refused):
    """Not a statement of the grammar. The message never quotes the text: it may hold PHI."""

    code = "syntax"
    sqlstate = "42601"


class TooComplex(Refused):
    """Rewriting it would take too long: the gate has other people to serve."""

    code = "too_complex"
    sqlstate = "54001"


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
    if size > _FEW:
        _check_size(parsed)
    return tuple(ParsedStatement(raw.stmt, raw.stmt_location) for raw in parsed.stmts)


def _check_size(parsed: pb.ParseResult) -> None:
    """What is short to write and long to rewrite is counted before anything is rewritten."""
    found = Counter(_costly(message) for message in walk(parsed))
    for what, most in (
        ("tables", MAX_RELATIONS),
        ("stars", MAX_STARS),
        ("names of catalog objects", MAX_CATALOG_NAMES),
    ):
        if found[what] > most:
            raise TooComplex(f"more than {most} {what} in one message")


def _costly(message: Message) -> str:
    if isinstance(message, pb.RangeVar):
        return "tables"
    if isinstance(message, pb.A_Star):
        return "stars"
    if isinstance(message, pb.TypeName) and names(message.names[-1:])[0].startswith("reg"):
        return "names of catalog objects"
    if isinstance(message, pb.FuncCall):
        name = names(message.funcname[-1:])[0]
        if name.startswith("pg_") or name.endswith("_description") or name in _DESCRIBING:
            return "names of catalog objects"
    return ""
