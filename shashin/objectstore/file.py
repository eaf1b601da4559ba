"""Objects as files below a folder: the object store of one machine.

A file's modification time in nanoseconds is its generation. Writers take a lock, so that a
condition and its write are one step, and a new file's time is always later than the old one's.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.keys import check_key, check_prefix
from shashin.objectstore.protocol import ObjectInfo

T = TypeVar("T")

_SCRATCH = ".scratch"
_LOCK = ".lock"


class FileObjectStore:
    """An ObjectStore below ``root``, which is created when missing.

    A key cannot be the folder of another one here: ``a`` cannot lie beside ``a/b``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"FileObjectStore({self._root})"

    async def read(self, key: str) -> tuple[bytes, int]:
        """Return an object's bytes and generation."""
        return await self._run(key, lambda: self._read(key))

    async def download(self, key: str, path: Path) -> None:
        """Copy an object to ``path``."""
        await self._run(key, lambda: self._download(key, path))

    async def write(self, key: str, data: bytes, *, if_generation_match: int | None = None) -> int:
        """Write an object, if the condition holds."""

        def fill(scratch: Path) -> None:
            scratch.write_bytes(data)

        return await self._run(key, lambda: self._put(key, fill, if_generation_match))

    async def upload(self, key: str, path: Path, *, if_generation_match: int | None = None) -> int:
        """Write an object from a file, if the condition holds."""

        def fill(scratch: Path) -> None:
            if not path.is_file():
                raise ObjectStoreError(f"there is no file {path} to be object {key}")
            shutil.copyfile(path, scratch)

        return await self._run(key, lambda: self._put(key, fill, if_generation_match))

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below ``prefix``, sorted by key."""
        return await self._run(prefix, lambda: self._list(prefix))

    async def _run(self, key: str, do: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(do)
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

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise ObjectNotFound(f"no object {key} in {self._root}")
        return path

    def _read(self, key: str) -> tuple[bytes, int]:
        with self._existing(key).open("rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime_ns

    def _download(self, key: str, path: Path) -> None:
        source = self._existing(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            shutil.copyfile(source, scratch)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def _put(self, key: str, fill: Callable[[Path], None], if_generation_match: int | None) -> int:
        path = self._path(key)
        scratch_folder = self._root / _SCRATCH
        scratch_folder.mkdir(parents=True, exist_ok=True)
        scratch = scratch_folder / uuid.uuid4().hex
        try:
            fill(scratch)
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            with self._locked():
                now = path.stat().st_mtime_ns if path.is_file() else 0
                if if_generation_match is not None and if_generation_match != now:
                    raise PreconditionFailed(
                        f"object {key} has generation {now}, not {if_generation_match}"
                    )
                written = scratch.stat()
                generation = max(written.st_mtime_ns, now + 1)
                os.utime(scratch, ns=(written.st_atime_ns, generation))
                path.parent.mkdir(parents=True, exist_ok=True)
                scratch.replace(path)
            return generation
        finally:
            scratch.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._root / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        folder = self._root.joinpath(*PurePosixPath(prefix.rpartition("/")[0]).parts)
        found = []
        for parent, folders, names in os.walk(folder, onerror=_unless_it_is_not_there):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(self._root).as_posix()
                if key.startswith(prefix) and not name.startswith("."):
                    try:
                        stat = path.stat()
                    except FileNotFoundError:
                        continue
                    found.append(ObjectInfo(key, stat.st_size, stat.st_mtime_ns))
        return sorted(found)


def _unless_it_is_not_there(error: OSError) -> None:
    # A folder that cannot be read must not look like one in which nothing lies.
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
