"""A real S3 server behind broken connections, killed, restarted, and with wrong credentials."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aioboto3
import pytest

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.local.ports import free_port
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import OnlyIf
from shashin.objectstore.s3 import PART_BYTES, S3ObjectStore
from tests.contract.objectstore.conftest import names_in, streamed
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.seaweed import ACCESS_KEY, BUCKET, SECRET, SERVER_VARIABLE, SeaweedFs
from tests.support.waiting import until

MIB = 1024 * 1024
LARGE = 3 * PART_BYTES + 77

own_server_only = pytest.mark.skipif(
    SERVER_VARIABLE in os.environ, reason="kills the server, or needs its credentials"
)


@pytest.fixture
async def s3_store(s3: str) -> AsyncIterator[S3ObjectStore]:
    async with opened_object_store(s3) as store:
        assert isinstance(store, S3ObjectStore)
        yield store


@pytest.fixture
async def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CuttingProxy]:
    """A proxy that the stores opened after this use."""
    async with cutting_proxy(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 80) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
async def lasting_s3(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SeaweedFs]:
    """A server for one test."""
    server = SeaweedFs(tmp_path_factory.mktemp("lasting-s3"))
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


def operations(store: S3ObjectStore, folder: Path) -> list[Callable[[], Awaitable[object]]]:
    (folder / "up").write_bytes(b"data")
    with (folder / "large").open("wb") as large:
        large.truncate(PART_BYTES + 1)
    return [
        lambda: store.stat("a"),
        lambda: store.read("a"),
        lambda: streamed(store, "a"),
        lambda: store.download("a", folder / "down"),
        lambda: store.write("a", b"data"),
        lambda: store.upload("a", folder / "up"),
        lambda: store.upload("a", folder / "large"),
        lambda: store.delete("a"),
        lambda: store.delete("a", only_if=OnlyIf.absent()),
        lambda: store.list_objects(""),
    ]


async def unfinished_uploads(store: S3ObjectStore) -> list[str]:
    """Return the names of all objects below the store whose parts the server keeps."""
    async with aioboto3.Session().client("s3", region_name="us-east-1") as client:
        listed = await client.list_multipart_uploads(Bucket=BUCKET)
    folder = repr(store).removeprefix(f"S3ObjectStore(s3://{BUCKET}/").removesuffix(")")
    return [one["Key"] for one in listed.get("Uploads", ()) if one["Key"].startswith(folder)]


async def test_a_missing_bucket_is_reported_by_every_operation(s3: str, tmp_path: Path) -> None:
    # A reader must not mistake a mistyped bucket for an empty one.
    async with opened_object_store("s3://mistyped/folder") as store:
        assert isinstance(store, S3ObjectStore)
        for operate in operations(store, tmp_path):
            with pytest.raises(ObjectStoreError, match="there is no bucket mistyped") as refused:
                await operate()
            assert type(refused.value) is ObjectStoreError
            assert not refused.value.retryable
    assert names_in(tmp_path) == ["large", "up"]


@own_server_only
@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
async def test_wrong_credentials_are_reported_by_every_operation(
    s3: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "wrong")
    async with opened_object_store(s3) as store:
        assert isinstance(store, S3ObjectStore)
        for operate in operations(store, tmp_path):
            with pytest.raises(ObjectStoreError, match="credentials are wrong or have") as refused:
                await operate()
            assert not refused.value.retryable
            assert BUCKET in refused.value.message


@own_server_only
async def test_without_credentials_it_is_said_how_to_give_them(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with opened_object_store(s3) as store:
        with pytest.raises(ObjectStoreError, match=f"bucket {BUCKET} .*set AWS_ACCESS_KEY_ID"):
            await store.read("a")


async def test_the_endpoint_of_s3_comes_before_that_of_all_services(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    async with opened_object_store(s3) as store:
        version = await store.write("a", b"data")
        assert await store.read("a") == (b"data", version)


@own_server_only
async def test_a_profile_names_credentials_and_endpoint(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text(
        f"[profile shop]\nregion = us-east-1\nendpoint_url = {os.environ['AWS_ENDPOINT_URL']}\n"
    )
    credentials.write_text(
        f"[shop]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET}\n"
        "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
    )
    for variable in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "shop")
    async with opened_object_store(s3) as store:
        version = await store.write("a", b"data")
        assert await store.read("a") == (b"data", version)


async def test_a_large_file_is_uploaded_in_parts_under_the_conditions_of_a_write(
    s3_store: S3ObjectStore, tmp_path: Path
) -> None:
    first, second = (random.Random(seed).randbytes(LARGE) for seed in (1, 2))
    (tmp_path / "up").write_bytes(first)
    version = await s3_store.upload("large", tmp_path / "up", only_if=OnlyIf.absent())
    assert version.strip('"').endswith("-4")  # of four parts
    assert (await s3_store.stat("large")).version == version
    (tmp_path / "up").write_bytes(second)
    with pytest.raises(PreconditionFailed):
        await s3_store.upload("large", tmp_path / "up", only_if=OnlyIf.absent())
    assert await s3_store.read("large") == (first, version)
    replaced = await s3_store.upload("large", tmp_path / "up", only_if=OnlyIf.unchanged(version))
    with pytest.raises(PreconditionFailed):
        await s3_store.upload("large", tmp_path / "up", only_if=OnlyIf.unchanged(version))
    assert await s3_store.read("large") == (second, replaced)
    with pytest.raises(PreconditionFailed):
        await s3_store.upload("other", tmp_path / "up", only_if=OnlyIf.unchanged(version))
    assert [info.key for info in await s3_store.list_objects("")] == ["large"]
    assert await unfinished_uploads(s3_store) == []


async def test_of_uploads_in_parts_the_first_to_be_completed_wins(
    s3_store: S3ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = 4
    all_uploaded, one_at_a_time = asyncio.Barrier(writers), asyncio.Lock()
    conditionally = s3_store._conditionally

    async def complete(*args: Any) -> Any:
        await all_uploaded.wait()
        async with one_at_a_time:
            return await conditionally(*args)

    monkeypatch.setattr(s3_store, "_conditionally", complete)
    results = await upload_at_once(s3_store, writers, tmp_path)
    await check_one_won(s3_store, results, tmp_path)
    assert await unfinished_uploads(s3_store) == []


@pytest.mark.skipif(
    SERVER_VARIABLE not in os.environ,
    reason="SeaweedFS 4.48 lets several uploads win that are completed at once: set "
    f"{SERVER_VARIABLE} to another server",
)
async def test_one_of_many_uploads_in_parts_wins(s3_store: S3ObjectStore, tmp_path: Path) -> None:
    await check_one_won(s3_store, await upload_at_once(s3_store, 4, tmp_path), tmp_path)


async def test_uploads_in_parts_at_once_leave_one_of_them_whole(
    s3_store: S3ObjectStore, tmp_path: Path
) -> None:
    results = await upload_at_once(s3_store, 4, tmp_path)
    data, version = await s3_store.read("large")
    winners = {number for number, result in enumerate(results) if isinstance(result, str)}
    refused = sum(isinstance(result, PreconditionFailed) for result in results)
    assert len(winners) + refused == len(results)
    assert version in [results[number] for number in winners]
    assert data in [(tmp_path / str(number)).read_bytes() for number in winners]


async def upload_at_once(
    store: S3ObjectStore, writers: int, folder: Path
) -> list[str | BaseException]:
    """Upload one key from several files, each on the condition that it is the first."""
    for number in range(writers):
        (folder / str(number)).write_bytes(bytes([number]) * (PART_BYTES + 1))
    return await asyncio.gather(
        *(
            store.upload("large", folder / str(number), only_if=OnlyIf.absent())
            for number in range(writers)
        ),
        return_exceptions=True,
    )


async def check_one_won(
    store: S3ObjectStore, results: list[str | BaseException], folder: Path
) -> None:
    (winner,) = [n for n, result in enumerate(results) if isinstance(result, str)]
    assert sum(isinstance(result, PreconditionFailed) for result in results) == len(results) - 1
    data, version = await store.read("large")
    assert version == results[winner]
    assert data == (folder / str(winner)).read_bytes()


async def test_a_download_continues_after_cut_connections(
    s3_store: S3ObjectStore, proxy: CuttingProxy, s3: str, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(LARGE)
    await s3_store.write("large", data)
    async with opened_object_store(s3) as cut_store:
        for after in (0, 1 * MIB, 5 * MIB):
            proxy.cut("received", after=after)
        await cut_store.download("large", tmp_path / "down")
        for after in (0, 1 * MIB, 5 * MIB):
            proxy.cut("received", after=after)
        assert b"".join(await streamed(cut_store, "large")) == data
    assert proxy.cut_connections == 6
    assert (tmp_path / "down").read_bytes() == data
    assert names_in(tmp_path) == ["down"]


async def test_an_upload_continues_after_cut_connections(
    s3_store: S3ObjectStore, proxy: CuttingProxy, s3: str, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(LARGE)
    (tmp_path / "up").write_bytes(data)
    async with opened_object_store(s3) as cut_store:
        for after in (0, 1 * MIB, 5 * MIB):
            proxy.cut("sent", after=after)
        version = await cut_store.upload("large", tmp_path / "up", only_if=OnlyIf.absent())
    assert proxy.cut_connections == 3
    assert await s3_store.read("large") == (data, version)


async def test_a_stream_of_an_object_that_was_overwritten_is_not_continued(
    s3_store: S3ObjectStore, proxy: CuttingProxy, s3: str
) -> None:
    await s3_store.write("large", bytes(LARGE))
    proxy.cut("received", after=5 * MIB)
    async with opened_object_store(s3) as cut_store, aclosing(cut_store.stream("large")) as chunks:
        await anext(chunks)
        await s3_store.write("large", b"other")
        with pytest.raises(PreconditionFailed, match=r"object large .* while being read"):
            async for _ in chunks:
                pass


async def test_connections_that_are_always_cut_are_an_unavailable_store(
    s3_store: S3ObjectStore, proxy: CuttingProxy, s3: str, few_retries: None, tmp_path: Path
) -> None:
    await s3_store.write("a", bytes(4 * MIB))
    for _ in range(1000):
        proxy.cut("received", after=0)
    async with opened_object_store(s3) as cut_store:
        assert isinstance(cut_store, S3ObjectStore)
        for operate in operations(cut_store, tmp_path):
            with pytest.raises(ObjectStoreUnavailable) as failed:
                await operate()
            assert failed.value.retryable
            assert f"s3://{BUCKET}/" in failed.value.message
    assert names_in(tmp_path) == ["large", "up"]


@own_server_only
async def test_a_server_that_is_killed_works_again_when_it_is_back(
    lasting_s3: SeaweedFs, few_retries: None, tmp_path: Path
) -> None:
    async with opened_object_store(f"s3://{BUCKET}/a folder") as store:
        assert isinstance(store, S3ObjectStore)
        version = await store.write("a", b"data")
        await lasting_s3.kill()
        for operate in operations(store, tmp_path):
            with pytest.raises(ObjectStoreUnavailable, match=f"s3://{BUCKET}/a folder") as failed:
                await operate()
            assert failed.value.retryable
        assert names_in(tmp_path) == ["large", "up"]
        await lasting_s3.start()

        async def has_its_volumes_again() -> bool:
            # It takes new objects before it has found the volume that an older one lies in.
            try:
                return await store.read("a") == (b"data", version)
            except ObjectStoreUnavailable:
                return False

        await until(has_its_volumes_again, "the object from before the kill can be read")
        assert await store.write("a", b"more", only_if=OnlyIf.unchanged(version)) != version


@own_server_only
async def test_an_upload_survives_a_server_that_is_killed_and_restarted(
    lasting_s3: SeaweedFs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shashin.objectstore.s3_client.RETRY_SECONDS", 60.0)
    data = random.Random(1).randbytes(6 * PART_BYTES)
    (tmp_path / "up").write_bytes(data)
    async with (
        cutting_proxy(lasting_s3.port) as proxy,
        opened_object_store(f"s3://{BUCKET}") as store,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.cut("sent", after=PART_BYTES)
        uploading = asyncio.ensure_future(store.upload("large", tmp_path / "up"))
        await until(lambda: proxy.cut_connections, "a part is under way")
        await lasting_s3.kill()
        await lasting_s3.start()
        with pytest.raises(ObjectNotFound):
            await store.stat("large")
        version = await uploading
        assert await store.read("large") == (data, version)


async def test_a_cancelled_upload_leaves_nothing(
    s3_store: S3ObjectStore, proxy: CuttingProxy, s3: str, tmp_path: Path
) -> None:
    with (tmp_path / "up").open("wb") as file:
        file.truncate(20 * PART_BYTES)
    async with opened_object_store(s3) as cut_store:
        proxy.cut("sent", after=PART_BYTES)
        uploading = asyncio.ensure_future(cut_store.upload("large", tmp_path / "up"))
        await until(lambda: proxy.cut_connections, "a part is under way")
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert await s3_store.list_objects("") == []
    assert await unfinished_uploads(s3_store) == []


UPLOADS = """
import asyncio, sys
from pathlib import Path
from shashin.objectstore.open import opened_object_store

