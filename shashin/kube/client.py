"""A client of the Kubernetes API for any resource, with objects as plain dicts.

It retries nothing but a request whose credentials have expired: callers know what a repeat may do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlencode

import aiohttp

from shashin.errors import KubernetesUnavailable
from shashin.kube.cache import EventKind, check_object
from shashin.kube.connection import Connection
from shashin.kube.credentials import Credentials, credentials_from_environment
from shashin.kube.failures import failure, failure_of
from shashin.kube.resource import OWN_NAMESPACE, KubeObject, Request, Resource
from shashin.kube.server_clock import ServerClock
from shashin.metrics import kubernetes as metrics

JSON = "application/json"
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"

PAGE_OBJECTS = 500
"""Objects per page of a list."""

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 30.0
_MAX_EVENT_BYTES = 32 * 2**20
"""Far more than etcd takes of an object."""

_EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

Propagation = Literal["Background", "Foreground", "Orphan"]


@dataclass(frozen=True)
class Listing:
    """All objects of a list, and the version to watch from."""

    items: Sequence[KubeObject]
    resource_version: str


@dataclass(frozen=True)
class WatchEvent:
    """One change; the object of a BOOKMARK has a resource version only."""

    kind: EventKind
    object: KubeObject


class KubeClient:
    """Connects at its first request.

    Every method raises the errors of ``KubernetesError``, and a UserError if it has no usable
    credentials. A namespace is a name, ``OWN_NAMESPACE``, or None for cluster-wide objects.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self.clock = ServerClock()
        """The API server's."""

    @classmethod
    def from_environment(cls) -> KubeClient:
        """Return a client for ``KUBECONFIG``, else for the pod, else for ``~/.kube/config``."""
        return cls(credentials_from_environment())

    async def namespace(self) -> str:
        """Return the client's own namespace."""
        return (await self._connected()).namespace

    async def get(
        self, resource: Resource, name: str, *, namespace: str | None = OWN_NAMESPACE
    ) -> KubeObject:
        """Return an object."""
        return await self._object("get", "GET", resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = OWN_NAMESPACE,
        label_selector: str = "",
        field_selector: str = "",
        page_objects: int = PAGE_OBJECTS,
    ) -> Listing:
        """Return all objects that match, of one moment.

        Raises:
            KubernetesGone: if that moment passed out of the server's memory between two pages.
        """
        request = await self._request("list", resource, namespace)
        query = _selected(label_selector, field_selector) | {"limit": str(page_objects)}
        items: list[KubeObject] = []
        while True:
            page = await self._send("GET", request, query=query)
            listed = page.get("items")
            metadata = page.get("metadata")
            if not isinstance(listed, list | None) or not isinstance(metadata, dict):
                raise KubernetesUnavailable(f"cannot {request}: the response is no list")
            items += [check_object(found, f"the response to {request}") for found in listed or ()]
            if not (token := metadata.get("continue")):
                return Listing(items, str(metadata.get("resourceVersion", "")))
            query = query | {"continue": token}

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        resource_version: str,
        *,
        namespace: str | None = OWN_NAMESPACE,
        label_selector: str = "",
        field_selector: str = "",
        server_seconds: float,
        silence_seconds: float,
        total_seconds: float,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Watch what happens after a resource version; the context is entered once the server agrees.

        The iterator ends when the server ends the watch, after ``server_seconds`` at the latest. It
        raises KubernetesUnavailable if nothing at all, not even a bookmark, comes for
        ``silence_seconds``, or if the watch is still open after ``total_seconds``, and KubernetesGone
        if the server no longer knows the version.
        """
        request = await self._request("watch", resource, namespace)
        query = _selected(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(server_seconds))),
        }
        limits = aiohttp.ClientTimeout(
            total=total_seconds, sock_connect=_CONNECT_SECONDS, sock_read=silence_seconds
        )
        try:
            # A server sends the headers at once, but may then be silent for long.
            async with asyncio.timeout(min(_REQUEST_SECONDS, silence_seconds)):
                response = await self._response("GET", request, query=query, limits=limits)
        except TimeoutError as error:
            raise _unavailable(request, error) from error
        try:
            yield _events(response, request)
        finally:
            response.close()

    async def create(
        self,
        resource: Resource,
        created: KubeObject,
        *,
        manager: str = "",
        namespace: str | None = OWN_NAMESPACE,
    ) -> KubeObject:
        """Create an object; raises KubernetesConflict if there is one of its name.

        Its fields belong to ``manager``, but not as if they were applied: what it never applies later
        stays as it is.
        """
        query = {"fieldManager": manager} if manager else None
        return await self._object(
            "create", "POST", resource, namespace, _name(created), body=created, query=query
        )

    async def replace(
        self, resource: Resource, changed: KubeObject, *, namespace: str | None = OWN_NAMESPACE
    ) -> KubeObject:
        """Replace an object; raises KubernetesConflict if its resource version is not the newest."""
        return await self._object(
            "update", "PUT", resource, namespace, _name(changed), body=changed
        )

    async def apply(
        self,
        resource: Resource,
        wanted: KubeObject,
        *,
        manager: str,
        force: bool = True,
        namespace: str | None = OWN_NAMESPACE,
        subresource: str = "",
    ) -> KubeObject:
        """Apply a manager's fields on the server (server-side apply); creates a missing object.

        Fields that the manager applied before and leaves out now are removed. Without ``force``,
        raises KubernetesConflict if another manager owns a field.
        """
        return await self._object(
            "patch",
            "PATCH",
            resource,
            namespace,
            _name(wanted),
            subresource,
            body=wanted,
            content_type=APPLY_PATCH,
            query={"fieldManager": manager, "force": "true" if force else "false"},
        )

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: KubeObject,
        *,
        namespace: str | None = OWN_NAMESPACE,
        subresource: str = "",
    ) -> KubeObject:
        """Merge into an object, or into its subresource, such as ``status`` (RFC 7396).

        A ``metadata.resourceVersion`` in the patch makes it conditional.
        """
        return await self._object(
            "patch",
            "PATCH",
            resource,
            namespace,
            name,
            subresource,
            body=patch,
            content_type=MERGE_PATCH,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = OWN_NAMESPACE,
        uid: str = "",
        resource_version: str = "",
        propagation: Propagation = "Background",
    ) -> None:
        """Delete an object; raises KubernetesConflict unless it has that uid and version, if given."""
        conditions = {"uid": uid, "resourceVersion": resource_version}
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {name: value for name, value in conditions.items() if value},
        }
        request = await self._request("delete", resource, namespace, name)
        await self._send("DELETE", request, body=options)

    async def close(self) -> None:
        """Close every connection; no call follows."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    # --- requests -------------------------------------------------------------------------------

    async def _request(
        self,
        verb: str,
        resource: Resource,
        namespace: str | None,
        name: str = "",
        subresource: str = "",
    ) -> Request:
        own = await self.namespace() if namespace == OWN_NAMESPACE else namespace
        return Request(verb, resource, own, name, subresource)

    async def _object(
        self,
        verb: str,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str = "",
        subresource: str = "",
        **sent: Any,
    ) -> KubeObject:
        request = await self._request(verb, resource, namespace, name, subresource)
        found = await self._send(method, request, **sent)
        return check_object(found, f"the response to {request}")

    async def _send(self, method: str, request: Request, **sent: Any) -> dict[str, Any]:
        limits = aiohttp.ClientTimeout(total=_REQUEST_SECONDS, sock_connect=_CONNECT_SECONDS)
        response = await self._response(method, request, limits=limits, **sent)
        return _parsed(await _body(response, request), request)

    async def _response(
        self,
        method: str,
        request: Request,
        *,
        limits: aiohttp.ClientTimeout,
        query: Mapping[str, str] | None = None,
        body: KubeObject | None = None,
        content_type: str = JSON,
    ) -> aiohttp.ClientResponse:
        path_and_query = request.path + (f"?{urlencode(query)}" if query else "")
        connection = await self._connected()
        for is_last in (False, True):
            try:
                response = await connection.send(
                    method, path_and_query, body=body, content_type=content_type, limits=limits
                )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                metrics.REQUEST_ERRORS.labels(request.verb, "none").inc()
                raise _unavailable(request, error) from error
            self.clock.observe(response.headers.get("Date"))
            if response.status < 300:
                return response
            metrics.REQUEST_ERRORS.labels(request.verb, str(response.status)).inc()
            failed = failure(
                response.status, response.headers, await _body(response, request), request
            )
            if response.status != 401 or is_last:
                raise failed
            connection = await self._connected(instead_of=connection)
        raise AssertionError("unreachable: the last response is returned or raised")

    async def _connected(self, *, instead_of: Connection | None = None) -> Connection:
        async with self._connecting:
            if self._connection is None or self._connection is instead_of:
                try:
                    connection = Connection(await self._credentials.read())
                except (OSError, ValueError) as error:
                    raise KubernetesUnavailable(
                        f"cannot use the certificates of the credentials: {error}"
                    ) from error
                if self._connection is not None:
                    await self._connection.close()
                self._connection = connection
            return self._connection


