"""From a URI to the object store that it names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from shashin.errors import UserError
from shashin.objectstore.file import FileObjectStore
from shashin.objectstore.protocol import ObjectStore


def open_object_store(uri: str) -> ObjectStore:
    """Return the store that ``uri`` names: ``file:///ABSOLUTE/FOLDER`` or ``gs://BUCKET/FOLDER``.

    Raises:
        UserError: when the URI's scheme is not known, or its path is not absolute.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FileObjectStore(Path(unquote(parts.path)))
    if parts.scheme == "gs" and parts.netloc:
        # Imported here, so that one machine's system runs without the cloud's library.
        from shashin.objectstore.gcs import GcsObjectStore

        return GcsObjectStore(parts.netloc, unquote(parts.path))
    raise UserError(
        f"object store {uri!r} is not known: use file:///ABSOLUTE/FOLDER or gs://BUCKET/FOLDER"
    )
