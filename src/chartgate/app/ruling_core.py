"""What all questions to one version share: the compiled policies, what is known of them, answers."""

from collections.abc import Iterable
from typing import Final, TypeVar

from chartgate.app.engine import Engine
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.ruling_fields import Fields
from chartgate.app.ruling_frame import Framing
from chartgate.app.ruling_levels import Allowed, Reached
from chartgate.app.ruling_obligations import Hints
from chartgate.app.ruling_reasons import NO_PERMIT, Forbidden
from chartgate.app.ruling_shape import shape_of
from chartgate.app.ruling_verdicts import Verdict
from chartgate.app.ruling_views import Clocked, Sight
from chartgate.app.standing import Claims, People
from chartgate.cedar.entities import Entity
from chartgate.cedar.values import CedarSet, Value
from chartgate.datamap.model import DataMap
from chartgate.model.principal import EntityUid
from chartgate.targets.compiled import Weighed
from chartgate.targets.compiled_special import Specialiser

_MOST_KEPT: Final = 8_192
_OFTEN: Final = 100
_K = TypeVar("_K")
_V = TypeVar("_V")


class Core:
    """Everything that one version needs to decide, and what it found before.

    What is kept is a function of what holds: it stays right whatever else changes.
    """

    def __init__(
        self,
        version: PolicyVersion,
        people: People,
        data_map: DataMap | None,
        entities: Iterable[Entity],
    ) -> None:
        policies = version.policies.policies
        claims = Claims(version.roles)
        self.engine: Final = Engine(version, entities)
        self.specialiser: Final = Specialiser(self.engine.live.compiled)
        self.often = _OFTEN
        """So many times the same is asked of all policies before what is left of them is worked out:
        that costs as much as some dozens of answers, and must be rarer than one in a hundred."""
        self.data_map_hash: Final = "" if data_map is None else data_map.hash
        self.shape: Final = shape_of(version.schema, has_map=data_map is not None)
        self.fields: Final = Fields(data_map, self.shape.categories)
        self.forbidden: Final = Forbidden(policies)
        self.hints: Final = Hints(
            policies,
            claims.wider,
            frozenset(p for action in version.schema.actions.values() for p in action.parents),
        )
        self.sight: Final = Sight(people, claims)
        self.framing: Final = Framing(
            self.shape.askable,
            Clocked(policies),
            claims,
            source="" if data_map is None else data_map.source,
            enums=frozenset(n for n, kind in version.schema.entities.items() if kind.enum),
        )
        self.labels: Final = {name: EntityUid("Category", name) for name in self.shape.categories}
        self.no_patient: Final[dict[str, Value]] = {
            name: CedarSet.of(()) for name in self.shape.record_sets
        }
        self.verdicts: Final[dict[tuple[object, ...], Verdict]] = {}
        self._reached: Final[dict[tuple[Weighed, ...], Reached]] = {}
        self._allowed: Final[dict[tuple[Weighed, ...], Allowed]] = {}
        self._single: Final[dict[Weighed, Verdict]] = {}
        self._plain: Final[dict[Allowed, Verdict]] = {}

    def reached(self, weighed: tuple[Weighed, ...]) -> Reached:
        """The level from what holds for each level, of the whole person and of each part."""
        found = self._reached.get(weighed)
        if found is None:
            step = len(weighed) // 3
            found = Reached(
                weighed[::step], tuple(weighed[n + 1 : n + step] for n in range(0, 3 * step, step))
            )
            _keep(self._reached, weighed, found)
        return found

    def allowed(self, weighed: tuple[Weighed, ...]) -> Allowed:
        """Whether an action is allowed, from what holds."""
        found = self._allowed.get(weighed)
        if found is None:
            found = Allowed(weighed[0], weighed[1:])
            _keep(self._allowed, weighed, found)
        return found

    def single(self, weighed: Weighed) -> Verdict:
        """The same from what holds for somebody whose assignments are not asked apart."""
        kept = self._single.get(weighed)
        if kept is None:
            kept = self.plain(self.allowed((weighed,)))
            _keep(self._single, weighed, kept)
        return kept

    def plain(self, found: Allowed) -> Verdict:
        """The answer about a plain resource."""
        kept = self._plain.get(found)
        if kept is None:
            barring, failed = found.barring, found.failed
            reason = self.forbidden.reason(barring, failed) if barring else NO_PERMIT
            kept = Verdict(
                allowed=found.allowed,
                determining=found.determining if found.allowed else barring,
                failed=failed,
                reason=None if found.allowed else reason,
                barring=barring,
                lacks=not found.top,
            )
            _keep(self._plain, found, kept)
        return kept

    def keep_verdict(self, key: tuple[object, ...], verdict: Verdict) -> Verdict:
        """Remember an answer."""
        _keep(self.verdicts, key, verdict)
        return verdict


def _keep(kept: dict[_K, _V], key: _K, value: _V) -> None:
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[key] = value
