"""The decision service that runs on this computer: where it is, and what to show it.

    gate = Chartgate(**beside())                 # the demo's, over HTTPS
    gate = Chartgate(**beside(over="unix"))

Everything is in the state folder of ``chartgate demo`` or ``chartgate serve``, readable by its owner
alone. An application on another computer is told the address, a token and the authority's file.
"""

from pathlib import Path
from typing import Any, Literal

from chartgate.sdk.errors import Misused


def beside(
    state: str | Path | None = None,
    *,
    service: str = "",
    over: Literal["https", "unix", "embedded"] = "https",
) -> dict[str, Any]:
    """Arguments for a client; ``over="embedded"`` for ``Embedded``.

    ``state``: the folder; without it ``CHARTGATE_STATE``, else the demo's. ``service``: the
    application's account; without it the one that ``chartgate ask`` uses.
    """
    from chartgate.adapters.state import State, default_root

    folder = State(default_root() if state is None else Path(state))
    instance = folder.instance()
    token = folder.token_file(service or instance.asker)
    if not instance.decisions:
        raise Misused(
            f"no decision service runs in {folder.root}: start `chartgate demo` or `chartgate serve`"
        )
    if not token.is_file():
        names = sorted(file.name for file in token.parent.glob("*"))
        there = f"; there are tokens of {', '.join(names)}" if names else ""
        raise Misused(f"there is no token in {token}{there}: `chartgate service token` makes one")
    if over == "unix":
        return {"url": f"unix:{folder.decision_socket}", "token_file": token}
    if over == "embedded":
        return {"state": folder.root, "token_file": token}
    ca = folder.authority if folder.authority.exists() else None
    return {"url": instance.decisions, "token_file": token, "ca": ca}
