"""One person's views: policies, data map and catalog joined, and nothing more than they say."""

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chartgate.app.entitlement import DecisionPoint, Entitlement, fingerprint, milliseconds
from chartgate.app.person_views import UnknownTable, pseudonym
from chartgate.app.rolebook import PurposeRefused, Role, RoleBook
from chartgate.cedar.parse import parse_policies
from chartgate.cedar.validate import parse_schema
from chartgate.datamap.read import read_map
from chartgate.errors import Misconfigured
from chartgate.model.principal import Assignment, Person
from chartgate.sql.qualify import InvalidExpression
from chartgate.sql.views import Column, Table, TableName

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SCHEMA = """
entity Category enum ["demographics", "labs", "sud_part2", "protected_person", "record_ids", "technical"];
entity Purpose in [Purpose];
entity Role in [Role];
entity Department;
entity Patient;
entity User in [Role] = { departments: Set<Department>, references: Set<String> };
entity Record = {
  category: Category, patient?: Patient, department?: Department, author?: User,
  care_team: Set<User>, departments: Set<Department>,
};
entity AuditLog;
type Asked = { purpose: Purpose, now: datetime, source: String };
action view, view_summary, view_masked, create, update, delete appliesTo {
  principal: [User], resource: [Record], context: Asked };
action read_audit appliesTo { principal: [User], resource: [AuditLog], context: Asked };
"""
POLICIES = """
@id("doctor_sees_own")
permit (principal in Role::"doctor", action == Action::"view", resource)
when { resource.care_team.contains(principal) };
@id("doctor_knows_of_all")
permit (principal in Role::"doctor", action == Action::"view_summary", resource)
when { [Category::"demographics", Category::"labs"].contains(resource.category) };
@id("clerk_masked")
permit (principal in Role::"clerk", action == Action::"view_masked", resource)
when { [Category::"demographics", Category::"labs", Category::"sud_part2"].contains(resource.category) };
@id("clerk_moves")
permit (principal in Role::"clerk", action in [Action::"create", Action::"update"], resource)
when { resource.category == Category::"labs" };
@id("night_clerk")
permit (principal in Role::"night", action == Action::"view", resource)
when { resource.category == Category::"labs" && context.now < datetime("2026-11-22T18:00:00Z") };
@id("far_future")
permit (principal in Role::"robot", action == Action::"view", resource)
when { context.now < datetime("9999-12-31").offset(duration("400d")) };
@id("not_the_protected")
forbid (principal, action == Action::"view", resource)
when { resource.category == Category::"protected_person" }
unless { resource.department == Department::"vip" };
@id("auditor")
permit (principal in Role::"auditor", action == Action::"read_audit", resource);
"""
MAP: dict[str, Any] = {
    "source": "clinic",
    "patient": {"table": "patient", "key": "id", "identifier": "mrn"},
    "code_sets": {},
    "relations": {
        "care_team": {
            "type": "Set<User>",
            "from": "team t",
            "where": "t.patient = {patient}",
            "value": "t.member",
        },
        "departments": {
            "type": "Set<Department>",
            "from": "team d",
            "where": "d.patient = {patient}",
            "value": "d.department",
        },
    },
    "patient_labels": [
        {"category": "protected_person",
         "when": "EXISTS (SELECT 1 FROM flag f WHERE f.patient = {patient})"}
    ],
    "tables": {
        "patient": {
            "row_category": "demographics",
            "patient": "this.id",
            "columns": {
                "id": "key",
                "mrn": {"category": "record_ids", "masked": "'***'"},
                "name": {"category": "demographics", "masked": "left(this.name, 1)"},
                "born": {"category": "demographics", "summary": "date_trunc('year', this.born)::date"},
                "city": {"category": "demographics", "summary": "keep", "masked": "keep"},
            },
        },
        "lab": {
            "row_category": "labs",
            "patient": "this.patient_id",
            "attributes": {"department": {"value": "this.department"}},
            "row_labels": [{"category": "sud_part2", "when": "this.code = 'F11'"},
                           {"category": "sud_part2", "when": "this.code IS NULL"}],
            "columns": {"id": "key", "patient_id": "key", "code": "labs", "department": "labs",
                        "value": {"category": "labs", "summary": "'normal'", "masked": "keep"},
                        "secret": "none"},
        },
        "team": {
            "row_category": "labs",
            "patient": "this.patient",
            "read_only": True,
            "columns": {"patient": {"category": "key", "domain": "public.patient.id"},
                        "member": "labs", "department": "labs"},
        },
        "setting": {"row_category": "technical", "columns": {"name": "technical"}},
    },
}  # fmt: skip


