"""A router's port in a process of its own, whose searches take a given time: ``python loaded_front.py KIND``.

``loop``: each search keeps the event loop for 5 ms, so 200 a second can be answered. ``endpoints``: each
waits for one of 4 endpoints, which has it for 20 ms, so 200 a second as well. It prints its port, and serves
until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc

ROOT = Path(__file__).parents[2]
SECONDS, SLOTS = 0.005, 4


class Searches:
    """Stands for the router's handlers."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._endpoints = asyncio.Semaphore(SLOTS)

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take the time of a search."""
        from shashin.v1 import search_pb2

        if self._kind == "loop":
            await asyncio.sleep(0)
            time.sleep(SECONDS)  # noqa: ASYNC251 - it stands for computing
        else:
            async with self._endpoints:
                await asyncio.sleep(SLOTS * SECONDS)
        return search_pb2.SearchResponse(model_id="answered")

    async def Status(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer at once."""
        from shashin.v1 import search_pb2

        return search_pb2.StatusResponse()


async def serve(kind: str) -> None:
    """Serve until standard input ends."""
    from services.router.__main__ import gate_of, limits_of
    from services.router.front_door import FrontDoor
    from services.router.settings import RouterSettings
    from services.router.wait_probe import WaitProbe
    from shashin.rpc.server import grpc_server
    from shashin.runtime.health import Health
    from shashin.runtime.scope import ServiceScope
    from shashin.v1 import search_pb2_grpc

    settings = RouterSettings(
        discovery="file:///nowhere",
        drain_seconds=0,
    )
    gate = gate_of(settings, None)
    door = FrontDoor(cast("Any", Searches(kind)), gate, lambda: 1)
    stop = asyncio.Event()

    def add(server: grpc.aio.Server) -> None:
        search_pb2_grpc.add_SearchServiceServicer_to_server(door, server)

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(
            grpc_server(
                add,
                host="127.0.0.1",
                port=0,
                drain_seconds=0,
                limits=limits_of(settings),
                guard=door.guard,
            )
        )
        loop = asyncio.get_running_loop()

        def until_closed() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=until_closed, daemon=True).start()
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        loops = [WaitProbe(gate, gate.rate).loop()] if gate.rate is not None else []
        await ServiceScope("router", settings, Health(), stop).run(*loops)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    asyncio.run(serve(sys.argv[1]))
