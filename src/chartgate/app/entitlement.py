"""What one person may see and do, now, for one purpose: the policy decision behind every query.

The decision is made once per person, purpose and set of live assignments, from policies, data map
and catalog, and holds until the first instant at which one of them could answer differently.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from chartgate.app.attribute_columns import check_columns
from chartgate.app.person_views import PlannedTable, TablePlanner, table_of
from chartgate.app.rolebook import RoleBook, person_entity
from chartgate.app.table_plan import TablePlan, table_plan
from chartgate.cedar.ast import PolicySet
from chartgate.cedar.authorize import Answer, authorize
from chartgate.cedar.entities import Entities, Entity
from chartgate.cedar.evaluate import Env
from chartgate.cedar.schema import Schema
from chartgate.cedar.values import DateTime, RecordValue
from chartgate.datamap.model import DataMap
from chartgate.errors import Misconfigured
from chartgate.model.principal import Assignment, EntityUid, Person
from chartgate.sql.views import Table, TableName, TableView, WriteAction, WriteView
from chartgate.targets.admissible import (
    RECORD,
    ROW_ACTIONS,
    attribute_kinds,
    check_filters,
    hierarchies,
    record_attributes,
    set_attributes,
)
from chartgate.targets.disclosure import Ask, Asks, LabelRules, PolicyIndex, Rule
from chartgate.targets.partial import Known, RowShape
from chartgate.targets.validity import valid_until

_RESOURCE: Final = EntityUid(RECORD, "this row")
_LOG: Final = EntityUid("AuditLog", "this log")
_STORE: Final = EntityUid("PolicyStore", "this store")
STORE_STEPS: Final = frozenset(
    {"edit_policy", "approve_policy", "activate_policy", "administer_services", "approve_grant"}
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch, as Cedar's datetime counts."""
    # In integers: a float would fall one short of an instant that a policy names.
    return (at - _EPOCH) // _MILLISECOND


def _instant(ms: int) -> datetime:
    """The instant, or the last one that there is: Cedar's calendar is longer than Python's."""
    try:
        return _EPOCH + ms * _MILLISECOND
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


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
    def parts(self) -> tuple["Asker", ...]:
        """The person with each assignment alone."""
        return tuple(replace(self, assignments=(a,)) for a in self.assignments)

    @property
    def departments(self) -> tuple[str, ...]:
        """The departments of the assignments held now."""
        return tuple(sorted({a.department for a in self.assignments if a.department}))


def known_families(roles: RoleBook, schema: Schema) -> dict[str, frozenset[EntityUid]]:
    """The hierarchies of which every member is known: roles and purposes."""
    known = {"Role": roles.roles, "Purpose": roles.purposes}
    return {
        kind: frozenset(EntityUid(kind, name) for name in known[kind])
        for kind in hierarchies(schema) & known.keys()
    }


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
        families = known_families(roles, schema)
        check_filters(policies, schema, families=frozenset(families))
        roles.check_policies(policies)
        self.policies: Final = policies
        self.roles: Final = roles
        self.data_map: Final = data_map
        self._index: Final = PolicyIndex(policies.policies)
        self._entities: Final = roles.entities()
        sets, attributes = set_attributes(schema), record_attributes(schema)
        for name in sorted(sets - data_map.relations.keys()):
            raise Misconfigured(
                f"data map {data_map.source}: no relation says what the set {name} of a record is"
            )
        for table in data_map.tables.values():
            for name in (*table.attributes, *(("patient",) if table.patient is not None else ())):
                if name not in attributes or attributes[name].required:
                    raise Misconfigured(
                        f"data map {data_map.source}: tables.{table.name}: the row attribute "
                        f"{name} can be NULL, so the policy schema must make it optional"
                    )
        kinds = attribute_kinds(schema)
        self._plans: Final = {
            name: table_plan(table, data_map, kinds=kinds, declared_sets=sets, families=families)
            for name, table in data_map.tables.items()
        }
        self._kinds: Final = kinds

    def check_columns(self, tables: Mapping[TableName, Table]) -> None:
        """Compare row attributes with the source's catalog; raises ``UnfitColumn``."""
        for name, live in tables.items():
            mapped = self.data_map.tables.get(name.name)
            if mapped is not None and name.schema == self.data_map.schema:
                check_columns(mapped, live, self.data_map, self._kinds)

    def asker(self, person: Person, purpose: str, *, at: datetime) -> Asker:
        """The person with what counts at ``at``; the claim is checked against her roles."""
        live = self.roles.known_of(person).live(at=at) if person.active else ()
        self.roles.check_claim(purpose, live)
        return Asker(person, live, purpose)

    def entitlement(
        self, asker: Asker, tables: Mapping[TableName, Table], *, at: datetime, secret: str
    ) -> "Entitlement":
        """What the asker may see and do from ``at`` on, until it says otherwise."""
        return Entitlement(self, asker, tables, at=at, secret=secret)

    def may(self, asker: Asker, action: str, *, at: datetime) -> Answer:
        """Whether an action on the audit log (``read_audit`` …) or on the policy store
        (``approve_policy`` …) is allowed."""
        resource = _STORE if action in STORE_STEPS else _LOG

        def answer(one: Asker, effect: str) -> Answer:
            return authorize(
                [policy for policy in self.policies.policies if policy.effect == effect],
                self.env(one, action, resource, (Entity(resource),), at=at),
                forbid_error_denies=True,
            )

        taken = answer(asker, "forbid")
        if taken.determining:
            return taken
        given = [answer(part, "permit") for part in asker.parts]
        return Answer(
            any(part.allowed for part in given),
            tuple(dict.fromkeys(name for part in given for name in part.determining)),
            tuple(dict.fromkeys(failed for part in (taken, *given) for failed in part.errors)),
        )

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
            entities=self.people(asker).with_(*extra),
        )

    def people(self, asker: Asker) -> Entities:
        """The asker among roles and purposes."""
        return self._entities.with_(person_entity(asker.person, asker.assignments))

    def plan(self, table: str) -> TablePlan:
        """What the data map says of a table."""
        return self._plans[table]

    def judge(self, asker: Asker, *, at: datetime) -> "Judge":
        """The policies that speak of the asker, and what is known when they are asked."""
        return Judge(
            self._index,
            self.env(asker, "view", _RESOURCE, (), at=at),
            tuple(self.env(part, "view", _RESOURCE, (), at=at) for part in asker.parts),
        )

    def valid_until(self, asker: Asker, *, at: datetime) -> datetime | None:
        """The first instant at which an assignment or a clock in a policy changes the answer."""
        bounds = [a.valid_until for a in asker.assignments if a.valid_until is not None]
        bounds += [a.valid_from for a in asker.person.assignments if a.valid_from > at]
        for part in (asker, *asker.parts):
            env = self.env(part, "view", _RESOURCE, (), at=at)
            # Policies for other people cannot change this one's answer.
            index = self._index.of_whom(env)
            conditions = {p.id: p.condition() for action in ROW_ACTIONS for p in index.of(action)}
            clock = valid_until(conditions.values(), env, now_ms=milliseconds(at))
            if clock is not None:
                bounds.append(_instant(clock))
        return min(bounds, default=None)


