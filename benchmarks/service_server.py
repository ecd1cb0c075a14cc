"""One worker of the decision service for the benchmark: the product's doors over ``service_node``.

Told by one line of JSON on standard input; says its ports on standard output; ends with its input.
"""

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from service_node import BenchNode, NoLog

from chartgate.adapters.decision_doors import Doors, Opening
from chartgate.adapters.decision_limits import DEFAULT
from chartgate.adapters.decision_tls import CERTIFICATE, KEY, Tls, own_certificate
from chartgate.adapters.decision_worker import SWITCH_SECONDS
from chartgate.adapters.log_remote import RemoteLog
from chartgate.adapters.log_service import LogService
from chartgate.adapters.state import State


@asynccontextmanager
async def opened(told: dict[str, Any]) -> AsyncIterator[Any]:
    """No log; one of this very process, as of a worker that is alone; or the writer's."""
    if told["durability"] == "none":
        yield NoLog()
    elif told["log"]:
        async with RemoteLog(Path(told["log"])) as remote:
            yield remote
    else:
        state = State(Path(told["state"]))
        state.create()
        async with LogService(state, "bench", "bench.example/log") as own:
            yield own.log


async def run(told: dict[str, Any]) -> None:
    folder, ending = Path(told["folder"]), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ending.set)
    tls = None
    if told["tls"]:
        own_certificate(folder, datetime.now(UTC))
        tls = Tls(folder / CERTIFICATE, folder / KEY)
    opening = Opening(
        port=0, plain=tls is None, tls=tls, unix=folder / "decide.sock", limits=DEFAULT
    )
    async with opened(told) as log:
        node = BenchNode(told["kind"], told["policies"], log, durable=told["durability"] == "fsync")
        doors = Doors(node, opening, pager_key=bytes(32))
        await doors.open()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)  # as in a worker
        sys.stdout.write(json.dumps({"port": doors.port}) + "\n")
        sys.stdout.flush()
        await ending.wait()
        await doors.close()


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(run(json.loads(sys.stdin.readline())))
