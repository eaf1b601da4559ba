"""A client of registries: manifests and blobs, verified in both directions, streamed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self

from shashin.errors import CorruptBlob, ImageNotFound, RegistryError, RegistryUnavailable
from shashin.oci.access import RegistryAccess
from shashin.oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Blob,
    Descriptor,
)
from shashin.oci.references import Reference, Repository, digest_of, is_digest
from shashin.oci.session import RETRY_SECONDS, RegistrySession, Scope
from shashin.oci.upload import BlobUpload

_ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
_CHUNK = 1024 * 1024
_TAGS_PER_PAGE = 1000
_MAX_TAGS_BYTES = 16 * 1024 * 1024
_GOT = frozenset({HTTPStatus.OK})


@dataclass(frozen=True)
class FetchedManifest:
    """A manifest or an index as the registry has it."""

    data: bytes
    media_type: str
    digest: str


class RegistryClient:
    """Any registries, for one process; an async context manager.

    All operations raise RegistryUnavailable when the registry does not respond for ten seconds,
    RegistryFull, RegistryLoginRefused, RegistryDenied and ImageNotFound as they are named, and
    RegistryError for any other refusal. Each message names registry and repository.
    """

    def __init__(self, access: RegistryAccess, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._session = RegistrySession(access, retry_seconds=retry_seconds)

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.__aexit__(error_type, error, traceback)

    async def manifest(self, reference: Reference) -> FetchedManifest:
        """Return the manifest, or the index, of an image.

        Raises:
            CorruptBlob: when it does not have the digest that was asked for, or that the registry
                gives, or when it is larger than 4 MiB.
        """
        return await self._session.retried(lambda: self._manifest(reference))

    async def _manifest(self, reference: Reference) -> FetchedManifest:
        repository = reference.repository
        url = self._session.url(repository, f"manifests/{reference.target}")
        async with self._session.respond(
            "GET", url, Scope(repository), expected=_GOT, headers={"Accept": _ACCEPT}
        ) as response:
            data = b""
            async for chunk in response.content.iter_chunked(_CHUNK):
                data += chunk
                if len(data) > MAX_MANIFEST_BYTES:
                    raise CorruptBlob(
                        f"the manifest of {reference} is larger than {MAX_MANIFEST_BYTES} bytes: it "
                        "is none of an image"
                    )
            digest = digest_of(data)
            stated = response.headers.get("Docker-Content-Digest", digest)
            for wanted in (reference.digest, stated if is_digest(stated) else None):
                if wanted is not None and wanted != digest:
                    raise CorruptBlob(
                        f"the manifest of {reference} has digest {digest} instead of {wanted}: the "
                        "registry or a proxy on the way to it damages content; push the image again"
                    )
            return FetchedManifest(data, response.content_type, digest)

    async def put_manifest(
        self, repository: Repository, data: bytes, media_type: str, *, tag: str | None = None
    ) -> str:
        """Write a manifest, whose blobs have to be there, and tag it; returns its digest.

        Raises:
            CorruptBlob: when the registry stored other bytes.
        """
        digest = digest_of(data)
        url = self._session.url(repository, f"manifests/{tag or digest}")

        async def put() -> str:
            async with self._session.respond(
                "PUT",
                url,
                Scope(repository, "pull,push"),
                expected=frozenset({HTTPStatus.CREATED}),
                headers={"Content-Type": media_type},
                body=data,
            ) as response:
                return response.headers.get("Docker-Content-Digest", digest)

        stored = await self._session.retried(put)
        if stored != digest:
            raise CorruptBlob(
                f"the registry of {repository} stored a manifest as {stored} instead of {digest}: it "
                "changes what it is given; use one that does not convert manifests"
            )
        return digest

    async def delete_manifest(self, repository: Repository, digest: str) -> bool:
        """Delete an image with all of its tags; returns False if there was none.

        Its blobs are deleted by the registry's own garbage collection.
        """
        url = self._session.url(repository, f"manifests/{digest}")
        expected = frozenset({HTTPStatus.ACCEPTED, HTTPStatus.OK, HTTPStatus.NO_CONTENT})

        async def delete() -> bool:
            try:
                async with self._session.respond(
                    "DELETE", url, Scope(repository, "delete"), expected=expected
                ):
                    return True
            except ImageNotFound:
                return False

        return await self._session.retried(delete)

    async def tags(self, repository: Repository) -> list[str]:
        """Return all tags of a repository, sorted; none if the registry does not know it."""
        found: set[str] = set()
        last = ""
        while True:
            page = await self._session.retried(partial(self._tags, repository, last))
            new = set(page) - found
            found |= new
            if len(page) < _TAGS_PER_PAGE or not new:
                return sorted(found)
            last = page[-1]

    async def _tags(self, repository: Repository, last: str) -> list[str]:
        after = f"&last={last}" if last else ""
        url = self._session.url(repository, f"tags/list?n={_TAGS_PER_PAGE}{after}")
        try:
            async with self._session.respond(
                "GET", url, Scope(repository), expected=_GOT
            ) as response:
                data = b""
                async for chunk in response.content.iter_chunked(_CHUNK):
                    data += chunk
                    if len(data) > _MAX_TAGS_BYTES:
                        break
        except ImageNotFound:
            return []
        try:
            tags = json.loads(data).get("tags") or []
            return [str(tag) for tag in tags]
        except (ValueError, AttributeError, TypeError) as error:
            raise RegistryError(
                f"the registry of {repository} lists tags as something else than JSON: check its "
                "address"
            ) from error

    async def has_blob(self, repository: Repository, digest: str) -> bool:
        """Return whether a repository has a blob."""
        url = self._session.url(repository, f"blobs/{digest}")
        expected = frozenset({HTTPStatus.OK, HTTPStatus.NOT_FOUND})

        async def ask() -> bool:
            async with self._session.respond(
                "HEAD", url, Scope(repository), expected=expected
            ) as response:
                return response.status == HTTPStatus.OK

        return await self._session.retried(ask)

    async def upload(
        self, repository: Repository, blob: Blob, *, mount_from: Repository | None = None
    ) -> int:
        """Make sure that a repository has a blob; returns the number of bytes that were sent.

        A blob that is there is not sent, and one of another repository of the same registry is
        mounted if the registry permits it.

        Raises:
            CorruptBlob: when the bytes do not have the blob's digest.
            ShashinError: what the blob's own source raises.
        """
        if mount_from is not None and mount_from.registry != repository.registry:
            mount_from = None
        upload = BlobUpload(self._session, repository, blob, mount_from)
        await upload.run()
        return upload.sent_bytes

    async def blob(self, repository: Repository, descriptor: Descriptor) -> AsyncGenerator[bytes]:
        """Return a blob's bytes in chunks of at most 1 MiB; after a lost connection it goes on.

        The digest is known only after the last chunk: what was read before an error is worth nothing.

        Raises:
            CorruptBlob: when the bytes do not have the descriptor's digest and size.
        """
        digest, position = hashlib.sha256(), 0
        patience = self._session.patience()
        while True:
            try:
                async with aclosing(self._blob(repository, descriptor, position)) as chunks:
                    async for chunk in chunks:
                        digest.update(chunk)
                        position += len(chunk)
                        if position > descriptor.size:
                            break
                        patience.progress()
                        yield chunk
                break
            except RegistryUnavailable as error:
                failure = RegistryUnavailable(
                    f"{error.message} (after {position} of {descriptor.size} bytes of blob "
                    f"{descriptor.digest})"
                )
                failure.__cause__ = error
                await patience.pause(failure)
        found = f"sha256:{digest.hexdigest()}"
        if (found, position) != (descriptor.digest, descriptor.size):
            raise CorruptBlob(
                f"blob {descriptor.digest} of {repository} has {position} bytes with {found}, its "
                f"manifest says {descriptor.size}: push the image again"
            )

    async def _blob(
        self, repository: Repository, descriptor: Descriptor, position: int
    ) -> AsyncGenerator[bytes]:
        url = self._session.url(repository, f"blobs/{descriptor.digest}")
        headers = {"Range": f"bytes={position}-"} if position else {}
        expected = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
        async with self._session.respond(
            "GET", url, Scope(repository), expected=expected, headers=headers
        ) as response:
            skip = position if response.status == HTTPStatus.OK else 0
            async for chunk in response.content.iter_chunked(_CHUNK):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0

    async def read_blob(
        self, repository: Repository, descriptor: Descriptor, *, max_bytes: int
    ) -> bytes:
        """Return all bytes of a small blob.

        Raises:
            CorruptBlob: as ``blob``, or when it is larger than ``max_bytes``.
        """
        if descriptor.size > max_bytes:
            raise CorruptBlob(
                f"blob {descriptor.digest} of {repository} has {descriptor.size} bytes: expected at "
                f"most {max_bytes}"
            )
        async with aclosing(self.blob(repository, descriptor)) as chunks:
            return b"".join([chunk async for chunk in chunks])
