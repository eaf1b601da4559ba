"""The file of API keys: read as a whole, replaced as a whole, and readable by its owner alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from shashin.access.api_key import MAX_KEYS, KeyDocument, StoredKey, key_document
from shashin.errors import ApiKeyNotFound, UserError
from shashin.runtime.files import open_regular

MAX_FILE_BYTES = 1024 * 1024


class KeyFile:
    """A file of API keys that a command edits."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> KeyDocument:
        """Return the keys.

        Raises:
            UserError: if the file is missing, cannot be read, or is not one of keys.
        """
        return read_keys(self.path)

    def add(self, key: StoredKey) -> None:
        """Add a key; creates the file if necessary.

        Raises:
            UserError: if the file is full, or not one of keys.
            OSError: when it cannot be written; it is then as it was.
        """
        with self._locked():
            keys = self.read().keys if self.path.exists() else ()
            if len(keys) >= MAX_KEYS:
                raise UserError(
                    f"{self.path} has {len(keys)} keys; expected less than {MAX_KEYS}: remove revoked "
                    "and expired ones with `shashin keys prune`"
                )
            self._write(KeyDocument(keys=(*keys, key)))

    def revoke(self, key_id: str, at: datetime) -> StoredKey:
        """Note that a key is revoked, unless it is already; returns it.

        Raises:
            ApiKeyNotFound: if no key has this id.
            UserError: if the file is missing, or not one of keys.
            OSError: when it cannot be written; it is then as it was.
        """
        with self._locked():
            keys = {key.id: key for key in self.read().keys}
            if (key := keys.get(key_id)) is None:
                raise ApiKeyNotFound(
                    f"{self.path} has no key with the id {key_id!r}: `shashin keys ls` lists them"
                )
            if key.revoked is None:
                revoked = at.astimezone(UTC).replace(microsecond=0)
                keys[key_id] = key.model_copy(update={"revoked": revoked})
                self._write(KeyDocument(keys=tuple(keys.values())))
            return keys[key_id]

    def prune(self, now: datetime) -> list[StoredKey]:
        """Remove the keys that are revoked or expired; returns them.

        Raises:
            UserError: if the file is missing, or not one of keys.
            OSError: when it cannot be written; it is then as it was.
        """
        with self._locked():
            keys = self.read().keys
            removed = [key for key in keys if key.problem(now) is not None]
            if removed:
                self._write(KeyDocument(keys=tuple(key for key in keys if key not in removed)))
            return removed

    def _write(self, document: KeyDocument) -> None:
        data = document.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one command at a time edit the file: the lock is on its folder, since the file is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def read_keys(path: Path) -> KeyDocument:
    """Return the keys in a file.

    Raises:
        UserError: if it is missing, cannot be read, or is not one of keys.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{path} has more than {MAX_FILE_BYTES} bytes; expected a file of API keys")
    try:
        return key_document(data)
    except UserError as error:
        raise UserError(f"{path}: {error.message}") from None
