"""What the decision service answers to GET: where it answers what, how it is, what it counted.

The rules kept: ``/livez`` (or ``/healthz``) says that this process serves; ``/readyz`` whether it may decide, and
what stands in the way (45 CFR 164.308(a)(7)): a balancer takes a node away that would only refuse.
Neither names anybody.
"""

import time
from typing import Final

import msgspec

from chartgate.adapters.decision_desk import Answerer
from chartgate.adapters.decision_metrics import CONTENT_TYPE, Metrics
from chartgate.app.authzen_errors import error_body
from chartgate.app.authzen_metadata import (
    WELL_KNOWN,
    base_url_of_host,
    check_base_url,
    metadata,
    metadata_path,
)

_JSON: Final = "application/json"
_HEALTHY: Final = b'{"status":"ok"}'


class ServicePages:
    """Pages of one worker. ``base_url``: how callers know the service; else as each asked it."""

    def __init__(self, node: Answerer, metrics: Metrics, *, base_url: str = "") -> None:
        self._node = node
        self._metrics = metrics
        self._base = check_base_url(base_url) if base_url else ""
        self._metadata_path = metadata_path(self._base) if self._base else WELL_KNOWN
        self._document = metadata(self._base) if self._base else None
        self._openapi: bytes | None = None
        self._began = time.time()

    def paths(self) -> frozenset[str]:
        """What is here."""
        return frozenset(
            ("/livez", "/healthz", "/readyz", "/metrics", "/openapi.json", self._metadata_path)
        )

    def page(self, path: str, host: str) -> tuple[int, str, bytes]:
        """Status, content type, body."""
        if path in ("/livez", "/healthz"):
            return 200, _JSON, _HEALTHY
        if path == "/readyz":
            return self._ready()
        if path == "/metrics":
            self.gauge()
            return 200, CONTENT_TYPE, self._metrics.text()
        if path == "/openapi.json":
            return 200, _JSON, self._described(host)
        return self._discovered(host)

    def gauge(self) -> None:
        """What is read when somebody asks for it."""
        gauges = self._metrics.gauges
        ready = self._node.is_ready()
        gauges["ready"] = float(bool(ready))
        gauges["start_time_seconds"] = self._began
        gauges.update(self._node.measures())
        if ready:
            gauges["epoch"] = self._node.epoch
            rulings = getattr(self._node, "rulings", None)
            self._metrics.policy_set = getattr(rulings, "hash", "")
            self._metrics.data_map = getattr(rulings, "data_map_hash", "")

    def _ready(self) -> tuple[int, str, bytes]:
        ready = self._node.is_ready()
        if ready:
            return 200, _JSON, msgspec.json.encode({"ready": True, "epoch": self._node.epoch})
        return 503, _JSON, msgspec.json.encode({"ready": False, "reasons": ready.reasons})

    def _discovered(self, host: str) -> tuple[int, str, bytes]:
        if self._document is not None:
            return 200, _JSON, self._document
        base = base_url_of_host(host.encode("latin-1"))
        if base is None:
            return 400, _JSON, error_body("malformed", "the Host header names no host")
        return 200, _JSON, metadata(base)

    def _described(self, host: str) -> bytes:
        if self._openapi is None:
            from chartgate.app import openapi  # built once, when somebody asks

            self._openapi = openapi.document(self._base)
        return self._openapi
