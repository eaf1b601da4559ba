"""Running a service's loops in a test, without a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shashin.runtime.health import Health
from shashin.runtime.scope import Loop, LoopScope


def loop_scope(
    health: Health | None = None,
    *,
    stop: asyncio.Event | None = None,
    ready_when: str = "",
    name: str = "loop",
) -> LoopScope:
    """Return the handle of a loop."""
    registered = (health or Health()).register(name, ready_when=ready_when)
    return LoopScope(registered, stop or asyncio.Event())


@asynccontextmanager
async def running(*loops: Loop, health: Health | None = None) -> AsyncIterator[None]:
    """Run loops while the context is open; an error in one is raised at the end.

    After an error in the context they are cancelled: nobody tells them any more that all is done.
    """
    health, stop = health or Health(), asyncio.Event()
    handles = [
        health.register(loop.name, ready_when=loop.ready_when, optional=loop.optional)
        for loop in loops
    ]
    tasks = [
        asyncio.ensure_future(loop.run(LoopScope(handle, stop)))
        for loop, handle in zip(loops, handles, strict=True)
    ]
    try:
        yield
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    stop.set()
    await asyncio.gather(*tasks)
