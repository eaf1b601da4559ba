"""Registries to test with: plain, with TLS and a password, and with a token server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from shashin.oci.references import Repository
from shashin.oci.registry import RegistryClient
from tests.support.oci_registry import RegistryServer


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[RegistryServer]:
    """A registry without TLS and without a login."""
    server = RegistryServer(tmp_path / "plain")
    try:
        await server.start()
        yield server
    finally:
        await server.close()


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tls": {"tls": True, "auth": "basic"},
    "token": {"auth": "token"},
}


@pytest.fixture(params=list(KINDS))
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryServer]:
    """A registry of each kind."""
    server = RegistryServer(tmp_path / "registry", **KINDS[request.param])
    try:
        await server.start()
        yield server
    finally:
        await server.close()


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def client(registry: RegistryServer, opened: AsyncExitStack) -> RegistryClient:
    return await opened.enter_async_context(RegistryClient(registry.access(), retry_seconds=1))


@pytest.fixture
def repository(registry: RegistryServer) -> Repository:
    return Repository(registry.address, f"shop/{uuid.uuid4().hex[:8]}")