def _selected(label_selector: str, field_selector: str) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: selector for name, selector in selectors.items() if selector}


def _name(named: KubeObject) -> str:
    name: str = named["metadata"]["name"]
    return name


async def _body(response: aiohttp.ClientResponse, request: Request) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, OSError) as error:
        raise _unavailable(request, error) from error


def _parsed(body: bytes, request: Request) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise KubernetesUnavailable(
            f"cannot {request}: the response is no JSON object: {body[:100]!r}"
        )
    return found


async def _events(response: aiohttp.ClientResponse, request: Request) -> AsyncIterator[WatchEvent]:
    rest = b""
    try:
        async for piece in response.content.iter_any():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield _event(line, request)
            if len(rest) > _MAX_EVENT_BYTES:
                raise KubernetesUnavailable(
                    f"cannot {request}: an event is longer than {_MAX_EVENT_BYTES} bytes"
                )
    except (aiohttp.ClientError, OSError) as error:
        raise _unavailable(request, error) from error
    if rest.strip():
        raise KubernetesUnavailable(f"cannot {request}: the watch ended within an event")


def _event(line: bytes, request: Request) -> WatchEvent:
    event = _parsed(line, request)
    name, found = event.get("type"), event.get("object")
    if name == "ERROR":
        raise failure_of(found if isinstance(found, dict) else {}, request)
    kind = next((known for known in _EVENT_KINDS if known == name), None)
    if kind is None:
        raise KubernetesUnavailable(f"cannot {request}: unknown event type {name!r}")
    if kind == "BOOKMARK":
        # It has no name.
        metadata = found.get("metadata") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(metadata, dict):
            raise KubernetesUnavailable(f"cannot {request}: a bookmark without metadata")
        return WatchEvent("BOOKMARK", found)
    return WatchEvent(kind, check_object(found, f"an event of {request}"))


def _unavailable(request: Request, error: Exception) -> KubernetesUnavailable:
    why = str(error) or "no response in time"
    return KubernetesUnavailable(f"cannot {request}: {type(error).__name__}: {why}")