def table(name: str, /, **columns: str) -> Table:
    domains = {("lab", "patient_id"): "public.patient.id"}
    return Table(
        TableName("public", name),
        len(name),
        tuple(Column(c, t, key_domain=domains.get((name, c), "")) for c, t in columns.items()),
    )


TABLES = {
    t.name: t
    for t in (
        table("patient", id="bigint", mrn="text", name="text", born="date", city="text"),
        table("lab", id="bigint", patient_id="bigint", code="text", department="text",
              value="numeric", secret="text", new="integer"),
        table("team", patient="bigint", member="text", department="text"),
        table("setting", name="text"),
        table("unmapped", id="integer"),
    )
}  # fmt: skip
ROLES = RoleBook(
    {
        name: Role(name, name, (), "TREAT", ("TREAT",))
        for name in ("doctor", "clerk", "night", "robot", "auditor")
    },
    {"TREAT": (), "ETREAT": ("TREAT",), "HRESCH": ()},
)


def point(
    policies: str = POLICIES, document: Mapping[str, Any] = MAP, schema: str = SCHEMA
) -> DecisionPoint:
    return DecisionPoint(
        parse_policies({"p.cedar": policies}),
        parse_schema(schema, "s.cedarschema"),
        ROLES,
        read_map(
            document,
            {},
            categories=frozenset(
                ["demographics", "labs", "sud_part2", "protected_person", "record_ids", "technical"]
            ),
            relation_types={"care_team": "Set<User>", "departments": "Set<Department>"},
        ),
    )


def person(*roles: str, until: datetime | None = None) -> Person:
    return Person(
        "u1",
        "me",
        "Me",
        True,
        tuple(Assignment(r, "ward", NOON - DAY, until, "T-1") for r in roles),
    )


def entitled(*roles: str, made: DecisionPoint | None = None, secret: str = "s3cret") -> Entitlement:
    made = made or point()
    return made.entitlement(
        made.asker(person(*roles), "TREAT", at=NOON), TABLES, at=NOON, secret=secret
    )


def columns(entitlement: Entitlement, name: str) -> dict[str, Any]:
    return {c.name: c for c in entitlement.read(TableName("public", name)).columns}


def test_a_cell_has_the_best_form_that_its_level_allows_and_the_next_lower_when_missing() -> None:
    seen = columns(entitled("clerk"), "patient")
    assert seen["name"].expression == '("left"(this.name, 1))::text'
    assert seen["name"].level == "masked"
    assert (seen["born"].expression, seen["born"].level) == ("NULL::date", "withheld")
    assert (seen["city"].expression, seen["city"].clear) == ('this."city"', True)
    summary = columns(entitled("doctor"), "patient")
    assert "date_trunc" in summary["born"].expression
    assert summary["born"].level == "mixed"


def test_what_is_unlabelled_or_not_in_the_map_is_withheld() -> None:
    seen = columns(entitled("clerk"), "lab")
    assert seen["secret"].expression == "NULL::text"
    assert seen["new"].expression == "NULL::integer"
    assert seen["new"].full_when == "false"


def test_a_row_label_without_a_permit_hides_the_row_and_null_counts_as_labelled() -> None:
    predicate = entitled("doctor").read(TableName("public", "lab")).row_predicate
    assert predicate is not None
    assert "((this.code = 'F11') IS NOT FALSE) OR ((this.code IS NULL) IS NOT FALSE)" in predicate
    assert "IS FALSE" in predicate


def test_a_person_without_a_permit_sees_no_row_and_no_cell() -> None:
    view = entitled("auditor").read(TableName("public", "lab"))
    assert view.row_predicate == "false"
    assert {c.expression.partition("::")[0] for c in view.columns} == {"NULL"}


def test_keys_of_one_domain_share_their_pseudonyms_and_others_do_not() -> None:
    entitlement = entitled("clerk")
    patient, lab = columns(entitlement, "patient"), columns(entitlement, "lab")
    team = columns(entitlement, "team")

    def key(column: Any) -> str:
        return str(column.expression).replace(f'"{column.name}"', "x")

    assert key(lab["patient_id"]) == key(team["patient"])
    assert key(lab["patient_id"]) != key(lab["id"])
    assert "s3cret:public.patient.id:" in patient["id"].expression
    assert "s3cret:public.lab.id:" in lab["id"].expression
    assert patient["id"].level == "key"