class Judge:
    """The policies, read for one asker: what each label of a row comes to."""

    def __init__(self, index: PolicyIndex, whole: Env, parts: tuple[Env, ...]) -> None:
        self._index: Final = index.of_whom(whole)
        self._whole: Final = whole
        # With one assignment, the person and her assignment are the same question.
        self._parts: Final = parts if len(parts) > 1 else ()
        self._view: Final[dict[tuple[str, RowShape], LabelRules]] = {}
        self._change: Final[dict[tuple[str, str, RowShape], Rule]] = {}

    def view(self, label: str, shape: RowShape) -> LabelRules:
        """When rows with the label are seen, and how well."""
        found = self._view.get((label, shape))
        if found is None:
            found = self._view[label, shape] = self._index.label(label, self._asks(shape))
        return found

    def change(self, action: str, label: str, shape: RowShape) -> Rule:
        """When rows with the label may be created, updated or deleted."""
        found = self._change.get((action, label, shape))
        if found is None:
            found = self._index.action(action, label, self._asks(shape))
            self._change[action, label, shape] = found
        return found

    def _asks(self, shape: RowShape) -> Asks:
        return Asks(
            _ask_of(self._whole, shape), tuple(_ask_of(part, shape) for part in self._parts)
        )


def _ask_of(env: Env, shape: RowShape) -> Ask:
    def known(action: str, label: str) -> Known:
        attributes = RecordValue((("category", EntityUid("Category", label)),))
        entities = env.entities.with_(Entity(_RESOURCE, attrs=attributes))
        return Known(replace(env, action=EntityUid("Action", action), entities=entities), shape)

    return known


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
        self._judge: Final = point.judge(asker, at=at)

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
            planner, plan = self._planner(table)
            rules = {label: self._judge.view(label, plan.shape) for label in plan.labels}
            found = self._planned[table] = planner.read(rules)
        return found

    def write(self, action: WriteAction, table: TableName) -> WriteView:
        """What may be written there by the action."""
        found = self._writes.get((action, table))
        if found is None:
            planner, plan = self._planner(table)
            rules = {label: self._judge.change(action, label, plan.shape) for label in plan.labels}
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
        planner, plan = self._planner(name)
        views = {label: self._judge.view(label, plan.shape) for label in plan.row_labels}
        if planner.shows(views):
            return True
        return planner.creates(
            {label: self._judge.change("create", label, plan.shape) for label in plan.row_labels}
        )

    def _planner(self, name: TableName) -> tuple[TablePlanner, TablePlan]:
        plan = self._point.plan(name.name)
        return TablePlanner(self._tables[name], plan, self._secret), plan


def fingerprint(tables: Iterable[Table]) -> str:
    """SHA-256 over names, columns and types: another schema than the one decided for is refused."""
    text = "\n".join(
        f"{t.name}|{t.oid}|" + ",".join(f"{c.name} {c.type_sql}" for c in t.columns)
        for t in sorted(tables, key=lambda t: str(t.name))
    )
    return hashlib.sha256(text.encode()).hexdigest()
