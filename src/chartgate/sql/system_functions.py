"""Calls whose answer depends on the session or on a bare oid, answered for the person instead.

The session upstream has the service's login and ``search_path = pg_catalog``; the person has a
login and a search path of their own. And a function that describes an object by its oid reads the
catalog past every view, so its argument is first made NULL unless the person may see the object.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import postgast
from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql.allow import SETTINGS
from chartgate.sql.system_objects import FIRST_NORMAL_OID, Scene, array, literal

# Which test an oid must pass before the function may describe it. ``__cg_v.o`` is the oid.
_OID: Final = "__cg_v.o"


def _own(scene: Scene) -> str:
    return f"{_OID} < {FIRST_NORMAL_OID}"


def _relation(scene: Scene) -> str:
    return scene.is_relation(_OID)


def _type(scene: Scene) -> str:
    return scene.is_type(_OID)


def _constraint(scene: Scene) -> str:
    return (
        f"{_OID} IN (SELECT __cg_k.oid FROM pg_catalog.pg_constraint AS __cg_k"
        f" WHERE {scene.is_constraint('__cg_k')})"
    )


def _statistics(scene: Scene) -> str:
    return (
        f"{_OID} IN (SELECT __cg_k.oid FROM pg_catalog.pg_statistic_ext AS __cg_k"
        f" WHERE {scene.is_table('__cg_k.stxrelid')})"
    )


def _schema(scene: Scene) -> str:
    return (
        f"{_OID} IN (SELECT __cg_k.oid FROM pg_catalog.pg_namespace AS __cg_k"
        f" WHERE {scene.is_schema('__cg_k.nspname')})"
    )


_DESCRIBES: Final[Mapping[str, Callable[[Scene], str]]] = MappingProxyType(
    {
        "col_description": _relation,
        "format_type": _type,
        "obj_description": _relation,
        "pg_get_constraintdef": _constraint,
        "pg_get_function_arguments": _own,
        "pg_get_function_identity_arguments": _own,
        "pg_get_function_result": _own,
        "pg_get_functiondef": _own,
        "pg_get_indexdef": _relation,
        "pg_get_partkeydef": _relation,
        "pg_get_statisticsobjdef_columns": _statistics,
        "pg_relation_is_publishable": _relation,
        "shobj_description": _own,
    }
)
_SIZES: Final = frozenset(
    {"pg_indexes_size", "pg_relation_size", "pg_table_size", "pg_total_relation_size"}
)
_NAMES: Final[Mapping[str, Callable[[Scene], str]]] = MappingProxyType(
    {
        "regclass": _relation,
        "regtype": _type,
        "regnamespace": _schema,
        "regproc": _own,
        "regprocedure": _own,
        "regoper": _own,
        "regoperator": _own,
        "regcollation": _own,
        "regconfig": _own,
    }
)
_TEXTS: Final = frozenset({"text", "varchar", "bpchar", "name"})
_WITHOUT_LOOKUP: Final = frozenset({"regconfig"})
_LOGIN: Final = frozenset(
    {
        pb.SQLValueFunctionOp.SVFOP_CURRENT_ROLE,
        pb.SQLValueFunctionOp.SVFOP_CURRENT_USER,
        pb.SQLValueFunctionOp.SVFOP_USER,
        pb.SQLValueFunctionOp.SVFOP_SESSION_USER,
    }
)


def substitute(node: pb.Node, scene: Scene, *, shown: bool = False) -> pb.Node | None:
    """What stands for this node, or ``None`` where it may stand as it is.

    Call it on each expression *after* its parts were rewritten, and never walk the answer again:
    it reads the real catalogs. The name of an object is a text where it is ``shown``, else an oid:
    never of a type like ``regclass``, which a constant beside it would take on too, and then
    ``coalesce(NULL::regclass, '16404')`` names any table there is.
    """
    which = node.WhichOneof("node")
    if which == "func_call":
        return _call(node.func_call, scene, shown=shown)
    if which == "sqlvalue_function":
        return _session_value(node.sqlvalue_function.op, scene)
    if which == "type_cast":
        return _name_of(node, scene, shown=shown)
    return None


def names_as_text(cast: pb.TypeCast) -> bool:
    """Whether the cast makes a text of what it is given: then the name is shown."""
    return not cast.type_name.array_bounds and cast.type_name.names[-1].string.sval in _TEXTS


def check_setting_call(call: pb.FuncCall) -> None:
    """Refuse ``current_setting`` and ``set_config`` but for listed settings and constant values.

    A name that is not constant passes for ``current_setting`` alone: ``substitute`` then puts the
    list into the query.
    """
    name = _function(call)
    setting = _constant(call.args, 0)
    if name == "current_setting" and call.args and setting is None:
        return
    rule = SETTINGS.get(setting.lower()) if setting is not None else None
    if rule is None:
        raise Refused(f"function {name}: not a listed setting given as a constant")
    if name == "current_setting":
        return
    value = _constant(call.args, 1)
    if rule.virtual or value is None or not (rule.settable and rule.admits(value)):
        raise Refused(f"function {name}: not a listed value given as a constant")


def _call(call: pb.FuncCall, scene: Scene, *, shown: bool) -> pb.Node | None:
    name = _function(call)
    args = call.args
    if name in {"current_setting", "set_config"}:
        check_setting_call(call)
        return _setting(args, scene)
    if name in {"current_schema", "current_user", "session_user"} and not args:
        return _filled(
            _as_name(_current_schema(scene) if name == "current_schema" else scene.login)
        )
    if name == "current_schemas" and len(args) == 1:
        return _filled(
            f"CASE WHEN __cg_arg THEN {_names('pg_catalog', *scene.search_path)}"
            f" ELSE {_names(*scene.search_path)} END",
            args[0],
        )
    if name == "pg_table_is_visible" and len(args) == 1:
        return _filled(_visible(scene, "pg_class", "relnamespace", _relation(scene)), args[0])
    if name == "pg_type_is_visible" and len(args) == 1:
        return _filled(_visible(scene, "pg_type", "typnamespace", _type(scene)), args[0])
    if name == "to_regtype" and len(args) == 1:
        return _filled(_named("regtype", _type(scene), shown=shown), args[0])
    if name == "pg_typeof" and len(args) == 1:
        return _filled(
            f"CAST(pg_catalog.pg_typeof(__cg_arg) AS pg_catalog.{'text' if shown else 'oid'})",
            args[0],
        )
    if name == "pg_get_expr" and len(args) > 1:
        # Read against another relation, an expression would spell that one's columns.
        answer = pb.Node()
        answer.func_call.CopyFrom(call)
        answer.func_call.args[1].CopyFrom(
            _filled(_kept("oid", "__cg_arg", _relation(scene)), args[1])
        )
        return answer
    if name == "pg_get_serial_sequence" and len(args) == 2:
        kept = _kept("regclass", "pg_catalog.to_regclass(__cg_arg)", _relation(scene))
        return _with_first(call, _filled(f"CAST({kept} AS pg_catalog.text)", args[0]))
    if name == "pg_partition_ancestors":
        # psql 18 asks it of every table; what is above a table need not be the person's to see.
        return _filled("CAST(NULL AS pg_catalog.oid)")
    if name in _SIZES:
        return _filled("CAST(NULL AS pg_catalog.int8)")
    if name in _DESCRIBES and args:
        kept = _kept("oid", "__cg_arg", _DESCRIBES[name](scene))
        return _with_first(call, _filled(kept, args[0]))
    return None


def _setting(args: Sequence[pb.Node], scene: Scene) -> pb.Node | None:
    path = literal(", ".join(map(_identifier, scene.search_path)))
    setting = _constant(args, 0)
    if setting is not None:
        return _filled(path) if setting.lower() == "search_path" else None
    # only current_setting gets here: check_setting_call refuses set_config without constants
    listed = array(map(literal, sorted(SETTINGS)), "text")
    return _filled(
        f"(SELECT CASE WHEN pg_catalog.lower(__cg_v.o) = 'search_path' THEN {path}"
        " ELSE pg_catalog.current_setting(__cg_v.o, true) END"
        " FROM (SELECT CAST(__cg_arg AS pg_catalog.text)) AS __cg_v(o)"
        f" WHERE pg_catalog.lower(__cg_v.o) = ANY ({listed}))",
        args[0],
    )


def _name_of(node: pb.Node, scene: Scene, *, shown: bool) -> pb.Node | None:
    cast = node.type_cast
    name = cast.type_name.names[-1].string.sval
    if name not in _NAMES:
        return None
    if cast.type_name.array_bounds:
        raise Refused(f"cast to {name}[]")
    return _filled(_named(name, _NAMES[name](scene), shown=shown), cast.arg)


def _named(name: str, test: str, *, shown: bool) -> str:
    """The object that a name or a number means, or NULL: nobody learns whether it is there.

    The argument is read as text, so that a parameter never gets the type of a name.
    """
    looked_up = (
        f"CAST(__cg_t.t AS pg_catalog.{name})"
        if name in _WITHOUT_LOOKUP
        else f"pg_catalog.to_{name}(__cg_t.t)"
    )
    answer = f"CAST(CAST(__cg_v.o AS pg_catalog.{name}) AS pg_catalog.text)" if shown else _OID
    return (
        f"(SELECT {answer} FROM (SELECT CASE"
        " WHEN __cg_t.t OPERATOR(pg_catalog.~) '^[0-9]+$' THEN CAST(__cg_t.t AS pg_catalog.oid)"
        f" ELSE CAST({looked_up} AS pg_catalog.oid) END"
        f" FROM (SELECT CAST(__cg_arg AS pg_catalog.text)) AS __cg_t(t)) AS __cg_v(o) WHERE {test})"
    )


def _session_value(op: int, scene: Scene) -> pb.Node | None:
    if op in _LOGIN:
        return _filled(_as_name(scene.login))
    if op == pb.SQLValueFunctionOp.SVFOP_CURRENT_SCHEMA:
        return _filled(_as_name(_current_schema(scene)))
    return None


def _current_schema(scene: Scene) -> str:
    return scene.search_path[0] if scene.search_path else "pg_catalog"


def _as_name(text: str) -> str:
    return f"CAST({literal(text)} AS pg_catalog.name)"


def _names(*names: str) -> str:
    return array(map(literal, names), "name")


def _identifier(name: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'


def _kept(type_name: str, value: str, test: str) -> str:
    """The value, or NULL unless its oid passes the test; the argument is evaluated once.

    The inner select has no FROM of its own, so that names in the argument mean what they meant.
    """
    return (
        f"(SELECT CAST(__cg_v.o AS pg_catalog.{type_name}) FROM"
        f" (SELECT CAST({value} AS pg_catalog.oid)) AS __cg_v(o) WHERE {test})"
    )


def _visible(scene: Scene, relation: str, namespace: str, test: str) -> str:
    return (
        f"(SELECT {test} AND NOT {_OID} = ANY ({scene.shadowed})"
        f" AND {scene.on_path('__cg_n.nspname')}"
        f" FROM (SELECT CAST(__cg_arg AS pg_catalog.oid)) AS __cg_v(o)"
        f" JOIN pg_catalog.{relation} AS __cg_r ON __cg_r.oid = __cg_v.o"
        f" JOIN pg_catalog.pg_namespace AS __cg_n ON __cg_n.oid = __cg_r.{namespace})"
    )


def _function(call: pb.FuncCall) -> str:
    """The function's bare name if it is one of ``pg_catalog``, else nothing."""
    parts = [part.string.sval for part in call.funcname]
    return parts[-1] if len(parts) == 1 or parts[:-1] == ["pg_catalog"] else ""


