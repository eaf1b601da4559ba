"""Embeds the photos that were fetched again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from shashin.builds.document import FETCH
from shashin.builds.reindex.left_out import LeftOut, LeftOutPhoto, count_left_out
from shashin.builds.reindex.models import (
    BuildEmbeddingSettings,
    LocalModel,
    Model,
    RemoteModel,
)
from shashin.builds.reindex.packs import Pack, read_pack, require_pack
from shashin.builds.reindex.photos import PHOTOS, thumbnails_in
from shashin.builds.step import StepContext, opened_repository
from shashin.builds.steps.files import read_manifests, write_vectors
from shashin.codecs.unit_vectors import as_stored, length_problem
from shashin.model.loading import published_id
from shashin.model.settings import EmbeddingSettings
from shashin.repository.published_models import PublishedModels
from shashin.runtime.failpoints import failpoint
from shashin.runtime.json_file import read_json, write_json
from shashin.shards.format.manifest import ROWS_FILE
from shashin.shards.format.rows_file import SealedRows


async def published_checkpoint(step: StepContext, settings: BuildEmbeddingSettings) -> Path | None:
    """Return the checkpoint of a model that the repository has; None if the model comes from elsewhere.

    It is kept in the step's work folder, where a retry verifies it.

    Raises:
        ModelNotPublished, CorruptModel, UnknownFormat: as ``PublishedModels.fetch``.
        ObjectStoreError: when the repository does not respond or refuses.
    """
    model_id = published_id(settings.model)
    if settings.embedder or model_id is None:
        return None
    async with opened_repository(step) as store:
        _, path = await PublishedModels(store).fetch(model_id, step.work / "models")
    return path


def embed_photos(
    step: StepContext, settings: BuildEmbeddingSettings, checkpoint: Path | None
) -> None:
    """Write the vectors of all fetched photos, and the numbers of their rows, a folder per shard.

    The vectors of each pack are kept for later attempts with the same model. ``checkpoint`` is that of a model
    of the repository.

    Raises:
        StepFailed: when the model is not that of the build, or too many of its vectors, or of the
            photos, cannot be used.
        ModelError: when the model cannot be loaded, or its embedders do not respond.
    """
    space = step.build.spec.space
    if not settings.embedder:
        _embed_with(step, LocalModel(settings, space, checkpoint), settings)
        return
    model = RemoteModel(settings.embedder, space)
    try:
        _embed_with(step, model, settings)
    finally:
        model.close()


def _embed_with(step: StepContext, model: Model, settings: EmbeddingSettings) -> None:
    fetched = step.output_of(FETCH)
    total = int(read_json(fetched / "photos.json")["photos"])
    before = count_left_out(fetched)
    with LeftOut(step.out, total=total, before=before) as left_out:
        embedding = _Embedding(step, model, settings, left_out, total=total - before)
        for stored in read_manifests(fetched):
            embedding.shard(fetched / stored.manifest.shard_id)
    counts = {"photos": embedding.done, "left_out": left_out.count}
    write_json(step.out / "vectors.json", counts)
    step.log.info("embedded", **counts)


class _Embedding:
    def __init__(
        self,
        step: StepContext,
        model: Model,
        settings: EmbeddingSettings,
        left_out: LeftOut,
        *,
        total: int,
    ) -> None:
        self._step = step
        self._model = model
        self._batch_photos = settings.batch_photos
        self._left_out = left_out
        self._total = total
        self.done = 0

    def shard(self, folder: Path) -> None:
        """Write the vectors of one shard."""
        rows = SealedRows(folder / ROWS_FILE)
        kept = [self._pack(path, rows) for path in sorted((folder / PHOTOS).glob("*.pack"))]
        numbers = [require_pack(path).header["rows"] for path in kept]
        found = np.concatenate([np.zeros(0, np.uint32), *(np.array(n, np.uint32) for n in numbers)])
        write_vectors(
            self._step.out / folder.name,
            found,
            self._step.build.spec.dimensions,
            (require_pack(path).body for path in kept),
        )

    def _pack(self, path: Path, rows: SealedRows) -> Path:
        """Return the file with the vectors of one pack of photos, which is made if need be."""
        photos = require_pack(path)
        name = hashlib.sha256(self._model.identity + photos.digest).hexdigest()
        kept = self._step.work / "vectors" / f"{name}.pack"
        vectors = read_pack(kept)
        if vectors is None:
            vectors = self._embedded(photos)
            vectors.write(kept)
            failpoint("after-vectors")
        for number, problem in vectors.header["unusable"]:
            self._left_out.add(LeftOutPhoto.of(rows.row(number), problem))
        self.done += len(vectors.header["rows"])
        self._step.progress(self.done, self._total, "photos")
        return kept

    def _embedded(self, photos: Pack) -> Pack:
        numbers: list[int] = []
        unusable: list[tuple[int, str]] = []
        blocks: list[bytes] = []
        thumbnails = thumbnails_in(photos)
        for start in range(0, len(thumbnails), self._batch_photos):
            batch = slice(start, start + self._batch_photos)
            embedded = self._model.embed(thumbnails[batch])
            for number, vector in zip(photos.header["rows"][batch], embedded, strict=True):
                if isinstance(vector, str):
                    unusable.append((number, vector))
                    continue
                stored = as_stored(vector)
                problem = length_problem(stored)
                if problem is None:
                    numbers.append(number)
                    blocks.append(stored.tobytes())
                else:
                    unusable.append((number, f"the model returned a vector {problem}"))
        return Pack({"rows": numbers, "unusable": unusable}, b"".join(blocks))
