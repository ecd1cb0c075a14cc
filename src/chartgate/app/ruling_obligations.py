"""What would change a denial: another purpose, a stronger sign-in, the emergency procedure.

The rules kept: what is offered was decided, on the same facts, by the same version; nothing is
offered about a patient whom the source does not know but what does not depend on the patient. The
policies are read once for what cannot matter: a forbid that does not ask for the purpose holds for
every purpose.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from chartgate.app.ruling import Obligation
from chartgate.app.ruling_verdicts import Verdict
from chartgate.app.standing import Standing
from chartgate.cedar.ast import Binary, Expr, GetAttr, HasAttr, Literal, Policy, SetExpr, Var
from chartgate.model.principal import EntityUid
from chartgate.targets.admissible import children, entities_in

ACR: Final = "acr"
ACR_VALUES: Final = (1, 2, 3)
"""How strongly somebody authenticated: a password, a second factor, one that cannot be phished."""
ACR_URN: Final = "urn:chartgate:acr:"


class Hints:
    """What the policies ask of the context, read once."""

    def __init__(self, policies: Iterable[Policy], wider: Mapping[str, frozenset[str]]) -> None:
        self._wider: Final = wider
        self._named: set[str] = set()
        self._is_opaque = False
        self._without: Final[dict[str, set[str]]] = {"purpose": set(), ACR: set()}
        self._granting: Final[set[str]] = set()
        self.asks_acr = False
        for policy in policies:
            self._read(policy)
        self._kept: Final[dict[tuple[tuple[str, ...], str], tuple[tuple[str, ...], ...]]] = {}

    def _read(self, policy: Policy) -> None:
        condition = policy.condition()
        self._named |= {uid.id for uid in entities_in(condition) if uid.type == "Purpose"}
        names = set(_context_names(condition))
        if "" in names or ("purpose" in names and _is_opaque(condition)):
            self._is_opaque = True
        if ACR in names or "" in names:
            self.asks_acr = True
        for name, without in self._without.items():
            if name not in names and "" not in names:
                without.add(policy.id)
            elif policy.effect == "permit":
                self._granting.add(name)

    def can_help(self, name: str, verdict: Verdict, *, has_grants: bool) -> bool:
        """Whether another value of what the context says could lift every forbid, and give the
        permit where one is missing. Grants are policies that were not read here."""
        return self._without[name].isdisjoint(verdict.barring) and (
            not verdict.lacks or has_grants or name in self._granting
        )

    def others(self, standing: Standing, current: str) -> tuple[tuple[str, ...], ...]:
        """The purposes that could be claimed instead, those together that no policy tells apart."""
        key = (standing.offered, current)
        found = self._kept.get(key)
        if found is None:
            groups: dict[object, list[str]] = {}
            own = self._class(current)
            for name in standing.offered:
                kind = self._class(name)
                if kind != own:
                    groups.setdefault(kind, []).append(name)
            found = self._kept[key] = tuple(tuple(group) for group in groups.values())
        return found

    def _class(self, purpose: str) -> object:
        if self._is_opaque or purpose not in self._wider:
            return purpose
        return self._wider[purpose] & self._named


def _context_names(expr: Expr) -> Iterator[str]:
    """The attributes of the context that are asked for; an empty name for the context itself."""
    if isinstance(expr, GetAttr | HasAttr) and expr.base == Var("context"):
        yield expr.attr
    elif expr == Var("context"):
        yield ""
    else:
        for child in children(expr):
            yield from _context_names(child)


_PURPOSE: Final = GetAttr(Var("context"), "purpose")


def _is_opaque(expr: Expr) -> bool:
    """Whether the purpose is asked for otherwise than by its place among named ones."""
    if isinstance(expr, Binary) and expr.op in {"in", "==", "!="} and expr.left == _PURPOSE:
        return not _is_literal(expr.right)
    return expr == _PURPOSE or any(_is_opaque(child) for child in children(expr))


def _is_literal(expr: Expr) -> bool:
    if isinstance(expr, SetExpr):
        return all(_is_literal(item) for item in expr.items)
    return isinstance(expr, Literal) and isinstance(expr.value, EntityUid)


def break_glass(standing: Standing, categories: Iterable[str]) -> Obligation | None:
    """The emergency procedure, where a role held now has it for what was asked about."""
    open_ = tuple(sorted(standing.break_glass.intersection(categories)))
    return Obligation("break_glass", values=open_) if open_ else None
