"""What form a query has: which rows its target list sees, and whether keys can ride along."""

from typing import Final

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.sql import tree
from chartgate.sql.expressions import has_aggregate
from chartgate.sql.naming import output_name

_RANKS: Final = frozenset(
    {"cume_dist", "dense_rank", "ntile", "percent_rank", "rank", "row_number"}
)


def is_plain(stmt: pb.SelectStmt, *, top: bool = False) -> bool:
    """Whether a row of the result is a row of the FROM clause, so that keys can ride along.

    A window that takes values of other rows counts as plain only at the top and without LIMIT,
    where those rows are in the result too.
    """
    if _mixes_rows(*stmt.target_list, *stmt.sort_clause) and (
        not top or stmt.HasField("limit_count") or stmt.HasField("limit_offset")
    ):
        return False
    return (
        stmt.op == pb.SETOP_NONE
        and not stmt.values_lists
        and not stmt.distinct_clause
        and not stmt.group_clause
        and not stmt.HasField("having_clause")
        and not has_aggregate(*stmt.target_list, *stmt.sort_clause)
    )


def is_evaluated_last(stmt: pb.SelectStmt) -> bool:
    """Whether the target list runs only on rows that every filter let through.

    What is sorted, grouped or aggregated by may be computed early, below a join (parallel sorts,
    eager aggregation), and a policy that is a semi-join is such a join.
    """
    if stmt.distinct_clause or stmt.group_clause or stmt.HasField("having_clause"):
        return False
    if has_aggregate(*stmt.target_list) or _has_window(*stmt.target_list):
        return False
    computed = [node.res_target.val.WhichOneof("node") != "column_ref" for node in stmt.target_list]
    if not any(computed):
        return True
    for sort in stmt.sort_clause:
        node = sort.sort_by.node
        name = bare_name(node)
        if node.WhichOneof("node") == "a_const":
            return False
        if any(name and name == target.res_target.name for target in stmt.target_list):
            return False
        if name and any(
            name == output_name(target.res_target.val) and its
            for target, its in zip(stmt.target_list, computed, strict=True)
        ):
            return False
    return True


def _has_window(*nodes: Message) -> bool:
    return any(
        (isinstance(node, pb.FuncCall) and node.HasField("over"))
        or _has_window(*tree.branches(node))
        for node in nodes
    )


def _mixes_rows(*nodes: Message) -> bool:
    """Whether a window function brings in more of other rows than how many there are."""
    for node in nodes:
        if isinstance(node, pb.SubLink | pb.SelectStmt):
            continue
        if (
            isinstance(node, pb.FuncCall)
            and node.HasField("over")
            and tree.names(node.funcname)[-1] not in _RANKS
        ):
            return True
        if _mixes_rows(*tree.branches(node)):
            return True
    return False


def bare_name(node: pb.Node) -> str:
    if node.WhichOneof("node") != "column_ref" or len(node.column_ref.fields) != 1:
        return ""
    return str(node.column_ref.fields[0].string.sval)
