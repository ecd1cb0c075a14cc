"""The name PostgreSQL gives an output column that has no AS (parse_target.c, FigureColname)."""

from typing import Final

from postgast import pg_query_pb2 as pb

from chartgate.sql.tree import names

_VALUES: Final = {
    pb.SVFOP_CURRENT_DATE: "current_date",
    pb.SVFOP_CURRENT_TIME: "current_time",
    pb.SVFOP_CURRENT_TIME_N: "current_time",
    pb.SVFOP_CURRENT_TIMESTAMP: "current_timestamp",
    pb.SVFOP_CURRENT_TIMESTAMP_N: "current_timestamp",
    pb.SVFOP_LOCALTIME: "localtime",
    pb.SVFOP_LOCALTIME_N: "localtime",
    pb.SVFOP_LOCALTIMESTAMP: "localtimestamp",
    pb.SVFOP_LOCALTIMESTAMP_N: "localtimestamp",
    pb.SVFOP_CURRENT_ROLE: "current_role",
    pb.SVFOP_CURRENT_USER: "current_user",
    pb.SVFOP_USER: "user",
    pb.SVFOP_SESSION_USER: "session_user",
    pb.SVFOP_CURRENT_CATALOG: "current_catalog",
    pb.SVFOP_CURRENT_SCHEMA: "current_schema",
}


def output_name(node: pb.Node) -> str:
    """The column's name in the result."""
    return _named(node)[0] or "?column?"


def _named(node: pb.Node) -> tuple[str, int]:
    """The name and how strongly it is meant: 2 for a real name, 1 for a type's or CASE's."""
    match node.WhichOneof("node"):
        case "column_ref":
            last = node.column_ref.fields[-1]
            return (last.string.sval, 2) if last.WhichOneof("node") == "string" else ("", 0)
        case "a_indirection":
            fields = [
                part.string.sval
                for part in node.a_indirection.indirection
                if part.WhichOneof("node") == "string"
            ]
            return (fields[-1], 2) if fields else _named(node.a_indirection.arg)
        case "func_call":
            return names(node.func_call.funcname)[-1], 2
        case "a_expr":
            return ("nullif", 2) if node.a_expr.kind == pb.AEXPR_NULLIF else ("", 0)
        case "type_cast":
            name, strength = _named(node.type_cast.arg)
            if strength <= 1:
                return names(node.type_cast.type_name.names)[-1], 1
            return name, strength
        case "collate_clause":
            return _named(node.collate_clause.arg)
        case "grouping_func":
            return "grouping", 2
        case "sub_link":
            return _sub_link(node.sub_link)
        case "case_expr":
            name, strength = _named(node.case_expr.defresult)
            return (name, strength) if strength > 1 else ("case", 1)
        case "a_array_expr":
            return "array", 2
        case "row_expr":
            return "row", 2
        case "coalesce_expr":
            return "coalesce", 2
        case "min_max_expr":
            return ("greatest" if node.min_max_expr.op == pb.IS_GREATEST else "least"), 2
        case "sqlvalue_function":
            return _VALUES.get(node.sqlvalue_function.op, ""), 2
        case _:
            return "", 0


def _sub_link(link: pb.SubLink) -> tuple[str, int]:
    if link.sub_link_type == pb.EXISTS_SUBLINK:
        return "exists", 2
    if link.sub_link_type == pb.ARRAY_SUBLINK:
        return "array", 2
    if link.sub_link_type == pb.EXPR_SUBLINK:
        select = link.subselect.select_stmt
        while select.op != pb.SETOP_NONE:
            select = select.larg
        if select.target_list:
            target = select.target_list[0].res_target
            return (target.name, 2) if target.name else _named(target.val)
    return "", 0
