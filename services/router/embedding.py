"""Embeds query photos with the embedders in discovery, with failover.

An embedder that does not respond is not waited for until the deadline: another one is called as well.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import aclosing

import grpc
import numpy as np
import numpy.typing as npt

from services.router.deadline import Deadline
from shashin.codecs.unit_vectors import unit_length
from shashin.discovery.protocol import EMBEDDER, Endpoint
from shashin.errors import (
    DeadlineExceeded,
    EmbedderOverloaded,
    InvalidQuery,
    NoEndpoint,
    PhotoError,
    ShashinError,
    WrongModelRequested,
)
from shashin.metrics import router as metrics
from shashin.model_space import ModelSpace
from shashin.photo_box import Box
from shashin.serving.fleet import Fleet, OtherModel, Peer
from shashin.serving.replica_choice import last_resort_after
from shashin.serving.replica_record import ALIVE_SECONDS, ReplicaRecord
from shashin.v1 import embed_pb2

_METHOD = "Embed"
_PHOTO_ERRORS = {error.__name__: error for error in PhotoError.__subclasses__()}


class Embedding:
    """Calls the embedders round-robin; one that fails or hangs is skipped."""

    def __init__(self, fleet: Fleet, space: ModelSpace) -> None:
        self._fleet = fleet
        self._space = space
        self._counter = itertools.count()
        self._record = ReplicaRecord()
        self._unusable: dict[Endpoint, str] = {}
        """Embedders whose last response was of another model or not a usable vector, with the reason;
        they are tried after all others."""
        self._photo_vectors = 1

    @property
    def photo_vectors(self) -> int:
        """How many vectors a photo had that was last embedded with zooms: 1 if none was yet."""
        return self._photo_vectors

    async def embed_photo(
        self, photo: bytes, crop: Box | None, deadline: Deadline, *, zooms: bool = False
    ) -> npt.NDArray[np.float32]:
        """Return the vector of a photo, or of a part of it, (1, dimensions) float32 of unit length.

        With ``zooms``, those of zoomed views follow if the embedder finds that they help: (n, dimensions).

        Raises:
            PhotoError: when the photo cannot be used.
            WrongModelRequested: when only embedders of another model are available.
            EmbedderOverloaded: when every embedder has too many query photos.
            NoEndpoint: when no embedder responds.
            DeadlineExceeded: when none responds in time.
        """
        with self._fleet.hold(EMBEDDER) as held:
            if not held.peers and not held.other_models:
                raise NoEndpoint(
                    "no embedder is known, so search by photo is unavailable: discovery has none; "
                    "start one, or search by vector or listing"
                )
            known = {embedder.endpoint for embedder in held.peers}
            self._unusable = {e: reason for e, reason in self._unusable.items() if e in known}
            self._record.keep_only(known)
            request = embed_pb2.EmbedRequest(photos=[photo], zooms=zooms)
            if crop is not None:
                request.boxes.add(
                    left=crop.left, top=crop.top, right=crop.right, bottom=crop.bottom
                )
            failed, overloaded = [], 0
            async with aclosing(self._ended_calls(held.peers, request, deadline)) as ended:
                async for embedder, call in ended:
                    try:
                        answer = await call
                    except grpc.aio.AioRpcError as error:
                        _raise_for_caller(error, embedder.endpoint, deadline)
                        details = error.details() or ""
                        metrics.FAILED_EMBEDS.labels(error.code().name).inc()
                        failed.append(f"{embedder.endpoint}: {error.code().name}: {details}")
                        overloaded += details.startswith(EmbedderOverloaded.__name__)
                        continue
                    vectors = self._checked(answer, embedder.endpoint)
                    if vectors is not None:
                        if zooms:
                            self._photo_vectors = len(vectors)
                        return vectors
            if failed and overloaded == len(failed):
                raise EmbedderOverloaded(f"every embedder is overloaded: {'; '.join(failed)}")
            raise self._no_embedder_error(failed, held.other_models)

    async def _ended_calls(
        self, embedders: list[Peer], request: embed_pb2.EmbedRequest, deadline: Deadline
    ) -> AsyncGenerator[tuple[Peer, Awaitable[embed_pb2.EmbedResponse]]]:
        """Call one embedder after another, and yield each call once it has ended.

        The next one is called once all before have ended, or if none of them responds.
        """
        left = self._rotated(embedders)
        running: dict[asyncio.Task[embed_pb2.EmbedResponse], tuple[Peer, float]] = {}
        clock, next_at = self._record.clock, 0.0
        try:
            while left or running:
                if running and clock() >= next_at and self._some_are_alive(running.values()):
                    next_at = clock() + ALIVE_SECONDS
                elif left and (not running or clock() >= next_at):
                    for slow, since in running.values():
                        if self._record.hangs(slow, _METHOD, clock() - since):
                            self._record.set_aside(slow)
                    embedder = left.pop(0)
                    call = asyncio.ensure_future(self._embed(embedder, request, deadline))
                    running[call] = embedder, clock()
                    next_at = clock() + last_resort_after(
                        self._record.hedge_delay(embedder.endpoint.group_key, _METHOD),
                        seconds_left=deadline.remaining(),
                        replicas_left=len(left),
                    )
                ended, _ = await asyncio.wait(
                    running,
                    timeout=max(0.0, next_at - clock()) if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for call in ended:
                    yield running.pop(call)[0], call
        finally:
            for call in running:
                call.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _some_are_alive(self, calls: Iterable[tuple[Peer, float]]) -> bool:
        return any(self._record.is_alive(embedder) for embedder, _ in calls)

    async def _embed(
        self, embedder: Peer, request: embed_pb2.EmbedRequest, deadline: Deadline
    ) -> embed_pb2.EmbedResponse:
        started = self._record.clock()
        answer: embed_pb2.EmbedResponse = await embedder.calls.send(
            _METHOD, embedder.embed.Embed, request, seconds=deadline.remaining()
        )
        self._record.answered(embedder, _METHOD, self._record.clock() - started)
        return answer

    def _rotated(self, embedders: list[Peer]) -> list[Peer]:
        if not embedders:
            return []
        first = next(self._counter) % len(embedders)
        rotated = embedders[first:] + embedders[:first]
        return sorted(
            rotated,
            key=lambda peer: (peer.endpoint in self._unusable, self._record.standing(peer)),
        )

    def _checked(
        self, answer: embed_pb2.EmbedResponse, embedder: Endpoint
    ) -> npt.NDArray[np.float32] | None:
        if answer.model_id != self._space.model_id:
            self._unusable[embedder] = f"model {answer.model_id!r}"
            return None
        rows = sum(answer.rows_of_photos) or 1
        packed = np.frombuffer(answer.vectors, dtype=np.uint8)
        if (
            answer.dimensions != self._space.dimensions
            or len(packed) != 4 * rows * answer.dimensions
        ):
            problem = f"{answer.dimensions} dimensions in {len(packed)} bytes"
        else:
            vectors = packed.view("<f4").reshape(rows, -1)
            if np.isfinite(vectors).all() and vectors.any(axis=1).all():
                self._unusable.pop(embedder, None)
                return unit_length(vectors)
            problem = "a vector that is zero or not finite"
        self._unusable[embedder] = problem
        metrics.FAILED_EMBEDS.labels(grpc.StatusCode.INTERNAL.name).inc()
        return None

    def _no_embedder_error(self, failed: list[str], other_models: list[OtherModel]) -> ShashinError:
        unusable = "; ".join(
            [
                *map(str, other_models),
                *(f"{embedder} returned {reason}" for embedder, reason in self._unusable.items()),
            ]
        )
        if failed:
            # A failed embedder may recover, so a retry may help.
            note = f"; not usable: {unusable}" if unusable else ""
            return NoEndpoint(
                f"no embedder of {self._space.model_id!r} responds: {'; '.join(failed)}{note}"
            )
        return WrongModelRequested(
            f"{unusable}; the router searches model {self._space.model_id!r} with "
            f"{self._space.dimensions} dimensions: run embedder and router with the same model"
        )


def _raise_for_caller(error: grpc.aio.AioRpcError, embedder: Endpoint, deadline: Deadline) -> None:
    """Raise errors that no other embedder can help with: a bad photo, or no time left."""
    details = error.details() or ""
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        reason, _, message = details.partition(": ")
        photo_error = _PHOTO_ERRORS.get(reason)
        raise (InvalidQuery(details) if photo_error is None else photo_error(message)) from None
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise DeadlineExceeded(
            f"the embedder {embedder} did not embed the photo within "
            f"{deadline.seconds * 1000:.0f} ms"
        ) from None
