"""A proxy to a real API server that answers some requests with errors of its own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from kubernetes.aio.client.rest import RESTClientObject
from multidict import CIMultiDict

from shashin.kube.credentials import KubeconfigCredentials
from shashin.local.ports import HOST

_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_EVERY = 3


class FaultyApi:
    """Forwards requests; while ``faulty``, every third one fails, half of those after it took effect."""

    def __init__(self, session: aiohttp.ClientSession, upstream: str) -> None:
        self._session, self._upstream = session, upstream
        self.faulty = False
        self.failed: Counter[tuple[str, int]] = Counter()
        """How many requests failed, by method and status."""
        self._turns: Iterator[int] = itertools.count(1)
        self._faults = itertools.cycle(
            (code, applied) for code in _REASONS for applied in (False, True)
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if not self.faulty or next(self._turns) % _EVERY:
            return await self._forwarded(request)
        code, applied = next(self._faults)
        if applied and "watch" not in request.query:
            await self._forwarded(request, into_nothing=True)
        self.failed[request.method, code] += 1
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        status |= {"reason": _REASONS[code], "message": f"made to fail with {code}"}
        return web.json_response(status, status=code)

    async def _forwarded(
        self, request: web.Request, *, into_nothing: bool = False
    ) -> web.StreamResponse:
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _HOP_BY_HOP
        )
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            data=await request.read(),
            headers=headers,
        ) as found:
            if into_nothing:
                return web.Response(status=found.status)
            response = web.StreamResponse(status=found.status)
            response.content_type = found.content_type
            await response.prepare(request)
            async for piece in found.content.iter_any():
                await response.write(piece)
            return response


@asynccontextmanager
async def faulty_api(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[FaultyApi, Path]]:
    """Run a proxy to a kubeconfig's API server; gives the kubeconfig that leads through it."""
    access = (await KubeconfigCredentials(str(kubeconfig)).read()).configuration
    headers = {}
    if token := await access.get_api_key_with_prefix("BearerToken", alias="authorization"):
        headers["Authorization"] = token
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=RESTClientObject(access).ssl_context, limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        headers=headers,
        auto_decompress=False,
    ) as session:
        proxy = FaultyApi(session, access.host)
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", proxy.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            config = _without_credentials(f"http://{HOST}:{runner.addresses[0][1]}")
            through = folder / "through-the-faulty-proxy.yaml"
            through.write_text(yaml.safe_dump(config))
            yield proxy, through
        finally:
            await runner.cleanup()


def _without_credentials(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": {"server": server}}],
        "users": [{"name": "one", "user": {}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "current-context": "one",
    }
