"""Map SQL names relations plainly; the source's search path holds none, so names are written out.

The text is parsed and deparsed, never edited: what a map says is read by the same grammar as what
people say.
"""

from functools import lru_cache

import postgast
from postgast import pg_query_pb2 as pb

from chartgate.errors import Misconfigured
from chartgate.sql.tree import walk

_SELECT = "SELECT "


class InvalidExpression(Misconfigured):
    """A map's SQL is not one expression of the grammar."""

    code = "invalid_expression"


@lru_cache(maxsize=65536)
def qualified(expression: str, schema: str) -> str:
    """The expression with every plain relation name in ``schema``."""
    try:
        parsed = postgast.parse(f"{_SELECT}{expression}")
    except postgast.PgQueryError as exc:
        raise InvalidExpression(f"SQL of the data map is not an expression: {exc}") from exc
    statement = parsed.stmts[0].stmt.select_stmt if len(parsed.stmts) == 1 else None
    if statement is None or len(statement.target_list) != 1:
        raise InvalidExpression("SQL of the data map is more than one expression")
    names = False
    for message in walk(parsed):
        if isinstance(message, pb.RangeVar) and not message.schemaname:
            message.schemaname = schema
            names = True
    return postgast.deparse(parsed).removeprefix(_SELECT) if names else expression
