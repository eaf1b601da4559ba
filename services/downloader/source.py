"""Where photos come from: one small Protocol, one adapter a URI scheme.

The adapters that run are named by scheme in the service's ``__main__``.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from shashin.errors import (
    PhotoEmpty,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
)


class PhotoSource(Protocol):
    """Reads the originals of one URI scheme."""

    async def fetch(self, uri: str) -> bytes:
        """Return the bytes at a URI.

        Raises:
            PhotoMissing: when nothing is there.
            PhotoForbidden: when it may not be read.
            PhotoTooLarge: when it has more bytes than allowed.
            PhotoUnavailable: when the source does not answer: a retry can help.
        """
        ...


class FileSource:
    """Reads ``file://`` photos that lie, links resolved, in one of the allowed folders."""

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
            path = Path(unquote(parts.path)).resolve(strict=True)
            if not any(path.is_relative_to(root.resolve()) for root in self._roots):
                raise PhotoForbidden(
                    f"{uri} lies outside of the folders that SHASHIN_PHOTO_ROOTS names"
                )
            return self._read_bounded(path, uri)
        except (FileNotFoundError, NotADirectoryError, RuntimeError, ValueError):
            # A loop of links is a RuntimeError before Python 3.13, a NUL in a path a ValueError.
            raise PhotoMissing(f"there is no file at {uri}") from None
        except IsADirectoryError:
            raise PhotoMissing(f"{uri} is a folder, not a photo") from None
        except PermissionError:
            raise PhotoForbidden(f"{uri} may not be read by this process") from None
        except OSError as error:
            if error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:
                raise PhotoMissing(f"there is no file at {uri}") from None
            raise PhotoUnavailable(f"{uri} cannot be read for now: {error.strerror}") from error

    def _read_bounded(self, path: Path, uri: str) -> bytes:
        if not path.is_file() and not path.is_dir():
            raise PhotoForbidden(f"{uri} is neither a file nor a folder")  # a pipe would block
        with path.open("rb") as file:
            data = file.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise PhotoTooLarge(f"{uri} has more than {self._max_bytes} bytes")
        if not data:
            raise PhotoEmpty(f"the file at {uri} has no bytes: upload it again")
        return data


class Sources:
    """The sources by URI scheme."""

    def __init__(self, by_scheme: Mapping[str, PhotoSource]) -> None:
        self._by_scheme = by_scheme

    async def fetch(self, uri: str) -> bytes:
        """Return the bytes at a URI of any known scheme.

        Raises:
            PhotoForbidden: when no source reads such URIs.
        """
        try:
            scheme = urlsplit(uri).scheme
        except ValueError:
            scheme = ""
        source = self._by_scheme.get(scheme)
        if source is None:
            known = ", ".join(f"{name}://" for name in sorted(self._by_scheme))
            raise PhotoForbidden(f"{uri!r} is not of a kind that is read here: expected {known}")
        return await source.fetch(uri)
