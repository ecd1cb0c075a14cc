"""Cedar's own example policy sets give the verdicts that were published with them.

Rules and verdicts are those of github.com/cedar-policy/cedar-examples (Apache-2.0, Copyright Cedar
Contributors), restated; see ``tests/cases/cedar_examples``. Every request is decided by the
reference evaluator, by the compiled policies and by cedarpy, over strictly valid policies.
"""

import cedarpy
import pytest

from strategies.published import CASES, Case, Published

NAMES = sorted(folder.name for folder in (CASES / "cedar_examples").iterdir() if folder.is_dir())
SETS = {name: Published(f"cedar_examples/{name}") for name in NAMES}
ASKED = [(name, case) for name, one in SETS.items() for case in one.cases]


@pytest.mark.parametrize(("name", "case"), ASKED, ids=[f"{n}-{c.name}" for n, c in ASKED])
def test_every_request_is_decided_as_it_was_published(name: str, case: Case) -> None:
    verdict = dict.fromkeys(("reference", "compiled", "cedarpy"), case.verdict)
    assert SETS[name].answers(case) == verdict


def test_the_verdicts_are_those_of_the_folders_they_were_published_in() -> None:
    assert all(case.name.split()[0].lower() == case.verdict for _, case in ASKED)
    verdicts = [case.verdict for _, case in ASKED]
    assert (len(NAMES), verdicts.count("allow"), verdicts.count("deny")) == (12, 44, 28)


@pytest.mark.parametrize("name", NAMES)
def test_cedarpy_finds_the_policies_strictly_valid_too(name: str) -> None:
    found = cedarpy.validate_policies(SETS[name].text, SETS[name].schema_text)
    assert found.validation_passed, found.errors


@pytest.mark.parametrize("form", ["sites", "reports"])
def test_a_set_and_its_templated_form_are_asked_the_same(form: str) -> None:
    there, linked = (SETS[f"{form}_{kind}"].cases for kind in ("static", "linked"))
    assert there == linked