async def upload():
    async with opened_object_store(sys.argv[1]) as store:
        await store.upload("large", Path(sys.argv[2]))

asyncio.run(upload())
"""


async def test_a_process_that_is_killed_in_mid_upload_publishes_nothing(
    s3_store: S3ObjectStore, proxy: CuttingProxy, s3: str, tmp_path: Path
) -> None:
    with (tmp_path / "up").open("wb") as file:
        file.truncate(100 * PART_BYTES)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UPLOADS, s3, tmp_path / "up"
    )
    await until(lambda: proxy.sent_bytes > 2 * PART_BYTES, "parts are on their way")
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    assert await s3_store.list_objects("") == []
    with pytest.raises(ObjectNotFound):
        await s3_store.stat("large")
    (tmp_path / "up").write_bytes(b"again")
    version = await s3_store.upload("large", tmp_path / "up", only_if=OnlyIf.absent())
    assert await s3_store.read("large") == (b"again", version)


async def test_a_store_is_one_folder_of_its_bucket(s3: str) -> None:
    folder = uuid.uuid4().hex
    async with (
        opened_object_store(f"s3://{BUCKET}") as whole,
        opened_object_store(f"s3://{BUCKET}/{folder}") as one,
        opened_object_store(f"s3://{BUCKET}/{folder}-and-more") as two,
    ):
        await one.write("a", b"one")
        await two.write("a", b"two")
        assert (await one.read("a"))[0] == b"one"
        assert [info.key for info in await one.list_objects("")] == ["a"]
        assert {info.key for info in await whole.list_objects(folder)} == {
            f"{folder}/a",
            f"{folder}-and-more/a",
        }
