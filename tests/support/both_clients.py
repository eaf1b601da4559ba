"""Both clients behind one interface, so that each test of a client is one of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from shashin.client import AsyncClient, Client

Kind = Literal["threads", "asyncio"]
KINDS: tuple[Kind, ...] = ("threads", "asyncio")

Ask = Callable[..., Awaitable[Any]]
"""Calls a method of a client by its name."""


@asynccontextmanager
async def asking(kind: Kind, address: str, **more: Any) -> AsyncIterator[Ask]:
    """Open a client; the one for threads is called in threads of their own."""
    if kind == "asyncio":
        async with AsyncClient(address, **more) as client:

            async def ask(method: str, /, *args: Any, **kwargs: Any) -> Any:
                return await getattr(client, method)(*args, **kwargs)

            yield ask
    else:
        with Client(address, **more) as blocking:

            async def ask_in_thread(method: str, /, *args: Any, **kwargs: Any) -> Any:
                return await asyncio.to_thread(getattr(blocking, method), *args, **kwargs)

            yield ask_in_thread
