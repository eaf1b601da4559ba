"""What embeds the photos of a re-index: the model itself, or the embedders that have it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import grpc
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from shashin.errors import ModelError, PhotoError, StepFailed
from shashin.model.settings import EmbeddingSettings
from shashin.model_space import ModelSpace
from shashin.photos import DecodeBudget, thumbnail_image
from shashin.rpc.server_limits import MAX_MESSAGE_BYTES
from shashin.runtime.backoff import backoff_seconds
from shashin.v1 import embed_pb2, embed_pb2_grpc

Embedded = npt.NDArray[np.float32] | str
"""A photo's vector, (dimensions,), or why the photo cannot be used."""

_DECODE_BYTES = 64 * 1024 * 1024
"""What decoding a thumbnail may take; one that ``fetch`` made takes 10 MB."""

_MAX_PHOTOS = 32
"""Of a call to an embedder (proto/shashin/v1/embed.proto)."""
_CALL_SECONDS = 60.0
_PATIENCE_SECONDS = 600.0
"""How long a step waits for embedders that are away or overloaded."""
_LONGEST_PAUSE_SECONDS = 15.0

_WAIT_FOR = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


class BuildEmbeddingSettings(EmbeddingSettings):
    """What embeds the photos of a build."""

    embedder: str = Field(
        "",
        description="HOST:PORT of embedders of the build's model; all addresses of the host are used. "
        "Without it, the step loads the model itself.",
    )


class Model(Protocol):
    """What embeds photos."""

    identity: bytes
    """What distinguishes its vectors from those of a later model with the same id."""

    def embed(self, thumbnails: Sequence[bytes]) -> list[Embedded]:
        """Return what has become of each photo."""
        ...


class LocalModel:
    """The model itself, in this process."""

    def __init__(
        self, settings: EmbeddingSettings, space: ModelSpace, checkpoint: Path | None = None
    ) -> None:
        """Load the model, from a checkpoint if its settings do not say where it is on this machine.

        Raises:
            ModelError: when it cannot be loaded.
            StepFailed: when it is not that of the build.
        """
        # Imported here: embedders have torch, and a step that asks them needs none.
        from shashin.model.loading import load_embedder

        model = settings.model if checkpoint is None else str(checkpoint)
        self._model = load_embedder(model, threads=settings.torch_threads)
        found = ModelSpace(self._model.model_id, self._model.dimensions)
        if found != space:
            raise StepFailed(
                f"SHASHIN_MODEL={settings.model} is {found}; the build is of {space}: name its model "
                "with `--model`, as for the embedder"
            )
        path = Path(model)
        named = path.read_bytes() if path.is_file() else model.encode()
        self.identity = hashlib.sha256(named).digest()
        self._budget = DecodeBudget(_DECODE_BYTES)

    def embed(self, thumbnails: Sequence[bytes]) -> list[Embedded]:
        """Return what has become of each photo."""
        decoded = [self._decoded(thumbnail) for thumbnail in thumbnails]
        vectors = iter(
            self._model.embed([image for image in decoded if isinstance(image, Image.Image)])
        )
        return [image if isinstance(image, str) else next(vectors) for image in decoded]

    def _decoded(self, thumbnail: bytes) -> Image.Image | str:
        try:
            return thumbnail_image(thumbnail, budget=self._budget)
        except PhotoError as error:
            return error.message


class RemoteModel:
    """Embedders at one address."""

    def __init__(
        self,
        address: str,
        space: ModelSpace,
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open no connection yet."""
        self._address, self._space = address, space
        self._patience_seconds, self._sleep = patience_seconds, sleep
        # The id alone: an embedder does not say which checkpoint it has.
        self.identity = hashlib.sha256(f"embedder of {space}".encode()).digest()
        self._channel = grpc.insecure_channel(
            f"dns:///{address}",
            options=[
                ("grpc.lb_policy_name", "round_robin"),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        self._stub = embed_pb2_grpc.EmbedServiceStub(self._channel)

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()

    def embed(self, thumbnails: Sequence[bytes]) -> list[Embedded]:
        """Return what has become of each photo.

        Raises:
            ModelError: when no embedder responds for long, or one fails.
            StepFailed: when the embedders are not of the build's model.
        """
        found: list[Embedded] = []
        for start in range(0, len(thumbnails), _MAX_PHOTOS):
            found += self._batch(thumbnails[start : start + _MAX_PHOTOS])
        return found

    def _batch(self, thumbnails: Sequence[bytes]) -> list[Embedded]:
        try:
            answer = self._answer(thumbnails)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
                raise ModelError(f"{self._address}: {_text(error)}") from error
            if len(thumbnails) == 1:
                return [error.details() or "the embedder refuses it"]
            # One of them cannot be used, and the embedder does not say which.
            return [one for thumbnail in thumbnails for one in self._batch([thumbnail])]
        return list(self._vectors(answer, len(thumbnails)))

    def _answer(self, thumbnails: Sequence[bytes]) -> embed_pb2.EmbedResponse:
        deadline = time.monotonic() + self._patience_seconds
        pauses = backoff_seconds(longest=_LONGEST_PAUSE_SECONDS)
        while True:
            try:
                answer: embed_pb2.EmbedResponse = self._stub.Embed(
                    embed_pb2.EmbedRequest(photos=list(thumbnails)), timeout=_CALL_SECONDS
                )
            except grpc.RpcError as error:
                if error.code() not in _WAIT_FOR or time.monotonic() >= deadline:
                    raise
            else:
                return answer
            self._sleep(next(pauses))

    def _vectors(self, answer: embed_pb2.EmbedResponse, photos: int) -> npt.NDArray[np.float32]:
        found = ModelSpace(answer.model_id, answer.dimensions)
        if found != self._space:
            raise StepFailed(
                f"the embedder at {self._address} is of {found}; the build is of {self._space}: name "
                "embedders of its model in SHASHIN_EMBEDDER"
            )
        vectors = np.frombuffer(answer.vectors, dtype="<f4")
        if len(vectors) != photos * self._space.dimensions:
            raise ModelError(
                f"the embedder at {self._address} returned {len(vectors)} numbers for {photos} photos "
                f"of {self._space}"
            )
        return vectors.reshape(photos, self._space.dimensions)


def _text(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"
