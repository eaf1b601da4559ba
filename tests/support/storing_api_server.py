"""An API server that stores objects and tells their watchers, with nobody who acts on them.

No kubelet starts a pod, and no controller of Kubernetes makes one. It checks nothing: neither schemas nor
rights nor selectors. What depends on these is tested on a real cluster (tests/cluster).
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from shashin.local.ports import HOST

NAMESPACE = "shop"
_PATH = re.compile(
    r"(?P<collection>/.+/namespaces/[^/]+/[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)


class StoringApiServer:
    """Its address is ``url``; requests for the resources in ``refused``, such as ``leases``, get a 403."""

    def __init__(self) -> None:
        self.url = ""
        self.refused: set[str] = set()
        self._objects: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._events: list[tuple[str, int, str, dict[str, Any]]] = []
        """Collection, resource version, kind of event and object."""
        self._version = 0
        self._changed = asyncio.Condition()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig for it; returns its path."""
        path = folder / "kubeconfig.yaml"
        context = {"cluster": "c", "user": "u", "namespace": NAMESPACE}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "none"}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        found = _PATH.fullmatch(request.path)
        if found is None:
            return _status(404)
        if found["collection"].rpartition("/")[2] in self.refused:
            return _status(403)
        if found["name"] is None:
            return await self._answer_of_all(request, found["collection"])
        return await self._answer_of_one(request, found["collection"], found["name"], found["sub"])

    async def _answer_of_all(self, request: web.Request, collection: str) -> web.StreamResponse:
        if request.method == "POST":
            return await self._create(collection, await request.json())
        if request.query.get("watch"):
            return await self._watch(request, collection)
        items = list(self._objects[collection].values())
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response({"metadata": metadata, "items": items})

    async def _answer_of_one(
        self, request: web.Request, collection: str, name: str, sub: str | None
    ) -> web.Response:
        before = self._objects[collection].get(name)
        if request.method == "PATCH":
            # An apply is JSON as well, and creates what is missing.
            return await self._patch(collection, before, json.loads(await request.read()), sub)
        if before is None:
            return _status(404)
        if request.method == "DELETE":
            del self._objects[collection][name]
            await self._store_event(collection, "DELETED", before)
        if request.method == "PUT":
            return await self._replace(collection, before, await request.json())
        return web.json_response(before)

    async def _create(self, collection: str, made: dict[str, Any]) -> web.Response:
        metadata = made.setdefault("metadata", {})
        name = metadata.setdefault("name", f"{metadata.get('generateName', '')}{uuid.uuid4().hex}")
        if name in self._objects[collection]:
            return _status(409)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": now}
        metadata.setdefault("namespace", NAMESPACE)
        return await self._stored(collection, "ADDED", made, code=201)

    async def _patch(
        self, collection: str, before: dict[str, Any] | None, patch: Any, sub: str | None
    ) -> web.Response:
        if before is None:
            return await self._create(collection, patch) if not sub else _status(404)
        after = _merged(before, {sub: patch.get(sub)} if sub else patch)
        after["metadata"] |= {key: before["metadata"][key] for key in ("uid", "generation")}
        return await self._stored(collection, "MODIFIED", after)

    async def _replace(
        self, collection: str, before: dict[str, Any], after: dict[str, Any]
    ) -> web.Response:
        version = after["metadata"].get("resourceVersion")
        if version and version != before["metadata"]["resourceVersion"]:
            return _status(409)
        return await self._stored(collection, "MODIFIED", after)

    async def _stored(
        self, collection: str, kind: str, after: dict[str, Any], *, code: int = 200
    ) -> web.Response:
        self._objects[collection][after["metadata"]["name"]] = after
        await self._store_event(collection, kind, after)
        return web.json_response(after, status=code)

    async def _store_event(self, collection: str, kind: str, found: dict[str, Any]) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((collection, self._version, kind, json.loads(json.dumps(found))))
        async with self._changed:
            self._changed.notify_all()

    def _has_more(self, sent: int) -> bool:
        return len(self._events) > sent

    async def _watch(self, request: web.Request, collection: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        seen = int(request.query.get("resourceVersion") or 0)
        sent = 0
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                while True:
                    for of, version, kind, found in self._events[sent:]:
                        if of == collection and version > seen:
                            line = json.dumps({"type": kind, "object": found})
                            await response.write(line.encode() + b"\n")
                    sent = len(self._events)
                    async with self._changed:
                        await self._changed.wait_for(partial(self._has_more, sent))
        except TimeoutError:
            return response


def _merged(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return an object with a merge patch (RFC 7396)."""
    after = dict(before)
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, dict) and isinstance(after.get(key), dict):
            after[key] = _merged(after[key], value)
        else:
            after[key] = value
    return after


def _status(code: int) -> web.Response:
    return web.json_response(
        {"kind": "Status", "code": code, "message": f"status {code}"}, status=code
    )


@asynccontextmanager
async def storing_api_server() -> AsyncIterator[StoringApiServer]:
    """Run one."""
    server = StoringApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    server.url = f"http://{HOST}:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
