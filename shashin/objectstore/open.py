"""From a URI to the object store that it names."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import NamedTuple
from urllib.parse import urlsplit

from shashin.errors import UserError
from shashin.objectstore.protocol import ObjectStore


class Scheme(NamedTuple):
    """One kind of store, as URIs name it."""

    form: str
    """What such a URI looks like."""
    opener: str
    """``module:function`` of what opens it: from the URI's parts to the store, which asks nobody
    yet, or to None when the URI is not of this form. Imported only when such a store is opened,
    so that a process needs the libraries of its own store alone."""


SCHEMES = {
    "file": Scheme("file:///ABSOLUTE/FOLDER", "shashin.objectstore.file:open_folder"),
    "gs": Scheme("gs://BUCKET/FOLDER", "shashin.objectstore.gcs:open_bucket"),
}


def open_object_store(uri: str) -> ObjectStore:
    """Return the store that ``uri`` names, in one of the forms of ``SCHEMES``.

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
        raise UserError(f"object store {uri!r} is not known: use {known_forms()}")
    return store


def known_forms() -> str:
    """Return what a URI of a store can look like, for help and errors."""
    *others, last = (scheme.form for scheme in SCHEMES.values())
    return f"{', '.join(others)} or {last}"
