"""The rulings that a node decides by: replaced as one when a version comes, with people and grants.

Rules kept: a version is built and warmed before it is in force, and nothing waits for it; what people
and grants are is the same for all versions that are held ready; a grant that was ended is obeyed by
none of them from the moment it is heard of, whatever is being built.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from chartgate.adapters.engine_warmup import paced
from chartgate.adapters.policy_in_force import Loaded
from chartgate.app.entitlement import DecisionPoint
from chartgate.app.in_force import InForce
from chartgate.app.policy_bundle import PolicyVersion
from chartgate.app.rulings import Rulings
from chartgate.app.session_views import Source
from chartgate.app.standing import PersonStandings
from chartgate.cedar.ast import Policy
from chartgate.cedar.entities import Entity
from chartgate.datamap.model import DataMap
from chartgate.errors import ChartgateError
from chartgate.model.principal import Person

_MOST_READY: Final = 5

Alarmed = Callable[[str, str], None]
"""(what, words)"""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A version, ready to decide."""

    rulings: Rulings
    people: PersonStandings
    version: PolicyVersion
    data_map: DataMap | None
    names: frozenset[str] = frozenset()
    """Actions and entity types that its schema knows."""
    given: set[str] = field(default_factory=set)
    """The grants that it has."""

    def give(self, grants: Mapping[str, Policy]) -> list[str]:
        """Put grants in force; answers those that this version's schema does not admit."""
        missing = {name: policy for name, policy in grants.items() if name not in self.given}
        if not missing:
            return []
        try:
            self.rulings.grant(*missing.values())
        except ChartgateError:
            return [name for name, policy in missing.items() if not self._give(name, policy)]
        self.given.update(missing)
        return []

    def _give(self, name: str, policy: Policy) -> bool:
        try:
            self.rulings.grant(policy)
        except ChartgateError:
            return False
        self.given.add(name)
        return True

    def end(self, names: Iterable[str]) -> None:
        """End grants, now."""
        for name in names:
            self.rulings.revoke(name)
            self.given.discard(name)


def make_ready(
    version: PolicyVersion,
    data_map: DataMap | None,
    persons: Mapping[str, Person],
    entities: Iterable[Entity] = (),
    *,
    at_leisure: bool = True,
) -> Ready:
    """Build and warm a version: in a worker thread, or, not ``at_leisure``, before anything is
    served."""
    people = PersonStandings(persons, version.roles)
    rulings = Rulings(version, people, data_map=data_map, entities=entities)
    if at_leisure:
        paced(rulings.warming())
    else:
        for _ in rulings.warming():
            pass
    names = {uid.id for uid in version.schema.actions} | set(version.schema.entities)
    return Ready(rulings, people, version, data_map, frozenset(names))


class RulingsInForce(InForce):
    """What the policy keeper replaces; ``ready`` decides."""

    def __init__(
        self, loaded: Loaded, source: Source, persons: Mapping[str, Person], alarmed: Alarmed
    ) -> None:
        super().__init__(loaded.point, source)
        self._persons: Final = persons
        self._alarmed: Final = alarmed
        self._grants: dict[str, Policy] = {}
        self._made: dict[int, tuple[DecisionPoint, Ready]] = {}
        self._told: set[tuple[str, str]] = set()
        self.on_replaced: Callable[[Ready], None] = lambda _ready: None
        """Called in the loop, in the instant of a replacement."""
        self._prepare(loaded, at_leisure=False)
        self.ready: Ready = self._made[id(loaded.point)][1]
        """What decides now."""

    # --- in a worker thread ---------------------------------------------------------------

    def prepare(self, loaded: Loaded) -> None:
        """Have a version ready, in case it is put in force. Raises ``Misconfigured``."""
        self._prepare(loaded, at_leisure=True)

    def _prepare(self, loaded: Loaded, *, at_leisure: bool) -> None:
        if id(loaded.point) in self._made:
            return
        ready = make_ready(loaded.version, loaded.data_map, self._persons, at_leisure=at_leisure)
        self._give(ready, dict(self._grants))
        self._made[id(loaded.point)] = loaded.point, ready

    def adopt(self, grants: Mapping[str, Policy]) -> None:
        """Put verified grants in force in every version; ``settle`` follows in the loop."""
        for _, ready in list(self._made.values()):
            self._give(ready, grants)

    # --- in the loop ----------------------------------------------------------------------

    def settle(self, grants: Mapping[str, Policy]) -> None:
        """Grants that were adopted count, also for versions to come."""
        self._grants.update(grants)

    def end(self, names: Iterable[str]) -> None:
        """These grants are over, at once."""
        listed = list(names)
        for name in listed:
            self._grants.pop(name, None)
        for _, ready in list(self._made.values()):
            ready.end(listed)

    @property
    def granted(self) -> Mapping[str, Policy]:
        """The grants in force."""
        return self._grants

    def forget(self, names: Iterable[str] | None) -> None:
        """These people changed; None: everybody may have."""
        for _, ready in list(self._made.values()):
            for name in ("",) if names is None else names:
                ready.people.forget(name)

    def replace(self, point: DecisionPoint, source: Source) -> None:
        """From the next decision on."""
        try:
            _, ready = self._made[id(point)]
            ready.end(ready.given - self._grants.keys())
            self._give(ready, self._grants)
            super().replace(point, source)
            self.ready = ready
            for key in list(self._made)[:-_MOST_READY]:
                if self._made[key][1] is not ready:
                    del self._made[key]
        finally:
            self.on_replaced(self.ready)

    def _give(self, ready: Ready, grants: Mapping[str, Policy]) -> None:
        for name in ready.give(grants):
            mark = name, ready.version.hash
            if mark not in self._told:
                self._told.add(mark)
                self._alarmed(
                    "unusable_grant", f"grant {name} does not fit the policies in force here"
                )
