"""Whatever is put into a policy folder: a version, or a refusal that names the file, in bounded time.

The shipped folder and Cedar's corpus are damaged character by character and byte by byte; texts made
to hurt run in a process of their own, with bounds on its memory and its processor time.
"""

import json
import random
import re
import resource
import subprocess
import sys
import tarfile
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartgate.adapters.policy_files import read_bundle
from chartgate.app.ceilings import ceilings_of
from chartgate.app.invariants import invariants_of
from chartgate.app.lint import lint
from chartgate.app.policy_bundle import (
    MAX_FILE_BYTES,
    Bundle,
    InvalidBundle,
    open_bundle,
    scenarios_of,
)
from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema
from chartgate.errors import Misconfigured

pytestmark = pytest.mark.timeout(7200)

POLICIES = Path(__file__).resolve().parents[2] / "policies"
SHIPPED = read_bundle(POLICIES)
CEDAR = sorted(SHIPPED.below("", ".cedar"))
PLACE = re.compile(r"[^:\n]+:[1-9][0-9]*(:[1-9][0-9]*)?: \S")

HOSTILE = (
    "\0", "\ud800", "\u202e", "\u2066", "\x1b[2J", "\x07", "\r", "\u2028", "\ufeff", "é", "𝒳", "'", '"',
    "\\", "//", "/*", "{", "}", "(", ")", "[", "]", ";", ",", ".", "::", "@", "?", "=", "!", "-", "&&", "||",
    " ", "\n", "permit", "forbid", "when", "unless", "true", "if", "in", "is", "has", "like", '"*"', "9" * 30,
    "principal", "?principal", "User::", 'User::"x"', '@id("x")', "context.", "resource.", "Action::",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """The text with up to three places dropped, doubled, replaced or swapped."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        width = draw(st.sampled_from((0, 0, 1, 1, 2, 7, 60)))
        put = draw(st.sampled_from((*HOSTILE, "", "", text[at : at + width] * 2)))
        text = text[:at] + put + text[at + width :]
    return text


def checked(message: str) -> None:
    """What is told of a fault can be shown on a terminal, and is bounded."""
    for line in message.split("\n"):
        assert line.isprintable(), repr(line)
    assert len(message) < 200_000


def checked_places(refused: InvalidPolicies, file: str) -> None:
    """Every fault has its place in the file."""
    for problem in refused.problems:
        assert PLACE.match(problem), problem
        assert problem.startswith(f"{file}:"), problem
    checked(str(refused))


def told(bundle: Bundle, path: str) -> str | None:
    try:
        version = open_bundle(bundle)
        # Each file by its own reader; the whole folder takes seconds.
        if path.startswith("invariants/"):
            invariants_of(version)
        elif path == "ceilings.toml":
            ceilings_of(version)
        elif path == "duties.toml":
            lint(version, today=date(2026, 11, 22))
        else:
            scenarios_of(bundle)
    except Misconfigured as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("path", CEDAR)
@given(data=st.data())
def test_a_damaged_policy_file_is_read_or_refused_at_its_place(
    path: str, data: st.DataObject
) -> None:
    text = data.draw(damaged(SHIPPED.files[path]))
    try:
        parse_policies({path: text})
    except InvalidPolicies as refused:
        checked_places(refused, path)


@given(st.sampled_from(sorted(SHIPPED.files)), st.data())
def test_a_folder_with_one_damaged_file_opens_or_names_a_file(
    path: str, data: st.DataObject
) -> None:
    text = data.draw(damaged(SHIPPED.files[path]))
    message = told(Bundle({**SHIPPED.files, path: text}), path)
    if message is not None:
        checked(message)
        named = [name for name in SHIPPED.files if name in message or Path(name).name in message]
        assert named, message


@given(
    path=st.sampled_from(sorted(SHIPPED.files)),
    at=st.integers(0, 5_000),
    put=st.binary(max_size=4),
)
def test_damaged_bytes_on_disk_are_read_or_refused(
    path: str, at: int, put: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("policies")
    for name, text in SHIPPED.files.items():
        content = text.encode()
        if name == path:
            content = content[:at] + put + content[at + len(put) :]
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    try:
        parse_policies({path: read_bundle(folder).files[path]})
    except Misconfigured as refused:
        checked(str(refused))


@given(data=st.data())
def test_a_damaged_schema_is_read_or_refused_at_its_place(data: st.DataObject) -> None:
    text = data.draw(damaged(SHIPPED.files["schema.cedarschema"]))
    try:
        parse_schema(text, "s.cedarschema")
    except InvalidPolicies as refused:
        checked_places(refused, "s.cedarschema")


def test_damaged_files_of_cedars_corpus_are_read_or_refused(shared_dir: Path) -> None:
    dice = random.Random(20261122)
    with tarfile.open(shared_dir / "conformance" / "cedar-corpus.tar.gz") as archive:
        members = [m for m in archive.getmembers() if m.name.endswith((".cedar", ".cedarschema"))]
        for member in dice.sample(members, 400):
            text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for _ in range(3):
                at = dice.randrange(len(text) + 1)
                text = text[:at] + dice.choice(HOSTILE) + text[at + dice.choice((0, 1, 9)) :]
                try:
                    if member.name.endswith(".cedar"):
                        parse_policies({"f": text}, ids="order", templates=True)
                    else:
                        parse_schema(text, "f")
                except InvalidPolicies as refused:
                    checked_places(refused, "f")


def test_a_file_of_ten_megabytes_is_refused_before_it_is_parsed() -> None:
    huge = "// nothing\n" * 1_000_000
    with pytest.raises(InvalidBundle, match=r"roles/nurse\.cedar: \d+ bytes"):
        Bundle({**SHIPPED.files, "roles/nurse.cedar": huge})


def test_two_hundred_levels_of_nesting_are_refused_at_their_place() -> None:
    deep = "(" * 200 + "true" + ")" * 200
    text = f'@id("p")\npermit (principal, action, resource)\nwhen {{ {deep} }};'
    with pytest.raises(InvalidPolicies) as refused:
        parse_policies({"f.cedar": text})
    assert refused.value.problems[0].startswith("f.cedar:3:37: brackets nested more than 30 deep")


def test_an_opened_version_is_untouched_by_one_that_is_refused() -> None:
    version = open_bundle(SHIPPED)
    before = (version.hash, version.policies.hash, version.schema, version.roles)
    assert (
        told(Bundle({**SHIPPED.files, "guardrails.cedar": "permit"}), "guardrails.cedar")
        is not None
    )
    assert (version.hash, version.policies.hash, version.schema, version.roles) == before
    assert open_bundle(SHIPPED).policies.hash == version.policies.hash


@pytest.mark.parametrize(
    "files",
    [
        {"roles.toml": '[roles.a]\nparents = ["b"]\n[roles.b]\nparents = ["a"]'},
        {"purposes.toml": SHIPPED.files["purposes.toml"] + 'AA = ["BB"]\nBB = ["AA"]'},
        {"roles.toml": "a = " + "[" * 100_000},
        {"purposes.toml": "\x1b[31m = 1"},
        {"schema.cedarschema": "action a in [b]; action b in [a];"},
        {"schema.cedarschema": '{"": {"entityTypes": {}, "actions": {"a": {"memberOf": [{"id": "a"}]}}}}'},
        {"guardrails.cedar": '@id("\u202egnp") permit (principal, action, resource);'},
        {"guardrails.cedar": '@id("a\\u{1b}[2J") permit (principal, action, resource);'},
        {"guardrails.cedar": '@id("x") permit (principal == Role::"\\u{1b}[2J", action, resource);'},
        {"guardrails.cedar": '@id("x") permit (principal in Role::"\\u{1b}[2J", action, resource);'},
        {"roles/nurse.cedar": SHIPPED.files["roles/physician.cedar"]},
        {"scenarios/traps.toml": '[[scenario]]\ntitle = "\\u001b[2J"'},
    ],
)  # fmt: skip
def test_a_folder_that_would_mislead_is_refused_in_words_a_terminal_can_show(
    files: dict[str, str],
) -> None:
    [path] = files
    message = told(Bundle({**SHIPPED.files, **files}), path)
    assert message is not None
    checked(message)
    assert path in message or Path(path).name in message


MEBIBYTE = 1024 * 1024
MEMORY, SECONDS = 3 * 1024 * MEBIBYTE, 120


def rule(condition: str) -> str:
    return f'@id("x") permit (principal, action, resource) when {{ {condition} }};'


def elements(count: int, one: str) -> str:
    return rule("[" + ",".join([one] * count) + "].isEmpty()")


SHAPES = {
    "ten thousand people": rule(
        "principal in [" + ",".join(f'User::"{n:036}"' for n in range(10_000)) + "]"
    ),
    "a set of two megabytes": elements(MAX_FILE_BYTES // 2 - 100, "1"),
    "sets of sets": elements(20_000, "[[[[1]]]]"),
    "records of records": elements(20_000, "{a:{b:{c:1}}}"),
    "a long string": rule('"' + "a" * (MAX_FILE_BYTES - 200) + '" == "b"'),
    "a string of escapes": rule('"' + "\\u{41}" * (MAX_FILE_BYTES // 6 - 50) + '" == "b"'),
    "a pattern of stars": rule('"a" like "' + "*a" * (MAX_FILE_BYTES // 2 - 100) + '"'),
    "a long path": rule("::".join(["A"] * (MAX_FILE_BYTES // 3 - 100)) + '::"x" == principal'),
    "a long has": rule("context has " + ".".join(["a"] * 1_900)) * 400,
    "many has": rule("context has " + ".".join(["a"] * 50)).replace('"x"', '"x{}"') * 3_000,
    "semicolons": ";" * MAX_FILE_BYTES,
    "faults": rule("1 +") * 30_000,
    "one id for all": rule("true") * 30_000,
    "an open string": '"' + "\\" * (MAX_FILE_BYTES - 1),
    "open brackets": "([{" * (MAX_FILE_BYTES // 3),
    "zeroes": "\0" * MAX_FILE_BYTES,
    "words": "a " * (MAX_FILE_BYTES // 2),
    "comments": "//\n" * (MAX_FILE_BYTES // 3),
    "conditions": rule("if " * 240 + "true" + " then true else false" * 240),
    "alternatives": rule(" || ".join(["principal == resource"] * 240)),
    "annotations": "".join(f'@a{n}("x")' for n in range(1_900)) + rule("true"),
}
SCHEMAS = {
    "types of types": "type T0 = { a: Long };"
    + "".join(f"type T{n} = {{ a: T{n - 1}, b: T{n - 1} }};" for n in range(1, 50))
    + "entity A = { a: T49 };",
    "a chain of types": "type T0 = Long;"
    + "".join(f"type T{n} = T{n - 1};" for n in range(1, 20_000))
    + "entity A = { a: T19999 };",
    "every pair of types": "".join(f"entity A{n};" for n in range(1_000))
    + "action v appliesTo { principal: [" + ",".join(f"A{n}" for n in range(1_000))
    + "], resource: [" + ",".join(f"A{n}" for n in range(1_000)) + "] };",
    "a chain of entities": "".join(f"entity A{n} in [A{n + 1}];" for n in range(1_000)) + "entity A1000;",
    "a thousand actions in a chain": "".join(f"action a{n} in [a{n + 1}];" for n in range(999))
    + "action a999;",
    "a chain of actions": "".join(f"action a{n} in [a{n + 1}];" for n in range(2_000))
    + "action a2000;",
    "open brackets": "entity A = " + "{a:" * 500_000,
    "json brackets": '{"a":' * 300_000,
    "json lists": "{" + "[" * 1_000_000,
    "json types": '{"":{"entityTypes":{"A":{"shape":' + '{"type":"Set","element":' * 50_000,
}  # fmt: skip

LOAD = """
import json, sys
from chartgate.cedar.parse import InvalidPolicies, parse_policies, parse_schema, validate
kind, text = json.load(sys.stdin)
try:
    if kind == "schema":
        parse_schema(text, "f.cedar")
    else:
        schema = parse_schema("entity User; entity R; action v appliesTo"
            "{ principal: [User], resource: [R], context: {} };", "s")
        validate(parse_policies({"f.cedar": text}), schema)
    print(json.dumps("accepted"))
except InvalidPolicies as refused:
    print(json.dumps(refused.problems[0][:300]))
"""


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [("policies", name) for name in SHAPES] + [("schema", name) for name in SCHEMAS],
)
def test_a_text_made_to_hurt_ends_within_bounds(kind: str, name: str) -> None:
    text = (SHAPES if kind == "policies" else SCHEMAS)[name]
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps([kind, text]),
        capture_output=True,
        text=True,
        preexec_fn=bounded,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    answer = json.loads(done.stdout)
    assert answer == "accepted" or PLACE.match(answer), answer
