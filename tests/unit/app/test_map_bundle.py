"""A data map as one value: the file, the code sets it names, and nothing that it does not name."""

import pytest

from chartgate.app.map_bundle import code_files, map_file, open_map, subject_of
from chartgate.app.policy_bundle import Bundle, InvalidBundle
from chartgate.cedar.validate import parse_schema
from chartgate.datamap.read import InvalidMap

SCHEMA = parse_schema(
    """
    entity Category enum ["labs", "sud_part2"];
    entity Purpose in [Purpose];
    entity Role in [Role];
    entity User in [Role];
    entity Record = { category: Category };
    action view, view_summary, view_masked appliesTo {
      principal: [User], resource: [Record],
      context: { purpose: Purpose, now: datetime, source: String } };
    """,
    "s.cedarschema",
)
MAP = """
source = "clinic"
patient = { table = "lab", key = "id", identifier = "id" }
code_sets = { sud = "sets/sud.txt", plain = "sets/plain.txt" }
[tables.lab]
row_category = "labs"
special = { column = "code", sets = { sud_part2 = "sud" }, reviewed = "plain" }
[tables.lab.columns]
id = "labs"
code = "labs"
"""
CODES = "# codes that were looked at\nJ01  # sinusitis\n\n   J02\n"


def bundle(text: str = MAP, **files: str) -> Bundle:
    return Bundle({"clinic.toml": text, "sets/sud.txt": "F10\n", "sets/plain.txt": CODES, **files})


def codes(of: Bundle) -> str:
    """What the map says of rows by their code."""
    return str(open_map(of, SCHEMA).tables["lab"].row_labels)


def test_the_map_is_opened_with_the_codes_it_names() -> None:
    opened = open_map(bundle(), SCHEMA)
    assert (opened.source, list(opened.tables)) == ("clinic", ["lab"])
    assert "J01" in codes(bundle())
    assert "J02" in codes(bundle())


def test_comments_and_blank_lines_are_no_codes() -> None:
    assert "sinusitis" not in codes(bundle())
    assert "looked" not in codes(bundle())
    assert codes(bundle()) == codes(bundle(**{"sets/plain.txt": "J02\nJ01"}))


def test_the_map_is_the_one_toml_file() -> None:
    assert map_file(bundle()) == "clinic.toml"


@pytest.mark.parametrize(
    "files",
    [{}, {"sud.txt": CODES}, {"a.toml": MAP, "b.toml": MAP}, {"a.toml": MAP, "sets/b.toml": ""}],
    ids=["none", "only codes", "two", "one below"],
)
def test_no_map_and_two_maps_are_faults(files: dict[str, str]) -> None:
    for ask in (map_file, subject_of, lambda one: open_map(one, SCHEMA)):
        with pytest.raises(InvalidBundle, match="one TOML file"):
            ask(Bundle(files))


def test_a_map_is_a_version_of_its_source() -> None:
    assert subject_of(bundle()) == "map:clinic"


@pytest.mark.parametrize("line", ["", 'source = ""', "source = 3", "source = ['clinic']"], ids=repr)
def test_a_map_without_a_source_is_a_version_of_nothing(line: str) -> None:
    text = MAP.replace('source = "clinic"', line)
    with pytest.raises(InvalidBundle, match=r"clinic\.toml: source is missing"):
        subject_of(bundle(text))


def test_a_map_that_is_not_toml_is_refused_by_its_name() -> None:
    for ask in (subject_of, lambda one: open_map(one, SCHEMA)):
        with pytest.raises(InvalidBundle, match=r"clinic\.toml: "):
            ask(bundle("source = = 3"))


def test_a_file_that_the_map_does_not_name_is_a_fault() -> None:
    with pytest.raises(InvalidBundle, match=r"does not name the file notes/why\.md"):
        open_map(bundle(**{"notes/why.md": "because"}), SCHEMA)
    with pytest.raises(InvalidBundle, match=r"does not name the file sets/sud\.txt"):
        open_map(bundle(MAP.replace("sets/sud.txt", "sets/plain.txt")), SCHEMA)


def test_a_file_that_the_map_names_must_be_there() -> None:
    with pytest.raises(InvalidBundle, match=r"sets/(sud|plain)\.txt: there is no such file"):
        open_map(Bundle({"clinic.toml": MAP}), SCHEMA)


def test_code_sets_are_a_table() -> None:
    with pytest.raises(InvalidBundle, match="code_sets is not a table"):
        code_files({"code_sets": ["sets/sud.txt"]})
    assert code_files({}) == {}
    assert code_files({"code_sets": {"sud": "a.txt"}}) == {"sud": "a.txt"}


def test_a_code_is_part_of_what_a_map_is() -> None:
    for file, code in (("sets/plain.txt", "J03"), ("sets/sud.txt", "F11")):
        more = bundle(**{file: f"{bundle().text(file)}{code}\n"})
        assert more.hash != bundle().hash
        assert open_map(more, SCHEMA).hash != open_map(bundle(), SCHEMA).hash


def test_a_category_that_the_schema_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidMap, match="secrets"):
        open_map(bundle(MAP.replace('code = "labs"', 'code = "secrets"')), SCHEMA)
