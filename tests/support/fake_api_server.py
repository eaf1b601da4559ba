"""An HTTP server that answers what a real API server cannot be made to: 410, 429, 500, garbage.

Everything else is tested with a real one (tests/cluster).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from shashin.kube.client import KubeClient
from shashin.kube.credentials import Access
from shashin.local.ports import HOST

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeApiServer:
    """Answers with what was queued, one per request, then with ``otherwise``."""

    def __init__(self) -> None:
        self.queued: deque[Answer] = deque()
        self.requests: list[web.Request] = []
        self.bodies: list[Any] = []
        self.otherwise: Answer = status(500)
        self.url = ""
        self.token_reads = 0
        self.closing = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.requests.append(request)
        self.bodies.append(await request.read())
        made = self.queued.popleft() if self.queued else self.otherwise
        return await made(request)

    async def read(self) -> Access:
        """Return credentials for this server, counting how often."""
        self.token_reads += 1
        configuration = Configuration(host=self.url)
        configuration.api_key["BearerToken"] = f"Bearer token-{self.token_reads}"
        return Access(configuration, "shop")


def status(code: int, *, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    """Answer with a Status object."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "code": code, "message": f"status {code}", **fields}
        return web.json_response(body, status=code, headers=headers)

    return answer


def body(content: bytes, code: int = 200) -> Answer:
    """Answer with these bytes."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, status=code)

    return answer


def listing(*objects: Any, version: str = "1", token: str = "") -> Answer:
    """Answer with a list."""
    metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
    return body(json.dumps({"metadata": metadata, "items": objects}).encode())


def watch(*lines: Any, then: asyncio.Event | None = None) -> Answer:
    """Answer with lines of a watch, objects or raw bytes, and end it, or wait before that."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            content = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            await response.write(content)
        if then is not None:
            await then.wait()
        return response

    return answer


@asynccontextmanager
async def fake_api_server() -> AsyncIterator[tuple[FakeApiServer, KubeClient]]:
    """Run a server, and give a client of it."""
    server = FakeApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    server.url = f"http://{HOST}:{runner.addresses[0][1]}"
    client = KubeClient(server)
    try:
        yield server, client
    finally:
        server.closing.set()
        await client.close()
        await runner.cleanup()