def test_another_session_has_other_pseudonyms_and_the_same_residual() -> None:
    name = TableName("public", "patient")
    one, other = entitled("clerk"), entitled("clerk", secret="0ther")
    assert one.planned(name).residual == other.planned(name).residual
    assert one.read(name) != other.read(name)
    assert one.planned(name) is one.planned(name)
    assert one.planned(name).determining == {"clerk_masked"}


@pytest.mark.parametrize(
    ("type_sql", "expected"),
    [
        ("bigint", "::bit(60)::bigint"),
        ("integer", "::bit(31)::integer"),
        ("uuid", ", 1, 32)::uuid"),
        ("numeric", "1000000000000000000)::numeric"),
        ("numeric(12,2)", "10000000000)::numeric(12,2)"),
        ("text", ", 1, 20))::text"),
        ("character varying(12)", ", 1, 11))::character varying(12)"),
        ("character(36)", ", 1, 20))::character(36)"),
    ],
)
def test_a_pseudonym_has_its_columns_type(type_sql: str, expected: str) -> None:
    made = pseudonym("this.x", type_sql, "k'ey")
    assert made.startswith("CASE WHEN this.x IS NULL THEN NULL ELSE ")
    assert expected in made
    assert "'k''ey'" in made


@pytest.mark.parametrize(
    "type_sql", ["smallint", "date", "numeric(8,2)", "character varying(8)", "public.key_type"]
)
def test_a_type_without_room_for_a_pseudonym_is_withheld(type_sql: str) -> None:
    assert pseudonym("this.x", type_sql, "k") == f"NULL::{type_sql}"


def test_names_in_the_map_get_their_schema_and_patients_their_key() -> None:
    view = entitled("doctor").read(TableName("public", "lab"))
    assert any("FROM public.team t WHERE" in column.expression for column in view.columns)
    assert "public.flag" in str(view.row_predicate)
    assert view.patient == "(this.patient_id)::pg_catalog.text"
    assert view.patient_columns == {"patient_id": "patient"}
    patient = entitled("doctor").read(TableName("public", "patient"))
    assert patient.patient_columns == {"id": "patient", "mrn": "mrn"}


def test_writing_follows_the_columns_category_and_never_changes_a_key() -> None:
    entitlement = entitled("clerk")
    lab = TableName("public", "lab")
    # The clerk may write labs, but no rule lets her write rows that may carry another label.
    update = entitlement.write("update", lab)
    assert set(update.columns) == {"code", "department", "value"}
    assert set(entitlement.write("create", lab).columns) == {
        "id", "patient_id", "code", "department", "value",
    }  # fmt: skip
    assert update.policy_columns == {"code", "department", "patient_id"}
    # Among the patient's columns none is hers to write.
    assert entitlement.write("create", TableName("public", "patient")).columns == {}
    assert entitlement.write_determining("update", lab) == {"clerk_moves"}
    assert entitlement.write("delete", lab).row_predicate == "false"
    assert entitlement.write("delete", lab).columns == {}


def test_a_row_that_may_be_written_may_have_columns_that_may_not() -> None:
    document = deepcopy(MAP)
    document["tables"]["lab"]["columns"]["value"] = "demographics"
    made = entitled("clerk", made=point(document=document))
    assert set(made.write("update", TableName("public", "lab")).columns) == {"code", "department"}


def test_a_star_in_the_maps_sql_makes_every_column_a_policy_column() -> None:
    document = deepcopy(MAP)
    document["tables"]["lab"]["row_labels"].append(
        {"category": "sud_part2", "when": "EXISTS (SELECT this.*)"}
    )
    made = entitled("clerk", made=point(document=document))
    update = made.write("update", TableName("public", "lab"))
    assert update.policy_columns == {c.name for c in TABLES[TableName("public", "lab")].columns}


def test_a_read_only_table_is_written_by_nobody() -> None:
    entitlement = entitled("clerk")
    for action in ("create", "update", "delete"):
        view = entitlement.write(action, TableName("public", "team"))  # type: ignore[arg-type]
        assert (view.row_predicate, view.columns) == ("false", {})


def test_visible_are_the_tables_with_some_row_to_see_or_to_make() -> None:
    def names(*roles: str) -> set[str]:
        return {t.name.name for t in entitled(*roles).visible()}

    assert names("clerk") == {"patient", "lab", "team"}
    assert names("auditor") == set()
    assert names("doctor") == {"patient", "lab", "team"}
    # Without a view of labs, being allowed to make one is enough to know of the table.
    writes = POLICIES.replace('@id("clerk_masked")', '@id("clerk_masked") @note("")').replace(
        'Role::"clerk", action == Action::"view_masked"',
        'Role::"robot", action == Action::"view_masked"',
    )
    assert {t.name.name for t in entitled("clerk", made=point(writes)).visible()} == {"lab"}


