"""What of an object is shown: by label and level, never more."""

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from chartgate.model.disclosure import Disclosure
from chartgate.sdk import KEY, Decision, Label, Labels, Public, disclose, disclosed, nested
from chartgate.sdk.disclose import disclosed_copy, levels_shown
from chartgate.sdk.errors import Misused

FULL, SUMMARY, MASKED, WITHHELD = sorted(Disclosure, reverse=True)


def decision(patient: str = "17", **levels: Disclosure) -> Decision:
    return Decision(allowed=False, levels=levels, patient=patient)


def flag(value: float) -> str:
    return "abnormal" if value > 7 else "normal"


@disclosed(
    row="labs",
    also=lambda lab: ("sud_part2",) if lab.code == "drug-screen" else (),
    code="labs",
    value=Label("labs", summary=flag),
)
@dataclass
class Lab:
    code: str
    value: float


@disclosed(
    {"born": Label("demographics", masked=lambda born: born.year)},
    patient="id",
    id=KEY,
    name="demographics",
    ssn=Label("gov_ids", masked=lambda ssn: f"…{ssn[-4:]}"),
    labs=nested(),
    language=Public("a setting of the screen"),
)
@dataclass
class Patient:
    id: int
    name: str
    born: date
    ssn: str
    labs: list[Lab] = field(default_factory=list)
    language: str = "en"
    internal: str = "never labelled"


ANN = Patient(17, "Ann", date(1970, 5, 6), "123-45-6789", [Lab("hba1c", 8.1), Lab("na", 5.0)])


def test_full_shows_values_and_only_what_is_labelled() -> None:
    shown = disclose(ANN, decision(demographics=FULL, gov_ids=FULL, labs=FULL, record_ids=FULL))
    assert shown == {
        "id": 17,
        "name": "Ann",
        "born": date(1970, 5, 6),
        "ssn": "123-45-6789",
        "labs": [{"code": "hba1c", "value": 8.1}, {"code": "na", "value": 5.0}],
        "language": "en",
    }


def test_lower_levels_show_their_forms() -> None:
    shown = disclose(ANN, decision(demographics=MASKED, gov_ids=MASKED, labs=SUMMARY))
    assert shown == {
        "born": 1970,
        "ssn": "…6789",
        "labs": [{"value": "abnormal"}, {"value": "normal"}],
        "language": "en",
    }


def test_a_summary_that_is_missing_drops_to_the_masked_form() -> None:
    shown = disclose(ANN, decision(demographics=SUMMARY))
    assert shown["born"] == 1970
    assert "name" not in shown


def test_withheld_can_be_said_in_place() -> None:
    shown = disclose(ANN, decision(demographics=FULL), withheld="none")
    assert shown == {
        "id": None,
        "name": "Ann",
        "born": date(1970, 5, 6),
        "ssn": None,
        "labs": [],
        "language": "en",
        "internal": None,
    }


def test_a_patient_of_whom_nothing_is_shown_does_not_exist() -> None:
    assert disclose(ANN, decision()) is None
    assert disclose([ANN], decision()) == []


def test_a_key_is_shown_with_its_row_to_whoever_sees_identifiers() -> None:
    assert disclose(ANN, decision(record_ids=FULL)) is None
    assert disclose(ANN, decision(record_ids=FULL, gov_ids=MASKED))["id"] == 17
    for level in (WITHHELD, MASKED, SUMMARY):
        assert "id" not in disclose(ANN, decision(record_ids=level, gov_ids=FULL))


def test_an_object_of_another_patient_is_not_shown() -> None:
    for patient in ("18", "170", ""):
        with pytest.raises(Misused, match="another patient"):
            disclose(ANN, decision(patient, demographics=FULL))
    with pytest.raises(Misused, match="another patient"):
        disclose(ANN, Decision(allowed=True, levels={"demographics": FULL}))


def test_what_the_object_itself_carries_lowers_it() -> None:
    labs = [Lab("drug-screen", 9.0), Lab("na", 5.0)]
    assert disclose(labs, decision(labs=FULL)) == [{"code": "na", "value": 5.0}]
    assert disclose(labs, decision(labs=FULL, sud_part2=SUMMARY))[0] == {"value": "abnormal"}


def test_several_categories_count_by_the_lowest() -> None:
    labels = Labels.of({"text": Label("notes", "behavioral_health", masked=len)})
    assert disclose({"text": "abc"}, decision(notes=FULL), labels) is None
    both = decision(notes=FULL, behavioral_health=MASKED)
    assert disclose({"text": "abc"}, both, labels) == {"text": 3}


def test_a_column_counts_by_its_own_level() -> None:
    labels = Labels.of(
        {"text": Label(column="notes.body"), "on": Label("notes", column="notes.on")}
    )
    told = Decision(
        allowed=True, levels={"notes": FULL}, fields={"notes.body": FULL, "notes.on": MASKED}
    )
    assert disclose({"text": "abc", "on": 1}, told, labels) == {"text": "abc"}
    assert levels_shown({}, told, labels) == {"text": FULL, "on": MASKED}
    assert labels.record("17").resource().properties == {
        "patient": "17",
        "categories": ["notes"],
        "fields": ["notes.body", "notes.on"],
    }


