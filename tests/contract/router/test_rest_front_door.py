"""Who may use the router's REST: API keys, rates, load, and TLS; and the thumbnails that it has."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.router import __main__ as router
from shashin.access.api_key import new_key
from shashin.access.key_file import KeyFile
from shashin.objectstore.open import opened_object_store
from shashin.thumbnails.store import ThumbnailStore
from tests.support.certificates import NAME, Certificates
from tests.support.running_router import (
    HeldBackEndpoint,
    Listing,
    System,
    running_system,
    shard_of,
    vector_of,
)
from tests.support.waiting import until

HASH = "0123456789abcdef"
QUERY = {"vector": vector_of("x").tolist(), "deadline_ms": 30_000}


async def got(
    url: str, *, key: str = "", headers: Mapping[str, str] | None = None, **request: Any
) -> tuple[int, Any, Mapping[str, str]]:
    """Return status, document and headers of the answer to a GET, or to a POST of JSON."""
    method = "POST" if "json" in request else "GET"
    sent = dict(headers or {}) | ({"Authorization": f"Bearer {key}"} if key else {})
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=sent, **request) as response,
    ):
        is_json = response.content_type.endswith("json")
        document = await (response.json(content_type=None) if is_json else response.read())
        return response.status, document, response.headers


def served_by(system: System) -> str:
    """Return the certificate that a new connection gets."""
    assert system.settings is not None
    return ssl.get_server_certificate(("127.0.0.1", system.settings.rest_port), timeout=20.0)


def added(file: KeyFile, name: str, **limits: float) -> str:
    key, stored = new_key(name, created=datetime.now(UTC), **limits)  # type: ignore[arg-type]
    file.add(stored)
    return key


async def test_every_route_but_the_document_needs_a_key_if_there_are_keys(tmp_path: Path) -> None:
    accepted = KeyFile(tmp_path / "keys.json")
    key = added(accepted, "app")
    async with running_system(tmp_path, accepted_keys_file=accepted.path) as system:
        routes: list[tuple[str, dict[str, Any]]] = [
            ("/v1/search", {"json": QUERY}),
            ("/v1/listings/a/similar", {}),
            ("/v1/status", {}),
            (f"/v1/thumbnails/{HASH}.jpg", {}),
        ]
        for path, request in routes:
            status, problem, headers = await got(f"{system.rest}{path}", **request)
            assert (status, problem["reason"]) == (401, "ApiKeyMissing")
            assert headers["WWW-Authenticate"] == "Bearer"
            wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
            status, problem, _ = await got(f"{system.rest}{path}", key=wrong, **request)
            assert (status, problem["reason"]) == (401, "ApiKeyRefused")
            assert wrong not in str(problem)
            status, *_ = await got(f"{system.rest}{path}", key=key, **request)
            assert status != 401
        status, *_ = await got(f"{system.rest}/v1/status", headers={"X-API-Key": key})
        assert status == 200
        assert (await got(f"{system.rest}/v1/openapi.json"))[0] == 200


async def test_a_key_that_is_used_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    accepted = KeyFile(tmp_path / "keys.json")
    key = added(accepted, "app", per_second=0.01, burst=2)
    async with running_system(tmp_path, accepted_keys_file=accepted.path) as system:
        url = f"{system.rest}/v1/search"
        statuses = [(await got(url, key=key, json=QUERY))[0] for _ in range(2)]
        assert statuses == [503, 503]  # no endpoint
        status, problem, headers = await got(url, key=key, json=QUERY)
        assert (status, problem["reason"], problem["retryable"]) == (429, "RateLimited", True)
        assert 1 <= int(headers["Retry-After"]) <= 100


async def test_more_work_than_can_be_done_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "LEAST_WORK", 3.0)
    async with running_system(tmp_path, max_work=16) as system:
        held = await system.index("one", "live", shard_of([Listing("a")]), kind=HeldBackEndpoint)
        handlers = held.handlers
        assert isinstance(handlers, HeldBackEndpoint)
        await system.until_described()
        url = f"{system.rest}/v1/search"
        searches = [asyncio.ensure_future(got(url, json=QUERY)) for _ in range(30)]
        await until(lambda: any(one.done() for one in searches), "some are refused")
        handlers.released.set()
        answers = await asyncio.gather(*searches)
        by_status = {status: problem for status, problem, _ in answers}
        assert set(by_status) == {200, 503}
        assert by_status[503]["reason"] == "Overloaded"
        assert (await got(f"{system.rest}/v1/status"))[0] == 200


async def test_rest_has_the_certificate_of_grpc_and_its_renewals(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certificates")
    chain, key = certificates.issue("router")
    files: dict[str, Any] = {"tls_certificate_file": chain, "tls_key_file": key}
    access = certificates.access()
    context = ssl.create_default_context(cafile=str(certificates.authority))
    async with running_system(tmp_path, access=access, name=NAME, **files) as system:
        url = system.rest.replace("http://127.0.0.1", f"https://{NAME}")
        assert (await got(f"{url}/v1/status", ssl=context))[0] == 200
        stranger = Certificates(tmp_path / "other").authority
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await got(f"{url}/v1/status", ssl=ssl.create_default_context(cafile=str(stranger)))

        before = await asyncio.to_thread(served_by, system)
        certificates.issue("router")

        async def is_renewed() -> bool:
            return await asyncio.to_thread(served_by, system) != before

        await until(is_renewed, "the new certificate is served")
        assert (await got(f"{url}/v1/status", ssl=context))[0] == 200


async def test_clients_need_a_certificate_if_grpc_asks_for_one(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certificates")
    chain, key = certificates.issue("router")
    files: dict[str, Any] = {
        "tls_certificate_file": chain,
        "tls_key_file": key,
        "tls_client_ca_file": certificates.authority,
    }
    async with running_system(
        tmp_path, access=certificates.access("client"), name=NAME, **files
    ) as system:
        url = system.rest.replace("http://127.0.0.1", f"https://{NAME}")
        context = ssl.create_default_context(cafile=str(certificates.authority))
        with pytest.raises(aiohttp.ClientError):
            await got(f"{url}/v1/status", ssl=context)
        context.load_cert_chain(*certificates.issue("browser"))
        assert (await got(f"{url}/v1/status", ssl=context))[0] == 200


async def test_thumbnails_are_served_by_the_hash_of_their_photo(tmp_path: Path) -> None:
    folder = (tmp_path / "thumbnails").as_uri()
    async with opened_object_store(folder) as objects:
        await ThumbnailStore(objects).write(HASH, b"a JPEG")
    async with running_system(tmp_path, thumbnails=folder) as system:
        status, thumbnail, headers = await got(f"{system.rest}/v1/thumbnails/{HASH}.jpg")
        assert (status, thumbnail) == (200, b"a JPEG")
        assert headers["Content-Type"] == "image/jpeg"
        assert "immutable" in headers["Cache-Control"]
        other = HASH[::-1]
        status, problem, _ = await got(f"{system.rest}/v1/thumbnails/{other}.jpg")
        assert (status, problem["reason"]) == (404, "ThumbnailNotFound")
        for wrong in ("0123", HASH.upper(), f"..%2F{HASH}"):
            status, problem, _ = await got(f"{system.rest}/v1/thumbnails/{wrong}.jpg")
            assert status in {400, 404}
            assert problem["reason"] in {"InvalidQuery", "NotFound"}


async def test_a_router_without_thumbnails_says_so(system: System) -> None:
    status, problem, _ = await got(f"{system.rest}/v1/thumbnails/{HASH}.jpg")
    assert (status, problem["reason"]) == (404, "ThumbnailNotFound")
    assert "SHASHIN_THUMBNAILS" in problem["detail"]
