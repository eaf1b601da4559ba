"""Embedding a query's photo: one of the embedders that discovery names, or another one."""

from __future__ import annotations

import itertools

import grpc
import numpy as np
import numpy.typing as npt

from services.router import metrics
from services.router.deadline import Deadline
from services.router.queries import unit_length
from shashin.discovery.protocol import Endpoint
from shashin.errors import (
    DeadlineExceeded,
    InvalidQuery,
    NoEndpoint,
    PhotoError,
    ShashinError,
    WrongModelRequested,
)
from shashin.model_space import ModelSpace
from shashin.serving.fleet import Fleet, Peer
from shashin.v1 import embed_pb2

_PHOTO_ERRORS = {error.__name__: error for error in PhotoError.__subclasses__()}


class Embedding:
    """Asks the embedders in turn; one that cannot answer is passed over."""

    def __init__(self, fleet: Fleet, space: ModelSpace) -> None:
        self._fleet = fleet
        self._space = space
        self._turn = itertools.count()
        self._wrong: dict[Endpoint, str] = {}
        """What embedders of another model said last; they are asked after all others."""

    async def query_of(self, photo: bytes, deadline: Deadline) -> npt.NDArray[np.float32]:
        """Return the photo's vector, (1, dimensions) float32 of unit length.

        Raises:
            PhotoError: when the photo cannot be used.
            WrongModelRequested: when only embedders of another model answer.
            NoEndpoint: when no embedder answers.
            DeadlineExceeded: when none answers in time.
        """
        with self._fleet.hold_embedders() as embedders:
            if not embedders:
                raise NoEndpoint(
                    "no embedder is known, so a photo cannot be searched for: discovery names "
                    "none; start one, or search by a vector or a listing"
                )
            known = {embedder.endpoint for embedder in embedders}
            self._wrong = {e: says for e, says in self._wrong.items() if e in known}
            failed = []
            for embedder in self._in_turn(embedders):
                try:
                    answer = await embedder.embed.Embed(
                        embed_pb2.EmbedRequest(photos=[photo]), timeout=deadline.left()
                    )
                except grpc.aio.AioRpcError as error:
                    _raise_for_caller(error, embedder, deadline)
                    metrics.FAILED_EMBEDS.labels(error.code().name).inc()
                    failed.append(f"{embedder}: {error.code().name}: {error.details()}")
                    continue
                vector = self._checked(answer, embedder)
                if vector is not None:
                    return vector
                metrics.FAILED_EMBEDS.labels(grpc.StatusCode.FAILED_PRECONDITION.name).inc()
        raise self._nobody(failed)

    def _in_turn(self, embedders: list[Peer]) -> list[Peer]:
        first = next(self._turn) % len(embedders)
        turned = embedders[first:] + embedders[:first]
        return sorted(turned, key=lambda peer: peer.endpoint in self._wrong)

    def _checked(
        self, answer: embed_pb2.EmbedResponse, embedder: Peer
    ) -> npt.NDArray[np.float32] | None:
        vector = np.frombuffer(answer.vectors, dtype=np.uint8)
        wrong = None
        if answer.model_id != self._space.model_id:
            wrong = f"model {answer.model_id!r}"
        elif (
            answer.dimensions != self._space.dimensions or len(vector) != 4 * self._space.dimensions
        ):
            wrong = f"{answer.dimensions} dimensions in {len(vector)} bytes"
        else:
            floats = vector.view("<f4").astype(np.float64)[None, :]
            if np.isfinite(floats).all() and floats.any():
                self._wrong.pop(embedder.endpoint, None)
                return unit_length(floats)
            wrong = "a vector that is zero or not finite"
        self._wrong[embedder.endpoint] = f"{embedder} answers with {wrong}"
        return None

    def _nobody(self, failed: list[str]) -> ShashinError:
        wrong = "; ".join(self._wrong.values())
        if failed:
            # The right one may come back, so a retry can help.
            return NoEndpoint(
                f"no embedder of {self._space.model_id!r} answers: {'; '.join(failed)}; {wrong}"
            )
        return WrongModelRequested(
            f"{wrong}; the router searches model {self._space.model_id!r} with {self._space.dimensions} "
            "dimensions: let embedder and router have the same model"
        )


def _raise_for_caller(error: grpc.aio.AioRpcError, embedder: Peer, deadline: Deadline) -> None:
    """Raise what another embedder could not do better: a bad photo stays bad, time does not return."""
    details = error.details() or ""
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        reason, _, message = details.partition(": ")
        named = _PHOTO_ERRORS.get(reason)
        raise (InvalidQuery(details) if named is None else named(message)) from None
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise DeadlineExceeded(
            f"the embedder {embedder} did not embed the photo within "
            f"{deadline.seconds * 1000:.0f} ms"
        ) from None
