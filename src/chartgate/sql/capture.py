"""Whose rows an answer was made from, where they cannot ride along with it: the companion query.

Rule kept (45 CFR 164.312(b), 164.528): a patient may be listed who was not needed, but none may be
missing. The companion asks the same FROM and WHERE for the patients' keys, without grouping and
limits; where even that could differ from the answer, it asks for every row that the statement
could have read.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pb

from chartgate.sql import tree
from chartgate.sql.query import Pass
from chartgate.sql.relation import derived
from chartgate.sql.scope import CannotCarry, Env, Level, Names, Scope
from chartgate.sql.shape import is_plain
from chartgate.sql.stability import is_unstable

MOST_LISTED: Final = 10
"""Patients of a ``count(*)`` that are listed; a count of more is a statistic and lists nobody."""


class Loose(Exception):
    """The exact companion could miss somebody, so the loose one is taken."""


def companion(statement: Pass, original: pb.SelectStmt, *, carried: bool) -> pb.Node | None:
    """The companion of a rewritten statement, or ``None`` if its hidden keys tell everything.

    ``original`` is the admitted statement before the pass; ``carried`` says that the pass
    appended keys. Placeholders in the result are still to be filled.
    """
    before = len(statement.bases)
    try:
        found = _Collector(statement).collect(original, None, {}, own=not carried)
        parts = [] if found is None else [found.select]
    except (Loose, CannotCarry):
        parts = list(_everything(statement, before))
    if not parts:
        return None
    answer = tree.select(
        "SELECT DISTINCT __cg_u.k AS k FROM (SELECT) AS __cg_u(k) WHERE __cg_u.k IS NOT NULL"
    )
    answer.from_clause[0].range_subselect.subquery.select_stmt.CopyFrom(_union(parts))
    node = pb.Node()
    node.select_stmt.CopyFrom(answer)
    return node


def few(companion: pb.Node) -> pb.Node:
    """The keys of a companion if they are few, else none.

    ``count(*)`` with a name and a diagnosis in its WHERE tells of one patient as surely as a row.
    """
    answer = tree.select(
        "SELECT __cg_f.k AS k FROM (SELECT __cg_g.k, pg_catalog.count(*) OVER () FROM (SELECT)"
        f" AS __cg_g(k)) AS __cg_f(k, n) WHERE __cg_f.n <= {MOST_LISTED}"
    )
    counted = answer.from_clause[0].range_subselect.subquery.select_stmt
    listed = counted.from_clause[0].range_subselect.subquery.select_stmt
    listed.CopyFrom(companion.select_stmt)
    limit = tree.select(f"SELECT LIMIT {MOST_LISTED + 1}")
    listed.limit_count.CopyFrom(limit.limit_count)
    listed.limit_option = limit.limit_option
    node = pb.Node()
    node.select_stmt.CopyFrom(answer)
    return node


def _everything(statement: Pass, count: int) -> Iterator[pb.SelectStmt]:
    for base, _ in statement.bases[:count]:
        if base.view.patient is not None:
            yield derived(base.view, (), key="k", only=base.only, quals=tuple(base.quals))


class _Found:
    """A query for keys; ``correlated`` if it needs the query around it."""

    __slots__ = ("correlated", "select")

    def __init__(self, select: pb.SelectStmt, *, correlated: bool) -> None:
        self.select = select
        self.correlated = correlated


class _Collector:
    def __init__(self, statement: Pass) -> None:
        self._statement = statement

    def collect(
        self, original: pb.SelectStmt, parent: Scope | None, env: Env, *, own: bool
    ) -> _Found | None:
        """Keys of everything the query reads; without ``own``, only what it cannot carry."""
        if not own and not _has_more(original):
            return None
        select = pb.SelectStmt()
        select.CopyFrom(original)
        level = Level()
        outer = Scope(Names(), parent, level)
        parts: list[pb.SelectStmt] = []
        if select.HasField("with_clause"):
            env = self._with(original, select, outer, env, parts)
        if select.op != pb.SETOP_NONE:
            for arm in (original.larg, original.rarg):
                _keep(parts, self.collect(arm, outer, env, own=True))
            self._free_sub_links([*original.sort_clause], outer, env, parts)
        elif select.values_lists:
            self._free_sub_links([*original.values_lists], outer, env, parts)
        else:
            self._block(original, select, outer, env, parts, own=own)
        self._free_sub_links([original.limit_count, original.limit_offset], outer, env, parts)
        if not parts:
            return None
        if not select.HasField("with_clause"):
            return _Found(_union(parts), correlated=level.correlated)
        answer = tree.select("SELECT __cg_u.k AS k FROM (SELECT) AS __cg_u(k)")
        answer.from_clause[0].range_subselect.subquery.select_stmt.CopyFrom(_union(parts))
        answer.with_clause.CopyFrom(select.with_clause)
        return _Found(answer, correlated=level.correlated)

    def _with(
        self,
        original: pb.SelectStmt,
        select: pb.SelectStmt,
        outer: Scope,
        env: Env,
        parts: list[pb.SelectStmt],
    ) -> Env:
        env, bodies = self._statement.with_list(select.with_clause, outer, env, carry=True)
        for node, (body_env, cte) in zip(original.with_clause.ctes, bodies, strict=True):
            body = node.common_table_expr.ctequery.select_stmt
            # (1) a recursive query's own rows are all in its result, so its second branch asked
            # against that result meets every row the recursion met
            if cte.unstable and body_env.get(cte.name) is cte:
                raise Loose
            _keep(parts, self.collect(body, outer, body_env, own=not cte.keys))
        return env

    def _block(
        self,
        original: pb.SelectStmt,
        select: pb.SelectStmt,
        outer: Scope,
        env: Env,
        parts: list[pb.SelectStmt],
        *,
        own: bool,
    ) -> None:
        statement = self._statement
        names = statement.from_clause(select, outer, env, carry=True)
        scope = Scope(names, outer.parent, outer.level)
        shaky = any(is_unstable(item, env) for item in original.from_clause)
        stable: list[pb.Node] = []
        simple: list[pb.Node] = []
        if original.HasField("where_clause"):
            for condition in tree.conjuncts(original.where_clause):
                if is_unstable(condition, env):
                    continue  # (2) fewer conditions, more patients
                copy = pb.Node()
                copy.CopyFrom(condition)
                statement.where(copy, scope, env)
                stable.append(copy)
                if not any(isinstance(found, pb.SubLink) for found in tree.walk(condition)):
                    simple.append(copy)
        if own and names.keys:
            if shaky:
                raise Loose
            parts.append(_keys(names.keys, select, stable))
        for sub in _subselects(original.from_clause):
            body = sub.subquery.select_stmt
            around = scope if sub.lateral else outer
            found = self.collect(body, around, env, own=not is_plain(body))
            self._add(parts, found, select, stable, lateral=sub.lateral, shaky=shaky)
        for link in _sub_links(*original.from_clause):
            found = self.collect(link.subselect.select_stmt, scope, env, own=True)
            if found is not None and found.correlated:
                raise Loose  # (3) of a JOIN's ON: asked of pairs that are in no result
            _keep(parts, found)
        asked = [
            *original.target_list,
            *original.distinct_clause,
            *original.group_clause,
            *original.sort_clause,
            *original.window_clause,
        ]
        for link in _sub_links(*asked):
            found = self.collect(link.subselect.select_stmt, scope, env, own=True)
            self._add(parts, found, select, stable, lateral=True, shaky=shaky)
        for link in _sub_links(original.where_clause, original.having_clause):
            found = self.collect(link.subselect.select_stmt, scope, env, own=True)
            self._add(parts, found, select, simple, lateral=True, shaky=shaky)

    def _add(
        self,
        parts: list[pb.SelectStmt],
        found: _Found | None,
        select: pb.SelectStmt,
        conditions: list[pb.Node],
        *,
        lateral: bool,
        shaky: bool,
    ) -> None:
        """A sub-query's keys: as they are, or for each row of the query around it."""
        if found is None:
            return
        if not (lateral and found.correlated):
            parts.append(found.select)
            return
        if shaky:
            raise Loose
        answer = tree.select("SELECT __cg_c.k AS k FROM LATERAL (SELECT) AS __cg_c(k)")
        answer.from_clause[0].range_subselect.subquery.select_stmt.CopyFrom(found.select)
        _surround(answer, select, conditions)
        parts.append(answer)

    def _free_sub_links(
        self, messages: list[Message], outer: Scope, env: Env, parts: list[pb.SelectStmt]
    ) -> None:
        for link in _sub_links(*messages):
            _keep(parts, self.collect(link.subselect.select_stmt, outer, env, own=True))