def test_a_form_that_fails_shows_nothing_and_says_nothing() -> None:
    def fails(value: str) -> str:
        raise ValueError(value)

    labels = Labels.of({"a": Label("labs", summary=fails, masked=len), "b": Label("labs")})
    assert disclose({"a": "abc", "b": 1}, decision(labs=SUMMARY), labels) == {"a": 3}
    labels = Labels.of({"a": Label("labs", masked=fails), "b": Label("notes")})
    assert disclose({"a": "abc", "b": 1}, decision(labs=MASKED, notes=FULL), labels) == {"b": 1}


def test_a_form_is_not_asked_about_nothing() -> None:
    labels = Labels.of({"born": Label("demographics", masked=lambda born: born.year)})
    assert disclose({"born": None}, decision(demographics=MASKED), labels) == {"born": None}


def test_what_declares_nothing_is_an_error() -> None:
    with pytest.raises(Misused, match="declares no labels"):
        disclose(object(), decision())
    with pytest.raises(Misused, match="declares no labels"):
        disclose({"name": "Ann"}, decision(demographics=FULL))


def test_a_nested_dict_needs_labels_of_its_own() -> None:
    bare = Labels.of({"labs": nested()})
    assert disclose({"labs": {"value": 8.1}}, decision(labs=FULL), bare) is None
    own = Labels.of({"labs": nested("labs", labels=Labels.of({"value": "labs"}))})
    assert disclose({"labs": [{"value": 8}]}, decision(labs=FULL), own) == {"labs": [{"value": 8}]}
    assert own.categories() == ("labs",)
    with pytest.raises(Misused, match="nested field"):
        disclose({"labs": "text"}, decision(labs=FULL), own)


def test_nothing_nested_is_shown_better_than_its_field() -> None:
    labels = Labels.of({"labs": nested("notes")})
    shown = disclose({"labs": [Lab("na", 5.0)]}, decision(labs=FULL, notes=SUMMARY), labels)
    assert shown == {"labs": [{"value": "normal"}]}


def test_a_pydantic_model_and_a_dataclass_can_be_copied() -> None:
    @disclosed(name="demographics", born=Label("demographics", masked=lambda b: b.year))
    class Model(BaseModel):
        name: str
        born: date
        internal: str = "x"

    made = Model(name="Ann", born=date(1970, 5, 6))
    copied = disclosed_copy(made, decision(demographics=MASKED))
    assert copied is not None
    assert (copied.name, copied.born, copied.internal) == (None, 1970, None)
    assert disclosed_copy(made, decision()) is None
    lab = disclosed_copy(Lab("na", 5.0), decision(labs=SUMMARY))
    assert lab == Lab(None, "normal")  # type: ignore[arg-type]
    with pytest.raises(Misused, match="use disclose"):
        disclosed_copy({"name": "Ann"}, decision(), Labels.of({"name": "demographics"}))


def test_any_object_shows_the_fields_that_are_labelled() -> None:
    @disclosed(name="demographics", missing="demographics")
    class Entity:
        name = "Ann"
        internal = "x"

    assert disclose(Entity(), decision(demographics=FULL)) == {"name": "Ann"}


@pytest.mark.parametrize("bad", [{"a": 3}, {"a": ""}, {"a": None}, {"a": ["labs"]}])
def test_a_label_that_is_none_is_an_error(bad: dict[str, Any]) -> None:
    with pytest.raises(Misused):
        Labels.of(bad)


def test_a_label_names_something() -> None:
    for wrong in (Label, lambda: Public(" "), lambda: Labels.of({}, row="")):
        with pytest.raises(Misused):
            wrong()


CATEGORIES = ("labs", "notes", "sud_part2")
LEVELS = st.dictionaries(st.sampled_from(CATEGORIES), st.sampled_from(list(Disclosure)))
FIELDS = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.sampled_from(CATEGORIES), min_size=1, unique=True)
)


@given(levels=LEVELS, fields=FIELDS)
def test_no_field_is_shown_beyond_its_lowest_label(
    levels: dict[str, Disclosure], fields: dict[str, list[str]]
) -> None:
    labels = Labels.of(
        {
            name: Label(*named, summary=lambda v: ("s", v), masked=lambda v: ("m", v))
            for name, named in fields.items()
        }
    )
    thing = {name: ord(name) for name in "abcdef"}
    before = deepcopy(thing)
    shown = disclose(thing, Decision(allowed=True, levels=levels), labels) or {}
    assert thing == before
    forms = {FULL: lambda v: v, SUMMARY: lambda v: ("s", v), MASKED: lambda v: ("m", v)}
    for name, value in thing.items():
        level = min(levels.get(one, WITHHELD) for one in fields.get(name, ["none"]))
        if level is WITHHELD:
            assert name not in shown
        else:
            assert shown[name] == forms[level](value)
