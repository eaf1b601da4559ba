"""One HTTP session with the API server."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from kubernetes.aio.client.rest import RESTClientObject

from shashin.kube.credentials import Access

_CONNECTIONS = 100
_READ_BYTES = 2**21
_SOCKET_OPTIONS = {
    # A peer that is gone without a word is noticed after 30 seconds, also by a quiet watch.
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}


class Connection:
    """Sends requests with the credentials that were read when it was opened."""

    def __init__(self, access: Access) -> None:
        """Open no socket yet; must be called in a running event loop."""
        self.namespace = access.namespace
        self._configuration = access.configuration
        self._rest = RESTClientObject(access.configuration)
        self._rest.pool_manager = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._rest.ssl_context, limit=_CONNECTIONS, socket_factory=_watched_socket
            ),
            read_bufsize=_READ_BYTES,
            trust_env=True,
        )

    async def send(
        self,
        method: str,
        path_and_query: str,
        *,
        body: Any = None,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request; returns the response with its body unread."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        token = await self._configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
        if token:
            headers["Authorization"] = token
        sent = await self._rest.request(
            method,
            f"{self._configuration.host}{path_and_query}",
            headers=headers,
            body=body,
            _request_timeout=limits,
        )
        response: aiohttp.ClientResponse = sent.response
        return response

    async def close(self) -> None:
        """Close every socket."""
        await self._rest.close()


def _watched_socket(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET_OPTIONS.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