def _constant(args: Sequence[pb.Node], at: int) -> str | None:
    if at >= len(args):
        return None
    node = args[at]
    while node.WhichOneof("node") == "type_cast":
        node = node.type_cast.arg
    if node.WhichOneof("node") != "a_const" or node.a_const.WhichOneof("val") != "sval":
        return None
    return str(node.a_const.sval.sval)


def _with_first(call: pb.FuncCall, first: pb.Node) -> pb.Node:
    answer = pb.Node()
    answer.func_call.CopyFrom(call)
    answer.func_call.args[0].CopyFrom(first)
    return answer


@lru_cache(maxsize=512)
def _parsed(template: str) -> bytes:
    tree = postgast.parse(f"SELECT {template}")
    target: pb.Node = tree.stmts[0].stmt.select_stmt.target_list[0].res_target.val
    return bytes(target.SerializeToString())


def _filled(template: str, argument: pb.Node | None = None) -> pb.Node:
    """The template as a node, ``__cg_arg`` replaced by the argument."""
    node = pb.Node()
    node.ParseFromString(_parsed(template))
    if argument is not None:
        _fill(node, argument)
    return node


def _fill(message: pb.Node, argument: pb.Node) -> None:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if field.is_repeated else (value,):
            if _is_hole(child):
                child.CopyFrom(argument)
            else:
                _fill(child, argument)


def _is_hole(message: pb.Node) -> bool:
    if not isinstance(message, pb.Node) or message.WhichOneof("node") != "column_ref":
        return False
    fields = message.column_ref.fields
    return len(fields) == 1 and fields[0].string.sval == "__cg_arg"
