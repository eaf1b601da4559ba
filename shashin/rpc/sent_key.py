"""The API key that a client sends, from a file that may be replaced."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from shashin.errors import UserError
from shashin.runtime.watched_files import WatchedFiles


class SentKey:
    """The API key to send, as it is now."""

    def __init__(self, key: str, file: Path | None, *, named: str) -> None:
        """Use a key, or the one in a file; ``named`` is what errors call the file.

        Raises:
            UserError: if the file cannot be read, or has no key.
        """
        self._key = key
        self._file = file
        self._named = named
        self._watched = WatchedFiles([file] if file is not None else [])
        self.given = bool(key) or file is not None
        if file is not None:
            self._watched.changed()
            self._key = self._read(file)

    def current(self) -> str:
        """Return the key; the one of before while its file cannot be read."""
        if self._file is not None and self._watched.changed():
            # If it is being replaced, it is read once it is there.
            with suppress(UserError):
                self._key = self._read(self._file)
        return self._key

    def _read(self, path: Path) -> str:
        key = (content_of(self._named, path) or b"").decode("ascii", "replace").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise UserError(f"{self._named}={str(path)!r}: expected a file with an API key")
        return key


def content_of(named: str, path: Path | None) -> bytes | None:
    """Return the content of a file, of which errors speak as ``named``; None if none is given.

    Raises:
        UserError: if it cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{named}={str(path)!r}: {(error.strerror or str(error)).lower()}"
        ) from None
