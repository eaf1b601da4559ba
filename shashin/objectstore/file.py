"""Objects as files in a folder: the object store for a single machine.

A file's modification time in nanoseconds is its version. Writers hold a lock, so that checking a
precondition and writing are atomic, and a new file's time is always later than the old one's. A
write replaces the file, so a reader that has it open continues to read the version it opened.

An object is there after a power cut once its write has returned: the file's data, its name and the
folders on the way to it are on the disk by then. A deletion may be undone by one.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import stat
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar
from urllib.parse import SplitResult, unquote

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.keys import check_key, check_prefix
from shashin.objectstore.protocol import (
    STREAM_CHUNK_BYTES,
    ObjectInfo,
    OnlyIf,
    OpenedObject,
    Version,
)

T = TypeVar("T")

_THREADS = 8
_SCRATCH = ".scratch"
_LOCK = ".lock"

_KERNEL_COPY_BYTES = 64 * 1024 * 1024
_NO_KERNEL_COPY = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV}
"""Between file systems, or on one that cannot."""

_NO_FOLDER_SYNC = {errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""On a file system that has no such call, such as some over a network."""


def open_folder(location: SplitResult) -> FileObjectStore | None:
    """Return the store of ``file:///ABSOLUTE/FOLDER``; None for a location of another form."""
    if location.netloc or not location.path.startswith("/"):
        return None
    return FileObjectStore(Path(unquote(location.path)))


