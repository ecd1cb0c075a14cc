"""Scenario files: every ``*.toml`` of a policy folder's ``scenarios``, in the order of their names."""

import tomllib
from pathlib import Path

from chartgate.app.scenarios import InvalidScenario, Scenario, read_scenarios
from chartgate.errors import Misconfigured


def load_scenarios(policies: Path) -> tuple[Scenario, ...]:
    """The scenarios of a policy folder; raises ``Misconfigured`` naming file and fault."""
    found: list[Scenario] = []
    files = sorted((policies / "scenarios").glob("*.toml"))
    if not files:
        raise Misconfigured(f"there is no scenario in {policies / 'scenarios'}")
    for path in files:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise Misconfigured(f"cannot read {path}: {exc.strerror}") from exc
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise InvalidScenario(f"{path.name}: {exc}") from exc
        found += read_scenarios(path.name, document)
    return tuple(found)
