"""Descriptors of content, and the media types that registries know it by. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from shashin.errors import UnusableImage
from shashin.oci.references import is_digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""The least that registries have to accept, and the most that some do (distribution-spec)."""


@dataclass(frozen=True)
class Descriptor:
    """Content by its digest."""

    media_type: str
    digest: str
    size: int
    """Bytes."""

    def document(self) -> dict[str, Any]:
        """Return it as it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Blob(Protocol):
    """Bytes to upload, which can be read again from their start."""

    @property
    def digest(self) -> str:
        """The digest of all bytes."""
        ...

    @property
    def size(self) -> int:
        """Number of bytes."""
        ...

    def chunks(self) -> AsyncGenerator[bytes]:
        """Return all bytes, in chunks of at most a few MiB."""
        ...


@dataclass(frozen=True)
class SmallBlob:
    """A blob in memory, such as an image's configuration."""

    data: bytes
    digest: str

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Return all bytes at once."""
        if self.data:
            yield self.data


def read_descriptor(document: object, where: str) -> Descriptor:
    """Read a descriptor of a manifest.

    Raises:
        UnusableImage: when it is none, or has a digest of another kind than SHA-256.
    """
    if isinstance(document, dict):
        media_type = document.get("mediaType")
        digest, size = document.get("digest"), document.get("size")
        if (
            isinstance(media_type, str)
            and isinstance(digest, str)
            and is_digest(digest)
            and isinstance(size, int)
            and size >= 0
        ):
            return Descriptor(media_type, digest, size)
    raise UnusableImage(
        f"{where} is {str(document)[:200]!r}: expected a descriptor with mediaType, size and a SHA-256 "
        "digest"
    )
