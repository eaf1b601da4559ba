"""Photo sources: a Protocol with one adapter per URI scheme.

The service's ``__main__`` registers the adapters by scheme.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from shashin.codecs.listing_rules import uri_form_problem
from shashin.errors import (
    PhotoEmpty,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
)
from shashin.runtime.files import NotARegularFile, open_regular, path_of_uri


class PhotoSource(Protocol):
    """Reads the originals of one URI scheme."""

    async def fetch(self, uri: str) -> bytes:
        """Return the bytes at a URI.

        Raises:
            PhotoMissing: when it does not exist.
            PhotoForbidden: when it is not allowed to be read.
            PhotoEmpty: when it has no bytes.
            PhotoTooLarge: when it is larger than allowed.
            PhotoUnavailable: when the source does not respond; a retry may help.
        """
        ...


class FileSource:
    """Reads ``file://`` photos in the allowed folders, after resolving symlinks."""

    def __init__(self, roots: Sequence[Path], *, max_bytes: int) -> None:
        self._roots = roots
        self._max_bytes = max_bytes

    async def fetch(self, uri: str) -> bytes:
        """Return a file's bytes."""
        return await asyncio.to_thread(self._read, uri)

    def _read(self, uri: str) -> bytes:
        parts = urlsplit(uri)
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise PhotoForbidden(f"{uri} is not on this machine: expected file:///ABSOLUTE/PATH")
        try:
            path = path_of_uri(uri).resolve(strict=True)
            if not any(path.is_relative_to(root.resolve()) for root in self._roots):
                raise PhotoForbidden(f"{uri} is outside the folders in SHASHIN_PHOTO_ROOTS")
            return self._read_bounded(path, uri)
        except (FileNotFoundError, NotADirectoryError, RuntimeError, ValueError):
            # A symlink loop is a RuntimeError before Python 3.13, a NUL in a path a ValueError.
            raise PhotoMissing(f"there is no file at {uri}") from None
        except IsADirectoryError:
            raise PhotoMissing(f"{uri} is a folder, not a photo") from None
        except NotARegularFile:
            raise PhotoForbidden(f"{uri} is not a regular file") from None
        except PermissionError:
            raise PhotoForbidden(f"{uri} is not readable by this process") from None
        except OSError as error:
            if error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
                raise PhotoMissing(f"there is no file at {uri}") from None
            raise PhotoUnavailable(
                f"{uri} cannot be read at the moment: {error.strerror}"
            ) from error

    def _read_bounded(self, path: Path, uri: str) -> bytes:
        with open_regular(path) as file:
            data = file.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise PhotoTooLarge(f"{uri} is larger than {self._max_bytes} bytes")
        if not data:
            raise PhotoEmpty(f"the file at {uri} is empty: upload it again")
        return data


class Sources:
    """Dispatches to a source by URI scheme."""

    def __init__(self, by_scheme: Mapping[str, PhotoSource]) -> None:
        self._by_scheme = by_scheme

    async def fetch(self, uri: str) -> bytes:
        """Return the bytes at a URI of any supported scheme.

        Raises:
            PhotoForbidden: when the scheme is not supported.
        """
        known = ", ".join(f"{name}://" for name in sorted(self._by_scheme))
        if problem := uri_form_problem(uri):
            raise PhotoForbidden(f"{uri!r} {problem}; this service reads {known}")
        source = self._by_scheme.get(urlsplit(uri).scheme)
        if source is None:
            raise PhotoForbidden(f"{uri!r} has an unsupported scheme: expected {known}")
        return await source.fetch(uri)
