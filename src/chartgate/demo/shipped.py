"""Where the policies and data maps that ship with the project are: in the wheel or the checkout."""

from pathlib import Path

import chartgate
from chartgate.errors import Misconfigured

_PACKAGE = Path(chartgate.__file__).parent


def shipped(kind: str) -> Path:
    """The folder of shipped ``policies`` or ``maps``."""
    for folder in (_PACKAGE / "shipped" / kind, _PACKAGE.parents[1] / kind):
        if folder.is_dir():
            return folder
    raise Misconfigured(f"this installation of Chartgate is incomplete: it has no {kind}")
