"""Failure modes of the file store: its disk, lock and folders."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import uuid
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from shashin.errors import ObjectNotFound, ObjectStoreError, ObjectStoreUnavailable
from shashin.objectstore.file import FileObjectStore
from shashin.objectstore.protocol import OnlyIf

ROOT = Path(__file__).parents[3]
FULL = Path("/dev/full")

COUNT = """
import asyncio, sys
from pathlib import Path
from shashin.errors import PreconditionFailed
from shashin.objectstore.file import FileObjectStore
from shashin.objectstore.protocol import OnlyIf

async def count(store, times):
    while times:
        data, version = await store.read("counter")
        try:
            more = str(int(data) + 1).encode()
            await store.write("counter", more, only_if=OnlyIf.unchanged(version))
        except PreconditionFailed:
            continue
        times -= 1

asyncio.run(count(FileObjectStore(Path(sys.argv[1])), int(sys.argv[2])))
"""

HOLD_THE_LOCK = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("holds it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FileObjectStore:
    return FileObjectStore(root)


async def test_processes_that_write_concurrently_lose_no_update(
    store: FileObjectStore, root: Path
) -> None:
    await store.write("counter", b"0")
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", COUNT, root, "40", cwd=ROOT)
        for _ in range(3)
    ]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    assert (await store.read("counter"))[0] == b"120"


async def test_a_process_that_is_killed_leaves_the_lock_free(
    store: FileObjectStore, root: Path
) -> None:
    await store.write("a", b"before")
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", HOLD_THE_LOCK, root / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        await asyncio.to_thread(holder.stdout.readline)
        writing = asyncio.ensure_future(store.write("a", b"after"))
        assert (await store.read("a"))[0] == b"before", "readers need no lock"
        assert not writing.done()
        holder.kill()
    await writing
    assert (await store.read("a"))[0] == b"after"


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
async def test_a_full_disk_can_be_retried_and_leaves_what_was_there(
    store: FileObjectStore, root: Path
) -> None:
    version = await store.write("a", b"before")
    with pytest.MonkeyPatch.context() as patch:
        # Link the temporary name of the write to the device that is always full.
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
        (root / ".scratch" / uuid.UUID(int=7).hex).symlink_to(FULL)
        with pytest.raises(ObjectStoreUnavailable, match=r"object a .* disk is full") as failed:
            await store.write("a", bytes(100_000))
    assert failed.value.retryable
    assert await store.read("a") == (b"before", version)
    assert list((root / ".scratch").iterdir()) == []
    assert await store.write("a", bytes(100_000), only_if=OnlyIf.unchanged(version))


async def test_leftovers_of_a_killed_writer_are_not_an_object(
    store: FileObjectStore, root: Path
) -> None:
    await store.write("a", b"data")
    (root / ".scratch" / "half").write_bytes(b"da")
    assert [info.key for info in await store.list_objects("")] == ["a"]


async def test_a_file_is_always_newer_than_the_one_it_replaces_even_if_the_clock_was_set_back(
    store: FileObjectStore, root: Path
) -> None:
    await store.write("a", b"written")
    ahead = (root / "a").stat().st_mtime_ns + 3600 * 10**9
    os.utime(root / "a", ns=(ahead, ahead))
    _, first = await store.read("a")
    second = await store.write("a", b"written later", only_if=OnlyIf.unchanged(first))
    assert second != first
    assert (root / "a").stat().st_mtime_ns > ahead
    assert await store.read("a") == (b"written later", second)


class Synced:
    """What was on the disk each time that something was written to it for good."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._names: list[tuple[os.stat_result, set[str]]] = []
        self._sync = os.fsync
        patch.setattr(os, "fsync", self)

    def __call__(self, opened: int) -> None:
        found = os.fstat(opened)
        names = set(os.listdir(opened)) if stat.S_ISDIR(found.st_mode) else set()
        self._names.append((found, names))
        self._sync(opened)

    def has_data_of(self, path: Path) -> bool:
        return any(os.path.samestat(found, path.stat()) for found, _ in self._names)

    def has_name_of(self, path: Path) -> bool:
        folder = path.parent.stat()
        return any(os.path.samestat(found, folder) and path.name in n for found, n in self._names)


@pytest.mark.parametrize("how", ["write", "upload"])
async def test_what_was_written_survives_a_power_cut_with_the_folders_that_lead_to_it(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new" / "store"
    store = FileObjectStore(root)
    (tmp_path / "file").write_bytes(b"data")

    async def put(key: str) -> None:
        if how == "write":
            await store.write(key, b"data", only_if=OnlyIf.absent())
        else:
            await store.upload(key, tmp_path / "file", only_if=OnlyIf.absent())

    for key in ("a/b/c", "a/b/d"):
        synced = Synced(monkeypatch)
        await put(key)
        path = root / key
        assert synced.has_data_of(path)
        assert synced.has_name_of(path)
        if key == "a/b/c":
            for folder in (path.parent, path.parent.parent, root, root.parent):
                assert synced.has_name_of(folder), f"the name of {folder} is on the disk"


async def test_a_file_system_that_cannot_sync_folders_is_used_as_it_is(
    store: FileObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse_folders(opened: int) -> None:
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(opened)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    await store.write("a/b", b"data")
    assert (await store.read("a/b"))[0] == b"data"


async def test_every_write_gets_its_own_version_even_for_the_same_bytes(
    store: FileObjectStore,
) -> None:
    versions = [await store.write("a", b"same bytes") for _ in range(50)]
    assert len(set(versions)) == len(versions)


async def test_a_key_cannot_be_anothers_folder_and_no_retry_can_help(
    store: FileObjectStore,
) -> None:
    await store.write("a/b", b"data")
    for key, condition in (
        ("a", None),
        ("a", OnlyIf.absent()),
        ("a/b/c", None),
        ("a/b/c/d", OnlyIf.absent()),
    ):
        with pytest.raises(ObjectStoreError, match=f"object {key} ") as refused:
            await store.write(key, b"data", only_if=condition)
        assert type(refused.value) is ObjectStoreError
        assert not refused.value.retryable
        for look in (store.read, store.stat):
            with pytest.raises(ObjectNotFound):
                await look(key)
        await store.delete(key)
    assert [info.key for info in await store.list_objects("")] == ["a/b"]


async def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"in the way")
    with pytest.raises(ObjectStoreError, match=str(tmp_path / "store")) as refused:
        await FileObjectStore(tmp_path / "store").write("a", b"data")
    assert not refused.value.retryable


async def test_a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_listing(
    store: FileObjectStore, root: Path
) -> None:
    # If a listing silently omitted shards, they would look unsealed.
    await store.write("a/b", b"data")
    (root / "loop").symlink_to("loop")
    with pytest.raises(ObjectStoreUnavailable):
        await store.list_objects("loop/")


async def test_a_stream_that_is_left_early_closes_its_file(
    store: FileObjectStore, root: Path
) -> None:
    await store.write("a", bytes(4 * 1024 * 1024))

    def opened() -> list[str]:
        return [file.path for file in psutil.Process().open_files() if file.path == str(root / "a")]

    async with aclosing(store.stream("a")) as stream:
        await anext(stream)
        assert opened()
    assert opened() == []


async def test_a_stream_keeps_reading_the_version_it_started_with(store: FileObjectStore) -> None:
    await store.write("a", b"first" * 1024 * 1024)
    async with aclosing(store.stream("a")) as stream:
        chunks = [await anext(stream)]
        await store.write("a", b"other")
        chunks += [chunk async for chunk in stream]
    assert b"".join(chunks) == b"first" * 1024 * 1024
