"""The FROM clause: tables, sub-selects, functions and joins, and the names they bring.

Rule kept: hidden keys have names of their own in every table, so that NATURAL JOIN never joins
on them, and an alias list never shifts onto them.
"""

from typing import Final, Protocol

from postgast import pg_query_pb2 as pb

from chartgate.errors import Refused
from chartgate.sql import relation, system_functions, tree
from chartgate.sql.admit import NotAllowed
from chartgate.sql.expressions import Expressions, Output
from chartgate.sql.safe import comparable, family, is_safe
from chartgate.sql.scope import (
    AmbiguousName,
    Base,
    CannotCarry,
    Col,
    Env,
    Names,
    Relation,
    Scope,
    UnknownName,
)
from chartgate.sql.views import Views

_COLUMNS_OF: Final = {
    "json_each": ("key", "value"),
    "json_each_text": ("key", "value"),
    "jsonb_each": ("key", "value"),
    "jsonb_each_text": ("key", "value"),
    "json_array_elements": ("value",),
    "json_array_elements_text": ("value",),
    "jsonb_array_elements": ("value",),
    "jsonb_array_elements_text": ("value",),
    "_pg_expandarray": ("x", "n"),
    "pg_get_keywords": ("word", "catcode", "barelabel", "catdesc", "baredesc"),
}
"""Functions whose result columns have names of their own, not the alias's."""


class Statement(Protocol):
    """What a FROM clause needs of the pass it belongs to."""

    views: Views
    expressions: Expressions
    bases: list[tuple[Base, Relation]]

    def fresh(self, kind: str) -> str:
        """A name of ours."""

    def query(
        self, stmt: pb.SelectStmt, parent: Scope | None, env: Env, *, carry: bool, top: bool
    ) -> Output:
        """Rewrite a sub-select."""