class FileObjectStore:
    """An ObjectStore below ``root``, which is created if missing.

    A key cannot be the folder of another one: ``a`` and ``a/b`` cannot both exist.

    It has threads of its own, so that a folder on a file system that hangs keeps nothing else waiting.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")

    def __repr__(self) -> str:
        return f"FileObjectStore({self._root})"

    async def stat(self, key: str) -> ObjectInfo:
        """Return an object's size and version."""
        return await self._run(key, lambda: self._stat(key))

    async def read(self, key: str) -> tuple[bytes, Version]:
        """Return an object's bytes and version."""
        return await self._run(key, lambda: self._read(key))

    @asynccontextmanager
    async def opened(
        self, key: str, *, unless: Version | None = None
    ) -> AsyncIterator[OpenedObject | None]:
        """Open an object for reading, unless it has a version."""
        file = await self._run(key, lambda: self._open(key))
        try:
            found = os.fstat(file.fileno())
            version = _version(found)
            if version == unless:
                yield None
                return
            async with aclosing(self._chunks(key, file)) as chunks:
                yield OpenedObject(ObjectInfo(key, found.st_size, version), chunks)
        finally:
            await self._run(key, file.close)

    async def _chunks(self, key: str, file: BinaryIO) -> AsyncGenerator[bytes]:
        while chunk := await self._run(key, lambda: file.read(STREAM_CHUNK_BYTES)):
            yield chunk

    async def stream(self, key: str) -> AsyncGenerator[bytes]:
        """Return the bytes of the current version, in chunks."""
        async with self.opened(key) as found:
            assert found is not None
            async for chunk in found.chunks:
                yield chunk

    async def download(self, key: str, path: Path) -> None:
        """Copy an object to ``path``."""
        await self._run(key, lambda: self._download(key, path))

    async def write(self, key: str, data: bytes, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object, if the condition holds."""

        def fill(scratch: Path) -> None:
            scratch.write_bytes(data)

        return await self._run(key, lambda: self._put(key, fill, only_if))

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object from a file, if the condition holds."""

        def fill(scratch: Path) -> None:
            if not path.is_file():
                raise ObjectStoreError(f"there is no file {path} to upload as object {key}")
            shutil.copyfile(path, scratch)

        return await self._run(key, lambda: self._put(key, fill, only_if))

    async def delete(self, key: str, *, only_if: OnlyIf | None = None) -> None:
        """Delete an object, if the condition holds."""
        await self._run(key, lambda: self._delete(key, only_if))

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below ``prefix``, sorted by key."""
        return await self._run(prefix, lambda: self._list(prefix))

    async def close(self) -> None:
        """End the threads; no file stays open between operations."""
        self._threads.shutdown(wait=False)

    async def _run(self, key: str, do: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, do)
        except (
            FileExistsError,
            IsADirectoryError,
            NotADirectoryError,
            PermissionError,
        ) as error:
            raise ObjectStoreError(
                f"object {key} in {self._root}: {error.strerror} "
                f"({error.filename2 or error.filename})"
            ) from error
        except OSError as error:
            why = "its disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise ObjectStoreUnavailable(f"object {key} in {self._root}: {why}") from error

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*check_key(key))

    def _stat(self, key: str) -> ObjectInfo:
        found = _stat_of(self._path(key))
        if found is None:
            raise self._not_found(key)
        return ObjectInfo(key, found.st_size, _version(found))

    def _open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise self._not_found(key) from error

    def _not_found(self, key: str) -> ObjectNotFound:
        return ObjectNotFound(f"no object {key} in {self._root}")

    def _read(self, key: str) -> tuple[bytes, Version]:
        with self._open(key) as file:
            return file.read(), _version(os.fstat(file.fileno()))

    def _download(self, key: str, path: Path) -> None:
        with self._open(key) as source:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            try:
                with scratch.open("wb") as target:
                    _copy(source, target)
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)

    def _put(self, key: str, fill: Callable[[Path], None], only_if: OnlyIf | None) -> Version:
        path = self._path(key)
        scratch_folder = self._root / _SCRATCH
        _make_folder(scratch_folder)
        scratch = scratch_folder / uuid.uuid4().hex
        try:
            fill(scratch)
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            with self._locked():
                found = _stat_of(path)
                _check_precondition(key, found, only_if)
                # The file system's own timestamps are too coarse: an object that is deleted and
                # rewritten within a few milliseconds would get its old version again.
                now = max(time.time_ns(), found.st_mtime_ns + 1 if found else 0)
                os.utime(scratch, ns=(now, now))
                version = _version(scratch.stat())
                _make_folder(path.parent)
                scratch.replace(path)
                _sync_folder(path.parent)
            return version
        finally:
            scratch.unlink(missing_ok=True)

    def _delete(self, key: str, only_if: OnlyIf | None) -> None:
        path = self._path(key)
        # Without a root there is no lock to take, and no object to delete.
        with self._locked() if self._root.is_dir() else nullcontext():
            found = _stat_of(path)
            _check_precondition(key, found, only_if)
            if found is None:
                return
            path.unlink()
            # An empty folder would block an object with its name.
            for folder in path.relative_to(self._root).parents[:-1]:
                try:
                    (self._root / folder).rmdir()
                except OSError:
                    return

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._root / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        folder = self._root.joinpath(*PurePosixPath(prefix.rpartition("/")[0]).parts)
        found = []
        for parent, folders, names in os.walk(folder, onerror=_raise_unless_missing):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(self._root).as_posix()
                if key.startswith(prefix) and not name.startswith("."):
                    try:
                        file = path.stat()
                    except FileNotFoundError:
                        continue
                    found.append(ObjectInfo(key, file.st_size, _version(file)))
        return sorted(found)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, so that a power cut leaves them there."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync_folder(new.parent)


def _sync_folder(folder: Path) -> None:
    """Write to the disk which files a folder has."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(opened)


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copy an open file, in the kernel where it can, as ``cp`` does."""
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), _KERNEL_COPY_BYTES):
            pass
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_KERNEL_COPY:
            raise
        # Goes on where the kernel stopped.
        shutil.copyfileobj(source, target, STREAM_CHUNK_BYTES)


def _stat_of(path: Path) -> os.stat_result | None:
    """Return the stat of a file; None if it does not exist or is not a regular file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _version(file: os.stat_result) -> Version:
    return Version(str(file.st_mtime_ns))


def _check_precondition(key: str, found: os.stat_result | None, only_if: OnlyIf | None) -> None:
    version = _version(found) if found else None
    if only_if is not None and not only_if.holds(version):
        actual = "does not exist" if version is None else f"has version {version}"
        raise PreconditionFailed(f"object {key} {actual}, expected {only_if}: read it again")


def _raise_unless_missing(error: OSError) -> None:
    # An unreadable folder must not look like an empty one.
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
