"""What one person may see and do, now, for one purpose: the policy decision behind every query.

The decision is made once per person, purpose and set of live assignments, from policies, data map
and catalog, and holds until the first instant at which one of them could answer differently.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chartgate.app.person_views import PlannedTable, TablePlanner, row_sql, table_of
from chartgate.app.rolebook import RoleBook, person_entity
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.schema import EntityRef, Schema, SetType
from chartgate.cedar.values import DateTime, RecordValue
from chartgate.datamap.model import DataMap
from chartgate.errors import Misconfigured
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.sql.views import Table, TableName, TableView, WriteAction, WriteView
from chartgate.targets.admissible import (
    RECORD,
    ROW_ACTIONS,
    check_filters,
    record_attributes,
    set_attributes,
)
from chartgate.targets.disclosure import Ask, LabelRules, PolicyIndex, Rule
from chartgate.targets.partial import Known, RowShape
from chartgate.targets.validity import valid_until

_RESOURCE: Final = EntityUid(RECORD, "this row")
_LOG: Final = EntityUid("AuditLog", "this log")


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch, as Cedar's datetime counts."""
    return int(at.astimezone(UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks and why: a person, the assignments that count now, and the claimed purpose."""

    person: Person
    assignments: tuple[Assignment, ...]
    purpose: str

    @property
    def roles(self) -> tuple[str, ...]:
        """The names of the roles held now."""
        return tuple(sorted({a.role for a in self.assignments}))

    @property
    def departments(self) -> tuple[str, ...]:
        """The departments of the assignments held now."""
        return tuple(sorted({a.department for a in self.assignments if a.department}))


class DecisionPoint:
    """The loaded policies, map and roles of one source: everything a decision is made from.

    Raises ``Misconfigured`` (``NotAFilter``, ``UnknownName``, ``InvalidMap``) when they do not fit
    together: nothing starts on a policy set that could not be enforced.
    """

    def __init__(
        self,
        policies: PolicySet,
        schema: Schema,
        roles: RoleBook,
        data_map: DataMap,
    ) -> None:
        check_filters(policies, schema)
        roles.check_policies(policies)
        self.policies: Final = policies
        self.roles: Final = roles
        self.data_map: Final = data_map
        self._index: Final = PolicyIndex(policies)
        self._entities: Final = roles.entities()
        self._sets: Final = set_attributes(schema)
        attributes = record_attributes(schema)
        self._entity_types: Final = {
            name: element.name
            for name, attribute in attributes.items()
            if isinstance(
                element := (
                    attribute.type.element
                    if isinstance(attribute.type, SetType)
                    else attribute.type
                ),
                EntityRef,
            )
        }
        for table in data_map.tables.values():
            for name in table.attributes:
                if name not in attributes or attributes[name].required:
                    raise Misconfigured(
                        f"data map {data_map.source}: tables.{table.name}: the row attribute "
                        f"{name} can be NULL, so the policy schema must make it optional"
                    )

    def asker(self, person: Person, purpose: str, *, at: datetime) -> Asker:
        """The person with what counts at ``at``; the claim is checked against her roles."""
        live = person.live(at=at) if person.active else ()
        self.roles.check_claim(purpose, live)
        return Asker(person, live, purpose)

    def entitlement(
        self, asker: Asker, tables: Mapping[TableName, Table], *, at: datetime, secret: str
    ) -> "Entitlement":
        """What the asker may see and do from ``at`` on, until it says otherwise."""
        return Entitlement(self, asker, tables, at=at, secret=secret)

    def may(self, asker: Asker, action: str, *, at: datetime) -> Answer:
        """Whether an action on the audit log (``read_audit`` …) is allowed."""
        env = self.env(asker, action, _LOG, (Entity(_LOG),), at=at)
        return authorize(self.policies, env, forbid_error_denies=True)

    def env(
        self,
        asker: Asker,
        action: str,
        resource: EntityUid,
        extra: Iterable[Entity],
        *,
        at: datetime,
    ) -> Env:
        """The request as the policies see it."""
        return Env(
            principal=EntityUid("User", asker.person.name),
            action=EntityUid("Action", action),
            resource=resource,
            context=RecordValue(
                (
                    ("purpose", EntityUid("Purpose", asker.purpose)),
                    ("now", DateTime(milliseconds(at))),
                    ("source", self.data_map.source),
                )
            ),
            entities=self._entities.with_(person_entity(asker.person, asker.assignments), *extra),
        )

    def shape(self, table: str) -> RowShape:
        """Which row attributes the rows of a mapped table have."""
        found = row_sql(self.data_map.tables[table], self.data_map, self._entity_types)
        return RowShape(
            scalars=frozenset(found.scalars),
            sets=frozenset(found.relations),
            declared_sets=self._sets,
        )

    def planner(self, table: Table, secret: str) -> TablePlanner:
        """The planner of one table's views."""
        mapped = self.data_map.tables[table.name.name]
        return TablePlanner(table, mapped, self.data_map, self._entity_types, secret)

    def ask(self, asker: Asker, shape: RowShape, *, at: datetime) -> Ask:
        """How the policy index learns what is known when it asks about an action and a label."""

        def known(action: str, label: str) -> Known:
            category = EntityUid("Category", label)
            record = Entity(_RESOURCE, attrs=RecordValue((("category", category),)))
            return Known(self.env(asker, action, _RESOURCE, (record,), at=at), shape)

        return known

    @property
    def index(self) -> PolicyIndex:
        """The policies by action."""
        return self._index

    def valid_until(self, asker: Asker, *, at: datetime) -> datetime | None:
        """The first instant at which an assignment or a clock in a policy changes the answer."""
        bounds = [a.valid_until for a in asker.assignments if a.valid_until is not None]
        bounds += [a.valid_from for a in asker.person.assignments if a.valid_from > at]
        env = self.env(asker, "view", _RESOURCE, (), at=at)
        conditions = {p.id: p.condition() for action in ROW_ACTIONS for p in self._index.of(action)}
        clock = valid_until(conditions.values(), env, now_ms=milliseconds(at))
        if clock is not None:
            bounds.append(datetime.fromtimestamp(clock / 1000, UTC))
        return min(bounds, default=None)


class Entitlement:
    """One person's views, made when first asked for; what the rewriter and the log read.

    Implements ``chartgate.sql.views.Views`` for the source's own tables.
    """

    def __init__(
        self,
        point: DecisionPoint,
        asker: Asker,
        tables: Mapping[TableName, Table],
        *,
        at: datetime,
        secret: str,
    ) -> None:
        self.asker: Final = asker
        self.valid_until: Final = point.valid_until(asker, at=at)
        self._point: Final = point
        self._tables: Final = tables
        self._at: Final = at
        self._secret: Final = secret
        self._planned: Final[dict[TableName, PlannedTable]] = {}
        self._writes: Final[dict[tuple[WriteAction, TableName], WriteView]] = {}
        self._write_rules: Final[dict[tuple[WriteAction, TableName], frozenset[str]]] = {}
        self._label_rules: Final[dict[tuple[str, RowShape], LabelRules]] = {}

    def is_valid(self, *, at: datetime) -> bool:
        """Whether the decision still holds."""
        return self.valid_until is None or at < self.valid_until

    def resolve(self, schema: str | None, name: str) -> TableName:
        """The mapped table a name means; raises ``UnknownTable``."""
        return table_of(self._point.data_map, self._tables, schema, name)

    def read(self, table: TableName) -> TableView:
        """The view for reading."""
        return self.planned(table).view

    def planned(self, table: TableName) -> PlannedTable:
        """The view together with its residual hash and determining policies."""
        found = self._planned.get(table)
        if found is None:
            planner = self._point.planner(self._tables[table], self._secret)
            shape = self._point.shape(table.name)
            rules = {label: self._rules(label, shape) for label in planner.labels}
            found = self._planned[table] = planner.read(rules)
        return found

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        """What may be written there by the action."""
        found = self._writes.get((action, table))
        if found is None:
            planner = self._point.planner(self._tables[table], self._secret)
            ask = self._point.ask(self.asker, self._point.shape(table.name), at=self._at)
            rules: dict[str, Rule] = {
                label: self._point.index.action(action, label, ask) for label in planner.labels
            }
            found = self._writes[action, table] = planner.write(action, rules)
            self._write_rules[action, table] = frozenset().union(
                *(rule.determining for rule in rules.values())
            )
        return found

    def write_determining(self, action: WriteAction, table: TableName) -> frozenset[str]:
        """The policies that a write view rests on."""
        self.write(action, table)
        return self._write_rules[action, table]

    def visible(self) -> tuple[Table, ...]:
        """The tables of which the person may see some row or write some row."""
        return tuple(
            table
            for name, table in sorted(self._tables.items(), key=lambda item: str(item[0]))
            if name.name in self._point.data_map.tables and self._is_visible(name)
        )

    def _is_visible(self, name: TableName) -> bool:
        # Asked for every table at once: the view itself is worked out when it is read.
        planner = self._point.planner(self._tables[name], self._secret)
        shape = self._point.shape(name.name)
        if planner.shows({label: self._rules(label, shape) for label in planner.labels}):
            return True
        return bool(self.write("create", name).columns)

    def _rules(self, label: str, shape: RowShape) -> LabelRules:
        found = self._label_rules.get((label, shape))
        if found is None:
            ask = self._point.ask(self.asker, shape, at=self._at)
            found = self._label_rules[label, shape] = self._point.index.label(label, ask)
        return found


def fingerprint(tables: Iterable[Table]) -> str:
    """SHA-256 over names, columns and types: another schema than the one decided for is refused."""
    text = "\n".join(
        f"{t.name}|{t.oid}|" + ",".join(f"{c.name} {c.type_sql}" for c in t.columns)
        for t in sorted(tables, key=lambda t: str(t.name))
    )
    return hashlib.sha256(text.encode()).hexdigest()
