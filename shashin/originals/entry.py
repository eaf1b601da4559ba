"""What the cache knows about the photo at a URI. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT = "shashin.original/1"
_SHA256 = r"^[0-9a-f]{64}$"


@dataclass(frozen=True)
class SourceVersion:
    """What a source calls the content that it has at a URI; opaque, for conditional requests."""

    etag: str = ""
    """An ETag, a generation, or whatever else changes with the content; empty if unknown."""
    last_modified: str = ""
    """The ``Last-Modified`` header; empty if unknown."""


@dataclass(frozen=True)
class CacheEntry:
    """The photo that a URI had when its source was last asked."""

    uri: str
    sha256: str
    """Of the content, in hexadecimal digits."""
    size: int
    """Bytes."""
    version: SourceVersion
    fetched_at: float
    """When the source sent or last confirmed it; seconds since 1970."""

    def encoded(self) -> bytes:
        """Return the entry as it is stored."""
        document = _Document(
            format=FORMAT,
            uri=self.uri,
            sha256=self.sha256,
            size=self.size,
            etag=self.version.etag,
            last_modified=self.version.last_modified,
            fetched_at=self.fetched_at,
        )
        return document.model_dump_json().encode()


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    format: str = Field(pattern=f"^{re.escape(FORMAT)}$")
    uri: str
    sha256: str = Field(pattern=_SHA256)
    size: int = Field(ge=1)
    etag: str = ""
    last_modified: str = ""
    fetched_at: float = Field(allow_inf_nan=False)


def parse_entry(data: bytes, uri: str | None = None) -> CacheEntry | None:
    """Return a stored entry; None if it is damaged, of another format, or not of ``uri``."""
    try:
        found = _Document.model_validate_json(data)
    except ValidationError:
        return None
    if uri not in {None, found.uri}:
        return None
    return CacheEntry(
        found.uri,
        found.sha256,
        found.size,
        SourceVersion(found.etag, found.last_modified),
        found.fetched_at,
    )