class FromClause:
    """Rewrites FROM items in place."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement

    def item(self, node: pb.Node, left: Names, outer: Scope, env: Env, *, carry: bool) -> Names:
        """One item. ``left`` is what stands before it: visible to LATERAL."""
        match node.WhichOneof("node"):
            case "range_var":
                return self._table(node, env, carry=carry)
            case "range_subselect":
                return self._subselect(node.range_subselect, left, outer, env, carry=carry)
            case "range_function":
                return self._function(node.range_function, left, outer, env)
            case "join_expr":
                return self._join(node.join_expr, left, outer, env, carry=carry)
            case _:
                raise NotAllowed("something in FROM that is no table, query, function or join")

    def _table(self, node: pb.Node, env: Env, *, carry: bool) -> Names:
        var = node.range_var
        alias = var.alias.aliasname or var.relname
        renamed = tree.names(var.alias.colnames)
        if not var.schemaname and var.relname in env:
            cte = env[var.relname]
            if not cte.emitted:
                raise Refused("a WITH query refers to a later one")
            cols = _renamed(cte.cols, renamed, alias)
            var.relname = cte.emitted
            var.alias.aliasname = alias
            return _alone(Relation(alias, cols, list(cte.keys)))
        statement = self._statement
        view = statement.views.read(statement.views.resolve(var.schemaname or None, var.relname))
        if len(renamed) > len(view.columns):
            raise Refused("more column aliases than columns")
        key = statement.fresh("k") if carry and view.patient is not None else None
        base = Base(view, only=not var.inh, key=key)
        found = relation.relation(base, alias, renamed=renamed, unaliased=not var.alias.aliasname)
        relation.placeholder(node, len(statement.bases), alias)
        statement.bases.append((base, found))
        return _alone(found)

    def _subselect(
        self, sub: pb.RangeSubselect, left: Names, outer: Scope, env: Env, *, carry: bool
    ) -> Names:
        if sub.subquery.WhichOneof("node") != "select_stmt":
            raise NotAllowed("something in FROM that is no SELECT")
        if not sub.alias.aliasname:
            sub.alias.aliasname = self._statement.fresh("s")  # servers before 16 want one
        parent = Scope(left if sub.lateral else Names(), outer.parent, outer.level)
        out = self._statement.query(sub.subquery.select_stmt, parent, env, carry=carry, top=False)
        renamed = tree.names(sub.alias.colnames)
        if len(renamed) > len(out.cols):
            raise Refused("more column aliases than columns")
        alias = sub.alias.aliasname
        return _alone(Relation(alias, _renamed(out.cols, renamed, alias), out.keys))

    def _function(self, item: pb.RangeFunction, left: Names, outer: Scope, env: Env) -> Names:
        scope = Scope(left, outer.parent, outer.level)
        cols: list[str] = []
        for entry in item.functions:
            call, *definitions = entry.list.items
            if call.WhichOneof("node") != "func_call":
                raise NotAllowed("something in FROM that is no table, query, function or join")
            self._statement.expressions.descend(call.func_call, scope, env)
            # (1) what is called with a column of a table before it meets rows that a semi-join
            # would still drop, and no function listed here is known never to raise
            if not all(_is_fixed(arg) for arg in call.func_call.args):
                self._statement.expressions.unsafe = True
            if system_functions.substitute(call, self._statement.expressions.scene) is not None:
                raise NotAllowed("this function in FROM")
            defined = [
                column.column_def.colname for part in definitions for column in part.list.items
            ]
            name = tree.names(call.func_call.funcname)[-1]
            only = item.alias.aliasname if len(item.functions) == 1 else ""
            cols += defined or list(_COLUMNS_OF.get(name, (only or name,)))
        if item.coldeflist:
            cols = [column.column_def.colname for column in item.coldeflist]
        if item.ordinality:
            cols.append("ordinality")
        alias = (
            item.alias.aliasname
            or tree.names(item.functions[0].list.items[0].func_call.funcname)[-1]
        )
        renamed = tree.names(item.alias.colnames)
        given = [Col(name) for name in cols]
        if len(item.functions) == 1 and not item.coldeflist:
            given[0].type = _element_type(item.functions[0].list.items[0].func_call)
        return _alone(Relation(alias, _renamed(given, renamed, alias)))

    def _join(
        self, join: pb.JoinExpr, left: Names, outer: Scope, env: Env, *, carry: bool
    ) -> Names:
        one = self.item(join.larg, left, outer, env, carry=carry)
        other = self.item(join.rarg, left.joined(one), outer, env, carry=carry)
        both = one.joined(other)
        if join.is_natural:
            if {key for rel in one.relations for key in rel.keys} & {
                key for rel in other.relations for key in rel.keys
            }:
                raise CannotCarry  # would be joined on
            theirs = {col.name for col in other.cols}
            shared = [col.name for col in one.cols if col.name in theirs]
        else:
            shared = list(tree.names(join.using_clause))
        if shared:
            both = self._merged(join, one, other, both, shared)
        if join.HasField("quals"):
            self._statement.expressions.judged(
                join.quals, Scope(both, outer.parent, outer.level), env
            )
        if join.HasField("alias"):
            return self._aliased(join, both)
        return both

    def _merged(
        self, join: pb.JoinExpr, one: Names, other: Names, both: Names, shared: list[str]
    ) -> Names:
        """USING and NATURAL: the shared columns first and once, as ``*`` shows them."""
        merged = []
        for name in shared:
            mine = _single(one, name)
            yours = _single(other, name)
            mine.use()
            yours.use()
            if not comparable(family(mine.type), family(yours.type)):
                self._statement.expressions.unsafe = True
            merged.append(
                Col(
                    name,
                    type=mine.type if mine.type == yours.type else None,
                    bases=mine.bases + yours.bases,
                    origin=mine.origin or yours.origin,
                )
            )
        rest = [col for col in one.cols + other.cols if col.name not in shared]
        relations = list(both.relations)
        if join.HasField("join_using_alias"):
            alias = join.join_using_alias.aliasname
            relations.append(Relation(alias, _renamed(merged, (), alias, keep_bases=True)))
        return Names(relations, merged + rest, both.keys)

    def _aliased(self, join: pb.JoinExpr, both: Names) -> Names:
        """``(a JOIN b …) AS j``: only ``j`` is visible from here on."""
        alias = join.alias.aliasname
        renamed = tree.names(join.alias.colnames)
        keys = [key for rel in both.relations for key in rel.keys]
        if keys and (renamed or len(set(keys)) != len(keys)):
            raise CannotCarry  # the alias list goes by position
        if renamed:
            for col in both.cols:
                col.use()
        cols = _renamed(both.cols, renamed, alias, keep_bases=True)
        return Names([Relation(alias, cols, keys)], cols, [(alias, key) for _, key in both.keys])


def _is_fixed(arg: pb.Node) -> bool:
    """An argument that is the same for every row, and whose making cannot raise."""
    return is_safe(arg, lambda _: None) and not tree.any_node(
        arg, lambda found: isinstance(found, pb.ColumnRef | pb.SubLink)
    )


def _element_type(call: pb.FuncCall) -> str | None:
    """The type of what a list of constants gives, so that joining it need not raise a barrier."""
    name = tree.names(call.funcname)[-1]
    if name == "generate_series" and all(
        arg.a_const.WhichOneof("val") == "ival" for arg in call.args
    ):
        return "integer"
    if name == "unnest" and len(call.args) == 1:
        cast = call.args[0].type_cast
        if len(cast.type_name.array_bounds) == 1:
            return tree.names(cast.type_name.names)[-1]
    return None


def _single(names: Names, name: str) -> Col:
    found = [col for col in names.cols if col.name == name]
    if not found:
        raise UnknownName("a column of USING is not in both tables")
    if len(found) > 1:
        raise AmbiguousName("a column of USING is in a table more than once")
    return found[0]


def _renamed(
    cols: list[Col], renamed: tuple[str, ...], alias: str, *, keep_bases: bool = False
) -> list[Col]:
    return [
        Col(
            renamed[at] if at < len(renamed) else col.name,
            type=col.type,
            via=alias,
            bases=col.bases if keep_bases else (),
            origin=col.origin,
        )
        for at, col in enumerate(cols)
    ]


def _alone(found: Relation) -> Names:
    return Names([found], list(found.cols), [(found.alias, key) for key in found.keys])
