"""Rule kept: what we send is read back by the same grammar and is exactly the tree we meant.

Deparsers have had faults (a lost parenthesis turns ``NOT (a AND b)`` round); a statement whose
text does not give its tree back is refused, not sent.
"""

import postgast
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql.tree import NotFaithful, placeless, strip


def deparsed(node: pb.Node) -> str:
    """The text of a statement, verified: ``parse(deparse(tree)) == tree`` without positions."""
    tree = pb.ParseResult()
    tree.stmts.add().stmt.CopyFrom(node)
    try:
        text = postgast.deparse(tree)
        again = postgast.parse(text)
    except postgast.PgQueryError as exc:
        raise NotFaithful("the rewritten statement cannot be written as text") from exc
    except Exception as exc:
        raise Refused("the statement is nested too deeply") from exc
    if placeless(again) != placeless(tree) and not _equal(again, tree):
        raise NotFaithful("the rewritten statement does not read back as it was meant")
    return text


def _equal(one: pb.ParseResult, other: pb.ParseResult) -> bool:
    """The slow comparison: below 64 levels the native one does not forget positions."""
    for tree in (one, other):
        strip(tree)
        tree.ClearField("version")
    return bool(one == other)