def _keys(
    keys: list[tuple[str, str]], select: pb.SelectStmt, conditions: list[pb.Node]
) -> pb.SelectStmt:
    """The keys of one FROM clause, one a row."""
    quoted = [f"{tree.quoted(alias)}.{tree.quoted(name)}" for alias, name in keys]
    if len(quoted) == 1:
        answer = tree.select(f"SELECT {quoted[0]} AS k")
    else:
        values = ", ".join(f"({key})" for key in quoted)
        answer = tree.select(f"SELECT __cg_v.k AS k FROM LATERAL (VALUES {values}) AS __cg_v(k)")
    _surround(answer, select, conditions)
    return answer


def _surround(answer: pb.SelectStmt, select: pb.SelectStmt, conditions: list[pb.Node]) -> None:
    """Put the FROM clause of ``select`` before that of ``answer``, and the conditions under it."""
    last = list(answer.from_clause)
    own = pb.SelectStmt()
    own.from_clause.extend(select.from_clause)
    own.from_clause.extend(last)
    del answer.from_clause[:]
    answer.from_clause.extend(own.from_clause)
    if conditions:
        answer.where_clause.CopyFrom(tree.conjoin(conditions))


def _union(parts: list[pb.SelectStmt]) -> pb.SelectStmt:
    answer = parts[0]
    for part in parts[1:]:
        both = tree.select("SELECT UNION ALL SELECT")
        both.larg.CopyFrom(answer)
        both.rarg.CopyFrom(part)
        answer = both
    return answer


def _keep(parts: list[pb.SelectStmt], found: _Found | None) -> None:
    if found is not None:
        parts.append(found.select)


def _subselects(items: Iterable[pb.Node]) -> Iterator[pb.RangeSubselect]:
    for node in items:
        match node.WhichOneof("node"):
            case "range_subselect":
                yield node.range_subselect
            case "join_expr":
                yield from _subselects([node.join_expr.larg, node.join_expr.rarg])


def _sub_links(*messages: Message) -> Iterator[pb.SubLink]:
    """The sub-links of this query level: not those inside other queries."""
    for message in messages:
        if isinstance(message, pb.SubLink):
            yield message
            yield from _sub_links(message.testexpr)
        elif not isinstance(message, pb.SelectStmt):
            yield from _sub_links(*tree.branches(message))


def _has_more(select: pb.SelectStmt) -> bool:
    """Whether there is a query inside the query."""
    return select.HasField("with_clause") or _holds_query(select)


def _holds_query(message: Message) -> bool:
    return any(
        isinstance(child, pb.SubLink | pb.RangeSubselect) or _holds_query(child)
        for child in tree.branches(message)
    )
