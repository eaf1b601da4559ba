"""Uploads one blob: streamed, resumed after a lost connection, verified on both sides.

All bytes go in one request, as Docker does it, since not every registry takes them in parts. After a
lost connection the registry is asked how much it has; one that does not know the upload any more
(404, as distribution answers after some failures) gets the blob from its start.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from http import HTTPStatus

import aiohttp
from yarl import URL

from shashin.errors import (
    CorruptBlob,
    ImageNotFound,
    RegistryDenied,
    RegistryLoginRefused,
    RegistryUnavailable,
    ShashinError,
)
from shashin.oci.descriptor import Blob
from shashin.oci.references import Repository
from shashin.oci.session import STALL_SECONDS, RegistrySession, Scope
from shashin.runtime.logging import get_logger

log = get_logger(__name__)

_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_RANGE_REFUSED = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


class BlobUpload:
    """One upload of a blob to a repository."""

    def __init__(
        self,
        session: RegistrySession,
        repository: Repository,
        blob: Blob,
        mount_from: Repository | None,
    ) -> None:
        self._session = session
        self._repository = repository
        self._blob = blob
        self._mount_from = mount_from
        self._scope = Scope(repository, "pull,push")
        self._location: URL | None = None
        self._kept = 0
        """How many bytes the registry has."""
        self._certain = True
        """Whether ``_kept`` is from the last answer, with no request since."""
        self._refused_digests = 0
        self._failure_of_source: Exception | None = None
        self.sent_bytes = 0
        """Over all attempts."""

    async def run(self) -> None:
        """Upload the blob, or mount it. An attempt that progressed starts the time limit again.

        Raises:
            RegistryError: when the registry refuses, or does not respond for long.
            CorruptBlob: when the source's bytes do not have the blob's digest.
            ShashinError: what the source raises.
        """
        patience, before = self._session.patience(), self._kept
        while True:
            try:
                if await self._step():
                    return
            except RegistryUnavailable as error:
                self._certain = False
                if self._kept > before:
                    patience.progress()
                    before = self._kept
                failure = RegistryUnavailable(
                    f"{error.message} (after {self._kept} of {self._blob.size} bytes of blob "
                    f"{self._blob.digest})"
                )
                failure.__cause__ = error
                await patience.pause(failure)
                log.info(
                    "an upload to the registry goes on after a failure",
                    repository=str(self._repository),
                    digest=self._blob.digest,
                    error=error.message,
                )

    async def _step(self) -> bool:
        """Make the next request; returns whether the registry has the blob."""
        if self._location is None:
            return await self._begin()
        if not self._certain:
            await self._ask()
        elif self._kept < self._blob.size:
            await self._send_rest(self._location)
        else:
            return await self._finish(self._location)
        return False

    async def _begin(self) -> bool:
        if await self._is_there():
            return True
        if self._mount_from is not None:
            try:
                return await self._post(
                    f"?mount={self._blob.digest}&from={self._mount_from.path}",
                    Scope(self._repository, "pull,push", self._mount_from),
                )
            except (RegistryDenied, RegistryLoginRefused, ImageNotFound) as error:
                # Who may push here need not be allowed to read there.
                log.info("a blob is uploaded, since it cannot be mounted", error=error.message)
                self._mount_from = None
        return await self._post("", self._scope)

    async def _post(self, query: str, scope: Scope) -> bool:
        """Start an upload; returns whether the registry has the blob already, by a mount."""
        expected = frozenset({HTTPStatus.CREATED, HTTPStatus.ACCEPTED})
        url = self._session.url(self._repository, f"blobs/uploads/{query}")
        async with self._session.respond(
            "POST", url, scope, expected=expected, headers={"Content-Length": "0"}
        ) as response:
            if response.status == HTTPStatus.CREATED:
                return True
            self._location = self._session.location(self._repository, response)
        self._kept, self._certain = 0, True
        return False

    async def _is_there(self) -> bool:
        url = self._session.url(self._repository, f"blobs/{self._blob.digest}")
        expected = frozenset({HTTPStatus.OK, HTTPStatus.NOT_FOUND})
        async with self._session.respond("HEAD", url, self._scope, expected=expected) as response:
            return response.status == HTTPStatus.OK

    async def _ask(self) -> None:
        """Ask how much the registry has; without an upload of that name, start again."""
        assert self._location is not None
        expected = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.OK})
        try:
            async with self._session.respond(
                "GET", self._location, self._scope, expected=expected
            ) as response:
                self._take(response)
        except ImageNotFound:
            self._restart()

    async def _send_rest(self, location: URL) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._blob.size - self._kept),
        }
        if self._kept:
            headers["Content-Range"] = f"{self._kept}-{self._blob.size - 1}"
        expected = frozenset({HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT, _RANGE_REFUSED})
        self._certain = False
        self._failure_of_source = None
        before = self._kept
        try:
            async with asyncio.timeout(STALL_SECONDS) as stall:
                async with self._session.respond(
                    "PATCH",
                    location,
                    self._scope,
                    expected=expected,
                    headers=headers,
                    body=lambda: self._rest(before, stall),
                ) as response:
                    if response.status != _RANGE_REFUSED:
                        self._take(response)
        except ImageNotFound as error:
            raise self._lost() from error
        except TimeoutError as error:
            raise RegistryUnavailable(
                f"the registry of {self._repository} took nothing for {STALL_SECONDS:.0f} s of an "
                "upload: check that it runs"
            ) from error
        except ShashinError:
            if self._failure_of_source is not None:
                raise self._failure_of_source from None
            raise
        if self._certain and self._kept <= before:
            self._certain = False
            raise RegistryUnavailable(
                f"the registry of {self._repository} kept nothing of an upload: check its log"
            )

    async def _rest(self, kept: int, stall: asyncio.Timeout) -> AsyncGenerator[bytes]:
        """Return the bytes that the registry does not have; all of them are hashed."""
        digest, position = hashlib.sha256(), 0
        try:
            async with aclosing(self._blob.chunks()) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    skipped = min(max(kept - position, 0), len(chunk))
                    position += len(chunk)
                    if position >= self._blob.size:
                        self._check(digest, position)
                    if skipped < len(chunk):
                        _postpone(stall)
                        self.sent_bytes += len(chunk) - skipped
                        yield chunk[skipped:] if skipped else chunk
            if position < self._blob.size:
                self._check(digest, position)
            _postpone(stall)
        except Exception as error:
            # The HTTP client replaces what a body raises by an error of the connection.
            self._failure_of_source = error
            raise

    def _check(self, digest: hashlib._Hash, size: int) -> None:
        found = f"sha256:{digest.hexdigest()}"
        if (found, size) != (self._blob.digest, self._blob.size):
            raise CorruptBlob(
                f"blob {self._blob.digest} of {self._blob.size} bytes for {self._repository} reads as "
                f"{size} bytes with {found}: its source changed meanwhile; start again"
            )

    def _take(self, response: aiohttp.ClientResponse) -> None:
        """Take over what an answer says about the upload."""
        if "Location" in response.headers:
            self._location = self._session.location(self._repository, response)
        text = response.headers.get("Range")
        known = _RANGE.fullmatch(text or "")
        if text is None and response.status == HTTPStatus.ACCEPTED:
            self._kept = self._blob.size
        else:
            # "0-0" is also how distribution says that it has nothing.
            last = int(known[1]) if known else 0
            self._kept = last + 1 if last or self._blob.size == 1 else 0
        self._certain = True

    def _lost(self) -> RegistryUnavailable:
        """Start again after a pause, since the registry does not know the upload that it started."""
        self._restart()
        return RegistryUnavailable(
            f"the registry of {self._repository} lost an upload that it had started: check that its "
            "storage is one for all of its replicas, and look into its log"
        )

    def _restart(self) -> None:
        self._location, self._kept, self._certain = None, 0, True

    async def _finish(self, location: URL) -> bool:
        separator = "&" if location.raw_query_string else "?"
        url = URL(f"{location}{separator}digest={self._blob.digest}", encoded=True)
        expected = frozenset({HTTPStatus.CREATED, HTTPStatus.NO_CONTENT, HTTPStatus.BAD_REQUEST})
        self._certain = False
        try:
            async with self._session.respond(
                "PUT", url, self._scope, expected=expected, headers={"Content-Length": "0"}
            ) as response:
                refused = response.status == HTTPStatus.BAD_REQUEST
        except ImageNotFound as error:
            raise self._lost() from error
        if not refused:
            return True
        # What was sent had the digest: the registry's copy was damaged. Once is bad luck.
        self._refused_digests += 1
        if self._refused_digests > 1:
            raise CorruptBlob(
                f"the registry of {self._repository} says of blob {self._blob.digest} that what it "
                "received has another digest, twice: look into its log"
            )
        self._restart()
        return False


def _postpone(stall: asyncio.Timeout) -> None:
    """Start the time without progress again."""
    with suppress(RuntimeError):  # the registry has answered before it read everything
        stall.reschedule(asyncio.get_running_loop().time() + STALL_SECONDS)