def test_only_mapped_tables_resolve() -> None:
    entitlement = entitled("clerk")
    assert entitlement.resolve(None, "lab") == TableName("public", "lab")
    for schema, name in (("other", "lab"), (None, "unmapped"), (None, "nowhere")):
        with pytest.raises(UnknownTable, match="is not in the data map"):
            entitlement.resolve(schema, name)
    made = point()
    asker = made.asker(person("clerk"), "TREAT", at=NOON)
    gone = made.entitlement(asker, {}, at=NOON, secret="")
    with pytest.raises(UnknownTable):
        gone.resolve(None, "lab")


# ── how long it holds ─────────────────────────────────────────────────────────────────────────


def test_a_decision_ends_with_the_first_assignment_that_it_rests_on() -> None:
    made, ends = point(), NOON + timedelta(minutes=5)
    asker = made.asker(person("clerk", until=ends), "TREAT", at=NOON)
    entitlement = made.entitlement(asker, TABLES, at=NOON, secret="")
    assert entitlement.valid_until == ends
    assert entitlement.is_valid(at=ends - timedelta(microseconds=1))
    assert not entitlement.is_valid(at=ends)
    assert entitled("clerk").is_valid(at=NOON + 100 * DAY)


def test_a_decision_ends_when_an_assignment_begins() -> None:
    made = point()
    later = Assignment("doctor", None, NOON + DAY, None)
    who = Person("u1", "me", "Me", True, (*person("clerk").assignments, later))
    asker = made.asker(who, "TREAT", at=NOON)
    assert asker.roles == ("clerk",)
    assert asker.departments == ("ward",)
    assert made.valid_until(asker, at=NOON) == NOON + DAY
    assert made.valid_until(made.asker(person("clerk"), "TREAT", at=NOON), at=NOON) is None
    assert entitled("clerk", made=made).is_valid(at=NOON + 1000 * DAY)


def test_a_clock_in_a_policy_bounds_the_decision() -> None:
    night = datetime(2026, 11, 22, 18, tzinfo=UTC)
    made = point()
    asker = made.asker(person("night"), "TREAT", at=NOON)
    assert made.valid_until(asker, at=NOON) == night
    before = made.entitlement(asker, TABLES, at=night - timedelta(microseconds=1), secret="")
    assert before.read(TableName("public", "lab")).row_predicate != "false"
    assert before.valid_until == night
    after = made.entitlement(asker, TABLES, at=night, secret="")
    assert after.read(TableName("public", "lab")).row_predicate == "false"
    assert after.valid_until is not None
    assert after.valid_until > night


def test_an_instant_beyond_the_calendar_is_its_end() -> None:
    made = point()
    late = datetime(2026, 12, 1, tzinfo=UTC)
    asker = made.asker(person("robot"), "TREAT", at=late)
    assert made.valid_until(asker, at=late) == datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize("micro", [1_000, 57_000, 999_000, 1, 999])
def test_milliseconds_are_counted_in_integers(micro: int) -> None:
    at = datetime(2026, 11, 22, 12, 0, 1, micro, tzinfo=UTC)
    whole = milliseconds(datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC))
    assert milliseconds(at) == whole + micro // 1000


# ── who asks ──────────────────────────────────────────────────────────────────────────────────


def test_a_deactivated_person_has_no_role_and_no_purpose() -> None:
    gone = Person("u1", "me", "Me", False, person("clerk").assignments)
    with pytest.raises(PurposeRefused):
        point().asker(gone, "TREAT", at=NOON)


def test_an_action_on_the_log_is_asked_like_any_other() -> None:
    made = point()
    for role, allowed in (("auditor", True), ("clerk", False)):
        asker = made.asker(person(role), "TREAT", at=NOON)
        assert made.may(asker, "read_audit", at=NOON).allowed is allowed


IN_HER_DEPARTMENT = """
@id("night_reads_her_department")
permit (principal in Role::"night", action == Action::"view", resource)
when { [Category::"labs", Category::"sud_part2", Category::"record_ids"].contains(resource.category) }
when { resource.departments.containsAny(principal.departments) };
@id("clerks_with_a_ticket_read_the_log")
permit (principal in Role::"clerk", action == Action::"read_audit", resource)
when { principal.references.contains("T-2") };
@id("who_audits_reads_no_labs")
forbid (principal in Role::"auditor", action == Action::"view_masked", resource)
when { resource.category == Category::"labs" };
"""


def two_jobs(*held: tuple[str, str, str]) -> Person:
    return Person(
        "u1", "me", "Me", True,
        tuple(Assignment(role, where, NOON - DAY, None, why) for role, where, why in held),
    )  # fmt: skip


