"""Whether a query gives the same rows when it is asked twice in one transaction.

Rule kept: the companion query must find every patient of the answer. What depends on which of
several equal rows came first (LIMIT, DISTINCT ON, windows) or on chance may differ the second
time, so the companion never relies on it.
"""

from typing import Final

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.sql.scope import Env
from chartgate.sql.tree import children, names

_BY_CHANCE: Final = frozenset(
    [
        "random",
        "random_normal",
        "gen_random_uuid",
        "clock_timestamp",
        "timeofday",
        # (2) each Execute is a statement with a time of its own
        "statement_timestamp",
        # (3) set_config in a WHERE changes what the second asking of it finds
        "set_config",
        "current_setting",
        "array_sample",
        "array_shuffle",
    ]
)


def is_unstable(message: Message, env: Env, *, top: bool = False) -> bool:
    """Whether its rows may differ; ``top`` leaves out the query's own LIMIT and DISTINCT ON."""
    if isinstance(message, pb.SelectStmt) and not top:
        if message.HasField("limit_count") or message.HasField("limit_offset"):
            return True
        if any(node.WhichOneof("node") is not None for node in message.distinct_clause):
            return True
    if isinstance(message, pb.FuncCall) and (
        message.HasField("over") or names(message.funcname)[-1] in _BY_CHANCE
    ):
        return True
    if isinstance(message, pb.RangeVar) and not message.schemaname:
        cte = env.get(message.relname)
        return cte is not None and cte.unstable
    if isinstance(message, pb.SubLink) and message.sub_link_type == pb.EXISTS_SUBLINK:
        # (1) EXISTS (… LIMIT 1), as ORMs write it, asks only whether there is a row
        select = message.subselect.select_stmt
        constant = select.limit_count.a_const.ival.ival > 0 and not select.HasField("limit_offset")
        return is_unstable(select, env, top=constant)
    return any(is_unstable(child, env) for child in children(message))
