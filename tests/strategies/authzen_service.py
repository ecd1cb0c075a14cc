"""The decision service as somebody without a control plane starts it: ``chartgate serve``.

A folder of policies, a file of entities, a file of applications; asked over HTTPS with a token.
"""

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

TOKEN = "cgs_01234567_" + "t" * 43
SERVICES = f"""\
# What the scenarios' own test harnesses are believed: nothing about a subject.
[services.harness]
actions = ["*"]
resource_types = ["*"]
asserts = ["resource.status", "resource.ownerID", "action.soft"]
may_search = true
tokens = [
  {{ id = "01234567", sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}", \
valid_until = 2099-01-01T00:00:00Z }},
]
"""


@dataclass(frozen=True)
class Reached:
    """Where the service is, and a client that trusts it and has its token."""

    base: str
    port: int
    client: httpx.Client
    authority: Path | None
    root: Path


@contextmanager
def decision_service(folder: Path, root: Path, *options: str) -> Iterator[Reached]:
    """A service with the folder's policies and entities.json, on a port of its own.

    Its process ends in order when this does, having said nothing of a failure.
    """
    root.mkdir(parents=True, exist_ok=True)
    services, said = root / "services.toml", root / "stderr.txt"
    services.write_text(SERVICES)
    command = [
        *(sys.executable, "-m", "chartgate", "serve", "--json", "--listen", "127.0.0.1:0"),
        *("--state", root / "state", "--policies", folder),
        *("--entities", folder / "entities.json", "--services", services),
        *options,
    ]
    with (
        said.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, said.read_text()
            facts = json.loads(line)
            yield from _reached(facts, root)
        finally:
            process.terminate()
            process.wait(30)
    assert process.returncode == 0, said.read_text()
    told = said.read_text()
    assert "Traceback" not in told
    assert "a request failed" not in told


def _reached(facts: dict[str, str], root: Path) -> Iterator[Reached]:
    base = facts["url"]
    authority = Path(facts["ca"]) if facts.get("ca") else None
    trust: ssl.SSLContext | bool = True
    if authority is not None:
        trust = ssl.create_default_context(cafile=str(authority))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=base, verify=trust, headers=headers, timeout=30) as client:
        yield Reached(base, int(base.rpartition(":")[2]), client, authority, root)