def rows_of(made: DecisionPoint, who: Person, name: str = "lab") -> str:
    asker = made.asker(who, "TREAT", at=NOON)
    views = made.entitlement(asker, TABLES, at=NOON, secret="s3cret")
    return views.read(TableName("public", name)).row_predicate or "true"


def test_a_role_counts_in_the_department_it_is_held_in_and_in_no_other() -> None:
    made = point(IN_HER_DEPARTMENT)
    mixed = rows_of(made, two_jobs(("night", "east", "T-1"), ("clerk", "west", "T-1")))
    assert "'east'" in mixed
    assert "'west'" not in mixed
    both = rows_of(made, two_jobs(("night", "east", "T-1"), ("night", "west", "T-1")))
    assert "'east'" in both
    assert "'west'" in both


def test_what_justifies_one_assignment_does_not_justify_another() -> None:
    made = point(IN_HER_DEPARTMENT)
    for held, allowed in (
        ((("clerk", "east", "T-2"), ("night", "east", "T-1")), True),
        ((("clerk", "east", "T-1"), ("night", "east", "T-2")), False),
    ):
        asker = made.asker(two_jobs(*held), "TREAT", at=NOON)
        assert made.may(asker, "read_audit", at=NOON).allowed is allowed


def test_a_forbid_is_asked_of_the_person_as_a_whole() -> None:
    made = point(IN_HER_DEPARTMENT)
    assert rows_of(made, two_jobs(("night", "east", "T-1"), ("auditor", "west", "T-1"))) == "false"


# ── what does not start ───────────────────────────────────────────────────────────────────────


def test_an_attribute_that_can_be_null_must_be_optional_in_the_schema() -> None:
    for name in ("department", "patient"):
        with pytest.raises(Misconfigured, match=f"the row attribute {name} can be NULL"):
            point(schema=SCHEMA.replace(f"{name}?:", f"{name}:"))


def test_a_set_that_no_relation_explains_would_be_empty_and_is_refused() -> None:
    document = deepcopy(MAP)
    del document["relations"]["departments"]
    with pytest.raises(Misconfigured, match="no relation says what the set departments"):
        point(document=document)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tables/lab/patient", "this.a) OR (true"),
        ("tables/lab/attributes/department/value", "this.a, this.b"),
        ("tables/lab/row_labels/0/when", "this.a FROM x"),
        ("tables/lab/columns/value/summary", "$1"),
        ("relations/care_team/where", "true LIMIT 1"),
        ("relations/care_team/from", "t WHERE true"),
        ("relations/care_team/value", "(WITH x AS (SELECT 1) SELECT * FROM x)"),
        ("patient_labels/0/when", "this.a; DROP TABLE x"),
    ],
)
def test_sql_that_is_not_whole_by_itself_stops_the_start(path: str, text: str) -> None:
    document: Any = deepcopy(MAP)
    place: Any = document
    *parents, last = path.split("/")
    for step in parents:
        place = place[int(step) if step.isdigit() else step]
    place[last] = text
    with pytest.raises(
        InvalidExpression, match=r"data map clinic: tables\.\w+: SQL of the data map"
    ):
        point(document=document)


def test_another_schema_has_another_fingerprint() -> None:
    tables = list(TABLES.values())
    assert fingerprint(tables) == fingerprint(reversed(tables))
    assert fingerprint(tables) != fingerprint(tables[1:])


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        # A forbid that only one of her assignments would meet does not meet her.
        ('unless { principal in Role::"auditor" }', True),
        # One that only the whole of her meets does.
        ('when { principal in Role::"clerk" && principal in Role::"night" }', False),
        # One that cannot be evaluated does.
        ('when { principal == User::"me" && User::"absent".departments.isEmpty() }', False),
    ],
)  # fmt: skip
def test_the_log_too_asks_permits_of_an_assignment_and_forbids_of_the_person(
    condition: str, allowed: bool
) -> None:
    scope = 'forbid (principal, action == Action::"read_audit", resource)'
    made = point(f'{IN_HER_DEPARTMENT}\n@id("forbidden")\n{scope} {condition};')
    held = two_jobs(("clerk", "east", "T-2"), ("night", "west", "T-1"), ("auditor", "west", "T-1"))
    answer = made.may(made.asker(held, "TREAT", at=NOON), "read_audit", at=NOON)
    assert answer.allowed is allowed
    assert answer.determining == (
        ("clerks_with_a_ticket_read_the_log",) if allowed else ("forbidden",)
    )
