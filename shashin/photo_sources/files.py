"""Photos in local folders: ``file:///ABSOLUTE/PATH``."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from urllib.parse import urlsplit

from shashin.errors import (
    PhotoEmpty,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
    ShashinError,
)
from shashin.originals import SourceVersion
from shashin.photo_sources.byte_budget import Lease
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.source import SourcePhoto
from shashin.runtime.files import NotARegularFile, open_regular, path_of_uri


class FileSource:
    """Reads ``file://`` photos in the allowed folders, after resolving symlinks."""

    def __init__(self, roots: Sequence[Path], *, max_bytes: int, limits: RequestLimits) -> None:
        self._roots = roots
        self._max_bytes = max_bytes
        self._limits = limits

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto | None:
        """Return a file's bytes; its version is its inode, size and time of modification."""
        async with self._limits.request("this machine"):
            file = await asyncio.to_thread(self._open, uri)
            try:
                found = os.fstat(file.fileno())
                version = SourceVersion(etag=f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}")
                if version == known:
                    return None
                if found.st_size > self._max_bytes:
                    raise PhotoTooLarge(f"{uri} is larger than {self._max_bytes} bytes")
                await lease.hold(found.st_size)
                data = await asyncio.to_thread(self._read, file, found.st_size, uri)
            finally:
                await asyncio.to_thread(file.close)
        return SourcePhoto(data, version)

    def _open(self, uri: str) -> BufferedReader:
        parts = urlsplit(uri)
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise PhotoForbidden(f"{uri} is not on this machine: expected file:///ABSOLUTE/PATH")
        try:
            path = path_of_uri(uri).resolve(strict=True)
            if not any(path.is_relative_to(root.resolve()) for root in self._roots):
                raise PhotoForbidden(f"{uri} is outside the folders in SHASHIN_PHOTO_ROOTS")
            return open_regular(path)
        except (RuntimeError, ValueError):
            # A symlink loop is a RuntimeError before Python 3.13, a NUL in a path a ValueError.
            raise PhotoMissing(f"there is no file at {uri}") from None
        except OSError as error:
            raise _named(error, uri) from error

    def _read(self, file: BufferedReader, size: int, uri: str) -> bytes:
        try:
            data = file.read(size + 1)
        except OSError as error:
            raise _named(error, uri) from error
        if len(data) != size:
            raise PhotoUnavailable(f"{uri} is being written: it had {size} bytes a moment ago")
        if not data:
            raise PhotoEmpty(f"the file at {uri} is empty: upload it again")
        return data


def _named(error: OSError, uri: str) -> ShashinError:
    if isinstance(error, IsADirectoryError):
        return PhotoMissing(f"{uri} is a folder, not a photo")
    if isinstance(error, NotARegularFile):
        return PhotoForbidden(f"{uri} is not a regular file")
    if isinstance(error, PermissionError):
        return PhotoForbidden(f"{uri} is not readable by this process")
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
        return PhotoMissing(f"there is no file at {uri}")
    return PhotoUnavailable(f"{uri} cannot be read at the moment: {error.strerror}")
