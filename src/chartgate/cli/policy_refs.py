"""What names a policy version in a command: a folder, ``active``, or the start of a hash.

The rule kept: a name means one version or nothing; a folder of that name comes first, so that what
lies before one's eyes is what is read.
"""

from pathlib import Path
from typing import Final

from chartgate.app.policy_bundle import Bundle
from chartgate.errors import Misconfigured

ACTIVE: Final = "active"
HELP: Final = "A policy folder, 'active' (what is in force), or a version's hash."


def bundle_of(reference: str, state: Path | None) -> Bundle:
    """The version that ``reference`` means; the store of ``state`` is opened only if it must be."""
    folder = Path(reference)
    if folder.is_dir():
        from chartgate.adapters.policy_files import read_bundle

        return read_bundle(folder)
    if "/" in reference or reference.startswith("."):
        raise Misconfigured(f"there is no policy folder {reference}")
    from chartgate.cli.policy_store import opened
    from chartgate.govern.policy_version import POLICIES

    with opened(state) as store:
        if reference == ACTIVE:
            return store.loaded().version.bundle
        subject, _, content = store.version(reference)
        if subject != POLICIES:
            raise Misconfigured(f"{reference[:64]} is a version of {subject}, not of the policies")
        return store.store.bundle(subject, content)
