"""Uploads a large file to Google Cloud Storage in chunks, and continues after broken connections.

The protocol is https://cloud.google.com/storage/docs/performing-resumable-uploads: every response
says how much the store has kept, which need not be all that was sent. After a request without a
response, the store is asked first. The client library sends the same chunk again instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, BinaryIO

import requests
from google.api_core.exceptions import ServiceUnavailable, from_http_response

from shashin.errors import ObjectStoreUnavailable
from shashin.objectstore.protocol import STREAM_CHUNK_BYTES

CHUNK_BYTES = 8 * STREAM_CHUNK_BYTES
"""A multiple of 256 KiB, as the protocol requires. The chunk is held in memory."""

_KEPT = re.compile(r"bytes=0-(\d+)")
_DONE = {HTTPStatus.OK, HTTPStatus.CREATED}
_SESSION_LOST = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}

Timeout = tuple[float, float]
"""Connect timeout, read timeout, in seconds."""


class ResumableUpload:
    """One upload of a file to a session, which carries the object's key, precondition and checksum.

    The session's URL is its own authorisation.
    """

    def __init__(self, url: str, file: BinaryIO, size: int, *, timeout: Timeout) -> None:
        self._url = url
        self._file = file
        self._size = size
        self._timeout = timeout
        self._session = requests.Session()
        self._kept = 0
        """How many bytes the store has."""
        self._certain = True
        """Whether ``_kept`` is from the last response, with no request since."""
        self._resource: dict[str, Any] = {}

    def run(self, retry: Callable[[Callable[[], None]], Callable[[], None]]) -> dict[str, Any]:
        """Upload the file; returns the metadata of the object. Blocks.

        ``retry`` is applied to each step, so its time limit starts again with every chunk.

        Raises:
            GoogleAPIError: when the store refuses, such as for the session's precondition.
            ObjectStoreUnavailable: when the store has lost the session: start a new one.
        """
        step = retry(self._step)
        with self._session:
            while not self._resource:
                step()
        return self._resource

    def _step(self) -> None:
        before = self._kept
        if self._certain:
            self._certain = False
            self._file.seek(self._kept)
            chunk = self._file.read(CHUNK_BYTES)
            last = self._kept + len(chunk) - 1
            self._take(self._put(f"bytes {self._kept}-{last}/{self._size}", chunk))
            if not self._resource and self._kept <= before:
                raise ServiceUnavailable("the store kept nothing of a chunk")  # type: ignore[no-untyped-call]
        else:
            self._take(self._put(f"bytes */{self._size}", b""))

    def _put(self, content_range: str, data: bytes) -> requests.Response:
        return self._session.put(
            self._url,
            data=data,
            headers={"Content-Range": content_range},
            timeout=self._timeout,
            allow_redirects=False,
        )

    def _take(self, response: requests.Response) -> None:
        """Take over what a response says about the upload."""
        if response.status_code in _DONE:
            self._resource = response.json()
        elif response.status_code == HTTPStatus.PERMANENT_REDIRECT:
            kept = _KEPT.fullmatch(response.headers.get("Range", ""))
            self._kept = int(kept[1]) + 1 if kept else 0
        elif response.status_code in _SESSION_LOST:
            raise ObjectStoreUnavailable(
                f"the store lost an upload after {self._kept} of {self._size} bytes"
            )
        else:
            raise from_http_response(response)  # type: ignore[no-untyped-call]
        self._certain = True
