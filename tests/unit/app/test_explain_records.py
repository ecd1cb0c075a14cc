"""Plainer formulas mean the same records."""

from hypothesis import given
from hypothesis import strategies as st

from chartgate.app.explain_records import every, some, surely_includes, tidied
from chartgate.app.policy_words import HERSELF, records_words
from chartgate.model.principal import EntityUid
from chartgate.targets.formula import ALWAYS, NEVER, All, Any, Formula, HasMember, IsOneOf, Present

PLACES = [EntityUid("Department", name) for name in ("cardiology", "oncology")]
HER = EntityUid("User", HERSELF)
SETS = ("departments", "queues")
SCALARS = ("department", "home")

some_places = st.sets(st.sampled_from(PLACES), min_size=1).map(frozenset)
atoms: st.SearchStrategy[Formula] = st.one_of(
    st.builds(Present, st.sampled_from(SCALARS), st.booleans()),
    st.builds(IsOneOf, st.sampled_from(SCALARS), some_places, st.booleans()),
    st.builds(HasMember, st.sampled_from(SETS), some_places, st.booleans()),
)
formulas = st.recursive(
    atoms | st.sampled_from([ALWAYS, NEVER]),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([All(frozenset(parts)), Any(frozenset(parts))])
    ),
    max_leaves=8,
)
OTHER = EntityUid("Department", "elsewhere")
rows = st.fixed_dictionaries(
    {
        **{name: st.sets(st.sampled_from([*PLACES, OTHER])) for name in SETS},
        **{name: st.sampled_from([None, *PLACES, OTHER]) for name in SCALARS},
    }
)


def holds(formula: Formula, row: dict[str, object]) -> bool:
    match formula:
        case All(parts):
            return all(holds(p, row) for p in parts)
        case Any(parts):
            return any(holds(p, row) for p in parts)
        case Present(name, negated):
            return (row[name] is None) == negated
        case IsOneOf(name, values, negated):
            return row[name] is not None and (row[name] in values) != negated
        case HasMember(name, values, negated):
            return bool(values & row[name]) != negated  # type: ignore[operator]
    raise AssertionError


@given(formulas, rows)
def test_the_plainer_formula_means_the_same_records(
    formula: Formula, row: dict[str, object]
) -> None:
    assert holds(tidied(formula), row) == holds(formula, row)


@given(st.lists(formulas, max_size=4), rows)
def test_every_and_some_mean_all_and_any(parts: list[Formula], row: dict[str, object]) -> None:
    assert holds(every(parts), row) == all(holds(p, row) for p in parts)
    assert holds(some(parts), row) == any(holds(p, row) for p in parts)


@given(formulas, formulas, rows)
def test_what_is_surely_included_is_included(
    wider: Formula, narrower: Formula, row: dict[str, object]
) -> None:
    if surely_includes(wider, narrower) and holds(narrower, row):
        assert holds(wider, row)


def test_a_or_not_a_and_b_is_told_as_a_or_b() -> None:
    team = HasMember("care_team", frozenset({HER}))
    not_team = HasMember("care_team", frozenset({HER}), negated=True)
    treated = HasMember("departments", frozenset({PLACES[0]}))
    told = tidied(some([team, every([not_team, treated])]))
    assert records_words(told) == (
        "of patients on whose care team she is, or of patients treated in cardiology"
    )


def test_a_contradiction_is_no_record_and_a_tautology_any() -> None:
    named, nameless = Present("department"), Present("department", negated=True)
    assert tidied(All(frozenset({named, nameless}))) == NEVER
    assert tidied(Any(frozenset({named, nameless}))) == ALWAYS
    assert records_words(NEVER) == "no record"
    assert records_words(ALWAYS) == "any record"
