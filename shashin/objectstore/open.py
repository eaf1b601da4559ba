"""Opens the object store at a URI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pkgutil import resolve_name
from typing import NamedTuple
from urllib.parse import urlsplit

from shashin.errors import UserError
from shashin.objectstore.protocol import ObjectStore


class Scheme(NamedTuple):
    """The URI scheme of one kind of store."""

    form: str
    """The form of its URIs."""
    opener: str
    """``module:function`` of its opener: takes the split URI, and returns the store without any
    I/O, or None if the URI is not of this form. Imported only when such a store is opened, so that
    a process only needs the libraries of its own store."""


SCHEMES = {
    "file": Scheme("file:///ABSOLUTE/FOLDER", "shashin.objectstore.file:open_folder"),
    "gs": Scheme("gs://BUCKET/FOLDER", "shashin.objectstore.gcs:open_bucket"),
    "s3": Scheme("s3://BUCKET/FOLDER", "shashin.objectstore.s3:open_bucket"),
}


def open_object_store(uri: str) -> ObjectStore:
    """Return the store at ``uri``, in one of the forms of ``SCHEMES``.

    Raises:
        UserError: when no scheme has this form, or the scheme's library is not installed.
    """
    location = urlsplit(uri)
    scheme = SCHEMES.get(location.scheme)
    try:
        store: ObjectStore | None = resolve_name(scheme.opener)(location) if scheme else None
    except ModuleNotFoundError as error:
        raise UserError(
            f"object store {uri!r} needs the package {error.name}, which is not installed here"
        ) from error
    if store is None:
        raise UserError(f"object store {uri!r} is not a valid URI: use {known_forms()}")
    return store


@asynccontextmanager
async def opened_object_store(uri: str) -> AsyncIterator[ObjectStore]:
    """Open the store at ``uri``, and close it at the end; raises as ``open_object_store``."""
    store = open_object_store(uri)
    try:
        yield store
    finally:
        await store.close()


def known_forms() -> str:
    """Return the valid forms of a store's URI, for help and errors."""
    *others, last = (scheme.form for scheme in SCHEMES.values())
    return f"{', '.join(others)} or {last}"
