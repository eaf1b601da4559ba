"""Files are uploaded and downloaded completely, or not at all."""

from __future__ import annotations

import asyncio
import random
import uuid
from pathlib import Path

import pytest

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.protocol import ObjectStore, OnlyIf

FULL = Path("/dev/full")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


async def test_a_file_is_uploaded_and_downloaded_unchanged(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(b"\x00 rows \xff")
    version = await store.upload("shard/rows.arrow", tmp_path / "up")
    assert await store.read("shard/rows.arrow") == (b"\x00 rows \xff", version)
    await store.download("shard/rows.arrow", tmp_path / "new" / "folder" / "down")
    assert (tmp_path / "new" / "folder" / "down").read_bytes() == b"\x00 rows \xff"
    assert files_below(tmp_path) == {"up", "new/folder/down"}


async def test_an_upload_obeys_the_conditions_of_a_write(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(b"first")
    first = await store.upload("a", tmp_path / "up", only_if=OnlyIf.absent())
    (tmp_path / "up").write_bytes(b"second")
    with pytest.raises(PreconditionFailed):
        await store.upload("a", tmp_path / "up", only_if=OnlyIf.absent())
    assert await store.read("a") == (b"first", first)
    second = await store.upload("a", tmp_path / "up", only_if=OnlyIf.unchanged(first))
    assert await store.read("a") == (b"second", second)


async def test_a_file_that_is_not_there_is_named_and_no_retry_can_help(
    store: ObjectStore, tmp_path: Path
) -> None:
    with pytest.raises(ObjectStoreError, match=r"gone/index\.usearch") as refused:
        await store.upload("a", tmp_path / "gone" / "index.usearch")
    assert not refused.value.retryable
    assert await store.list_objects("") == []


async def test_a_download_replaces_the_file_that_was_there(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "down").write_bytes(b"what was there before, which is longer")
    await store.write("a", b"data")
    await store.download("a", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"data"


async def test_an_object_that_is_missing_leaves_the_folder_as_it_was(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "there").write_bytes(b"kept")
    for name in ("there", "new", "folder/new"):
        with pytest.raises(ObjectNotFound, match="no object a in "):
            await store.download("a", tmp_path / name)
    assert files_below(tmp_path) == {"there"}
    assert (tmp_path / "there").read_bytes() == b"kept"


async def test_a_download_appears_only_when_it_is_complete(
    store: ObjectStore, tmp_path: Path
) -> None:
    data = random.Random(2).randbytes(20 * 1024 * 1024)
    (tmp_path / "up").write_bytes(data)
    await store.upload("large", tmp_path / "up")
    down = tmp_path / "down"
    downloading = asyncio.ensure_future(store.download("large", down))
    sizes = set()
    while not downloading.done():
        if down.exists():
            sizes.add(down.stat().st_size)
        await asyncio.sleep(0)
    await downloading
    assert sizes <= {len(data)}
    assert down.read_bytes() == data


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
async def test_a_full_disk_can_be_retried_and_leaves_no_part_of_a_file(
    store: ObjectStore, tmp_path: Path
) -> None:
    await store.write("a", bytes(100_000))
    with pytest.MonkeyPatch.context() as patch:
        # Link the temporary name of the download to the device that is always full.
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
        (tmp_path / f".down.{uuid.UUID(int=7).hex}").symlink_to(FULL)
        with pytest.raises(ObjectStoreUnavailable) as failed:
            await store.download("a", tmp_path / "down")
    assert failed.value.retryable
    assert files_below(tmp_path) == set()
    await store.download("a", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == bytes(100_000)
