"""Errors of Google Cloud Storage: which are retryable and which are not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.gcs import EMULATOR_VARIABLE, GcsObjectStore
from shashin.objectstore.protocol import OnlyIf, Version
from tests.contract.objectstore.conftest import names_in, streamed

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

pytestmark = pytest.mark.usefixtures("few_retries")


@asynccontextmanager
async def answering(answer: Answer, patch: pytest.MonkeyPatch) -> AsyncIterator[GcsObjectStore]:
    """A store whose requests all get this response."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        patch.setenv(EMULATOR_VARIABLE, f"http://127.0.0.1:{runner.addresses[0][1]}")
        yield GcsObjectStore("bucket")
    finally:
        await runner.cleanup()


def refusing(status: int) -> Answer:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "says the store"}}, status=status)

    return refuse


def operations(store: GcsObjectStore, folder: Path) -> list[Callable[[], Awaitable[object]]]:
    (folder / "up").write_bytes(b"data")
    return [
        lambda: store.stat("a"),
        lambda: store.read("a"),
        lambda: streamed(store, "a"),
        lambda: store.download("a", folder / "down"),
        lambda: store.write("a", b"data"),
        lambda: store.upload("a", folder / "up"),
        lambda: store.delete("a"),
        lambda: store.delete("a", only_if=OnlyIf.absent()),
        lambda: store.list_objects("a"),
    ]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "cannot be used without credentials .*: log in with application default credentials"),
        (403, "object a in gs://bucket may not be accessed: .*says the store"),
    ],
)
async def test_denied_access_is_reported_and_not_retryable(
    status: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(refusing(status), monkeypatch) as store:
        for operate in operations(store, tmp_path):
            with pytest.raises(ObjectStoreError, match=says) as no:
                await operate()
            assert not no.value.retryable
            assert "gs://bucket" in no.value.message


async def test_without_list_permission_a_missing_object_is_still_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        # Only a listing can tell a missing object from a missing bucket.
        status = 403 if request.path.endswith("/o") else 404
        return web.json_response({"error": {"message": "says the store"}}, status=status)

    async with answering(answer, monkeypatch) as store:
        with pytest.raises(ObjectNotFound, match="no object a in gs://bucket"):
            await store.read("a")


@pytest.mark.parametrize("status", [408, 429, 500, 501, 503])
async def test_a_store_in_trouble_can_be_retried(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(refusing(status), monkeypatch) as store:
        for operate in operations(store, tmp_path):
            with pytest.raises(ObjectStoreUnavailable, match="gs://bucket") as failed:
                await operate()
            assert failed.value.retryable
    assert names_in(tmp_path) == ["up"]


async def test_a_download_that_is_cut_short_can_be_retried_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        if "alt" not in request.query:  # asks for the metadata
            return web.json_response({"name": "a", "generation": "5", "size": "1000"})
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(bytes(500))
        assert request.transport is not None
        request.transport.close()
        return response

    async with answering(half, monkeypatch) as store:
        with pytest.raises(ObjectStoreUnavailable, match="object a in gs://bucket"):
            await store.read("a")
        with pytest.raises(ObjectStoreUnavailable, match="object a in gs://bucket"):
            await store.download("a", tmp_path / "down")
        with pytest.raises(ObjectStoreUnavailable, match="object a in gs://bucket"):
            await streamed(store, "a")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("status", [404, 412])
async def test_a_conditional_delete_is_checked_atomically_by_the_store(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = []

    async def changed_meanwhile(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"name": "a", "generation": "5", "size": "1", "items": []})
        conditions.append(request.query.get("ifGenerationMatch"))
        return web.json_response({"error": {"message": "says the store"}}, status=status)

    async with answering(changed_meanwhile, monkeypatch) as store:
        with pytest.raises(PreconditionFailed, match="object a in gs://bucket"):
            await store.delete("a", only_if=OnlyIf.unchanged(Version("5")))
    assert conditions == ["5"]
