"""The login with the Google account of a pod, at a registry that takes its token as a password."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from shashin.errors import RegistryLoginRefused, RegistryUnavailable
from shashin.local.ports import HOST, free_port
from shashin.oci.access import RegistryAccess
from shashin.oci.google_login import HOST_VARIABLE
from shashin.oci.references import Reference, Repository
from shashin.oci.registry import RegistryClient
from tests.support.oci_registry import GOOGLE_TOKEN, RegistryServer, needs_registry

pytestmark = needs_registry


@asynccontextmanager
async def metadata_server(
    monkeypatch: pytest.MonkeyPatch, token: str | None
) -> AsyncIterator[list[str]]:
    """Run the metadata server of a machine; gives the paths that were asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Metadata-Flavor"] == "Google"
        asked.append(request.path)
        if token is None:
            return web.Response(status=404, text="no account")
        return web.json_response({"access_token": token, "expires_in": 3599})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, HOST, port).start()
    monkeypatch.setenv(HOST_VARIABLE, f"{HOST}:{port}")
    try:
        yield asked
    finally:
        await runner.cleanup()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RegistryServer]:
    server = RegistryServer(tmp_path / "registry", tls=True, auth="basic")
    try:
        await server.start()
        yield server
    finally:
        await server.close()


def access(registry: RegistryServer) -> RegistryAccess:
    return replace(registry.access(password=None), google=frozenset({registry.address}))


async def test_a_pod_logs_in_with_its_google_account(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(registry.address, "shop/a")
    async with (
        metadata_server(monkeypatch, GOOGLE_TOKEN) as asked,
        RegistryClient(access(registry)) as client,
    ):
        assert await client.tags(repository) == []
        assert await client.tags(repository) == []
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("ya29.of-someone-else", "refused the pod's Google account: .*artifactregistry.writer"),
        (None, "gave no token .HTTP status 404.: annotate the pod's service account"),
    ],
)
async def test_an_account_that_may_not_says_what_to_do(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, token: str | None, said: str
) -> None:
    reference = Reference(Repository(registry.address, "shop/a"), "latest")
    async with metadata_server(monkeypatch, token), RegistryClient(access(registry)) as client:
        with pytest.raises(RegistryLoginRefused, match=said) as raised:
            await client.manifest(reference)
    assert "ya29" not in raised.value.message


async def test_without_a_metadata_server_it_is_named(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOST_VARIABLE, f"{HOST}:{free_port()}")
    async with RegistryClient(access(registry), retry_seconds=0.1) as client:
        with pytest.raises(RegistryUnavailable, match="only for pods on Google Cloud"):
            await client.tags(Repository(registry.address, "shop/a"))
