"""The client for threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from shashin.client.answer import Answer, Located, Status
from shashin.client.calls import Call, Pause, Send
from shashin.client.configured_client import ConfiguredClient
from shashin.client.failures import Failure
from shashin.client.photo_input import photos_read
from shashin.client.query import Box, Filter, Part, PhotoInput, Query
from shashin.errors import ClientUnusable
from shashin.v1 import search_pb2_grpc

T = TypeVar("T")


class Client(ConfiguredClient):
    """Searches through routers, from any number of threads over one set of connections.

    It is not for use after a fork: a child process makes a client of its own.
    """

    def _set_up(self) -> None:
        self._process = os.getpid()
        self._closed = threading.Event()
        self._channel = self._connection.channel()
        self._stub = search_pb2_grpc.SearchServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections; calls of other threads end with ClientUnusable."""
        self._closed.set()
        if self._process == os.getpid():
            self._channel.close()

    def search(
        self,
        *,
        photo: PhotoInput | None = None,
        vector: Sequence[float] | Any = None,
        listing_id: str | None = None,
        parts: Sequence[Part] = (),
        crop: Box | Sequence[float] | None = None,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        min_score: float | None = None,
        each_photo: bool = False,
        other_photos: bool = False,
        ids_only: bool = False,
        exclude: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Answer:
        """Search by exactly one of a photo, a vector, a listing and parts.

        Args:
            photo: Bytes, the path of a file, an open file, or an image of Pillow; at most 16 MiB.
            vector: Numbers or a NumPy array, (dimensions,), of any length but zero.
            listing_id: A searchable listing, which is not a hit itself.
            parts: 1 to 8 of them, searched for as one.
            crop: The part of ``photo`` that is searched for: left, top, right and bottom edge, from 0 to 1.
            k: Maximum hits, 1 to 1000.
            filter: Which listings may be hits.
            min_score: Only hits of at least this cosine similarity, -1 to 1.
            each_photo: Whether each photo is a hit, instead of each listing with its nearest photo.
            other_photos: Whether hits list the other photos of their listing.
            ids_only: Whether hits have no attributes and no photo URIs, which costs less.
            exclude: Up to 1000 listings that are no hits.
            timeout: Seconds for everything; the client's if None. The router is told what is left of it.

        Raises:
            InvalidQuery: naming the field.
            PhotoError: if the photo cannot be used.
            UserError: if its file cannot be read.
            ListingNotFound: if ``listing_id``, or that of a part, is not searchable.
            Unauthenticated: if the key or the certificate is missing or refused.
            RateLimited, Overloaded, Unavailable: once retries have not helped.
            DeadlineExceeded: when the timeout passes.
        """
        query = Query(
            photo,
            vector,
            listing_id,
            parts,
            crop,
            k,
            filter,
            min_score,
            each_photo,
            other_photos,
            ids_only,
            exclude,
        )
        read = photos_read(query)
        return self._carry_out(self._calls.search(query, read, self._seconds(timeout)))

    def similar(
        self,
        listing_id: str,
        *,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        min_score: float | None = None,
        each_photo: bool = False,
        other_photos: bool = False,
        ids_only: bool = False,
        exclude: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Answer:
        """Search for listings like one that is searchable: ``search`` with a ``listing_id``."""
        return self.search(
            listing_id=listing_id,
            k=k,
            filter=filter,
            min_score=min_score,
            each_photo=each_photo,
            other_photos=other_photos,
            ids_only=ids_only,
            exclude=exclude,
            timeout=timeout,
        )

    def locate(
        self,
        ids: str | Iterable[str],
        *,
        timeout: float | None = None,
    ) -> Located:
        """Return where each searchable listing is, of any number of ids.

        Raises:
            As ``search`` does.
        """
        return self._carry_out(self._calls.locate(ids, self._seconds(timeout)))

    def status(
        self,
        *,
        timeout: float | None = None,
    ) -> Status:
        """Return the state of the index, as the router that answers sees it.

        Raises:
            As ``search`` does.
        """
        return self._carry_out(self._calls.status(self._seconds(timeout)))

    def _carry_out(self, call: Call[T]) -> T:
        self._check_usable()
        outcome = None
        while True:
            try:
                step = call.send(outcome)
            except StopIteration as done:
                found: T = done.value
                return found
            if isinstance(step, Pause):
                self._closed.wait(step.seconds)
                outcome = None
            else:
                outcome = self._sent(step)
            self._check_usable(outcome)

    def _sent(self, step: Send) -> Any:
        method = getattr(self._stub, step.method)
        try:
            return method(step.request, timeout=step.seconds, metadata=self._connection.metadata())
        except grpc.RpcError as error:
            return self._connection.failure(error)
        except ValueError:
            # gRPC's own for a channel that another thread has closed.
            self._check_usable()
            raise

    def _check_usable(self, outcome: Any = None) -> None:
        """Raise unless the client can send calls, or has just got a response."""
        if self._closed.is_set() and (outcome is None or isinstance(outcome, Failure)):
            raise ClientUnusable("the client is closed; expected an open one: make another")
        if self._process != os.getpid():
            raise ClientUnusable(
                f"the client belongs to process {self._process}, of which this one is a fork; expected "
                "a client that was made after the fork"
            )
