"""The Protocol of photo sources, and their dispatch by URI scheme; ``open.py`` registers the adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from shashin.codecs.listing_rules import uri_form_problem
from shashin.errors import PhotoForbidden
from shashin.originals import SourceVersion
from shashin.photo_sources.byte_budget import Lease


@dataclass(frozen=True)
class SourcePhoto:
    """The bytes of a photo as its source has them."""

    data: bytes
    version: SourceVersion


class PhotoSource(Protocol):
    """Reads the originals of one URI scheme."""

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto | None:
        """Return the photo at a URI; None if the source still has the version that is ``known``.

        ``lease`` has to hold the photo's bytes before they are read: its size, or the maximum if
        the source does not tell the size.

        Raises:
            PhotoMissing: when it does not exist.
            PhotoForbidden: when it is not allowed to be read.
            PhotoEmpty: when it has no bytes.
            PhotoTooLarge: when it is larger than allowed.
            PhotoUnavailable: when the source does not respond; a retry may help.
        """
        ...


class Sources:
    """Dispatches to a source by URI scheme."""

    def __init__(self, by_scheme: Mapping[str, PhotoSource]) -> None:
        self._by_scheme = by_scheme

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto | None:
        """Return the photo at a URI of any supported scheme.

        Raises:
            PhotoForbidden: when the scheme is not supported.
        """
        expected = ", ".join(f"{name}://" for name in sorted(self._by_scheme))
        if problem := uri_form_problem(uri):
            raise PhotoForbidden(f"{uri!r} {problem}; this service reads {expected}")
        source = self._by_scheme.get(urlsplit(uri).scheme)
        if source is None:
            raise PhotoForbidden(f"{uri!r} has an unsupported scheme: expected {expected}")
        return await source.fetch(uri, lease, known)
