"""Every schema of Cedar's corpora in both of its forms: one value, whichever form it is read from."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cedarpy

from chartgate.cedar.parse import parse_schema
from strategies.schema_json import schema_json

UNRENDERABLE = "<unrenderable"


def texts(shared: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(shared / "conformance" / "cedar-corpus.tar.gz") as archive:
        for member in archive.getmembers():
            if member.name.endswith(".cedarschema"):
                yield member.name, archive.extractfile(member).read().decode()  # type: ignore[union-attr]
    for path in sorted((shared / "conformance" / "cedar-handwritten").rglob("*.cedarschema")):
        yield path.name, path.read_text()


def test_text_to_json_to_text_is_one_value_all_the_way(shared_dir: Path) -> None:
    seen: set[str] = set()
    for name, text in texts(shared_dir):
        if text in seen:
            continue
        seen.add(text)
        written = parse_schema(text, name)
        # (1) Our own reading of the JSON form, which cedarpy accepts as well.
        document = json.dumps(schema_json(written))
        as_json = parse_schema(document, "s.json")
        assert as_json.entities == written.entities, name
        assert as_json.actions == written.actions, name
        # (2) The JSON as cedarpy understands it, written by it as text.
        back = str(cedarpy.Schema.from_json_str(document))
        assert not back.startswith(UNRENDERABLE), name
        again = parse_schema(back, "s.cedarschema")
        assert again.entities == written.entities, name
        assert again.actions == written.actions, name
    assert len(seen) >= 1_000
