"""Embeds the photos that were fetched again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from shashin.builds.document import FETCH
from shashin.builds.reindex.left_out import LeftOut, LeftOutPhoto, count_left_out
from shashin.builds.reindex.packs import Pack, read_pack, require_pack
from shashin.builds.reindex.photos import PHOTOS, thumbnails_in
from shashin.builds.step import StepContext
from shashin.builds.steps.files import read_manifests, write_vectors
from shashin.codecs.unit_vectors import as_stored, length_problem
from shashin.errors import PhotoError, StepFailed
from shashin.model.loading import load_embedder
from shashin.model.settings import EmbeddingSettings
from shashin.model_space import ModelSpace
from shashin.photos import DecodeBudget, thumbnail_image
from shashin.runtime.json_file import read_json, write_json
from shashin.runtime.settings import load_settings
from shashin.shards.format.manifest import ROWS_FILE
from shashin.shards.format.rows_file import SealedRows

_DECODE_BYTES = 64 * 1024 * 1024
"""What decoding a thumbnail may take; one that ``fetch`` made takes 10 MB."""


class Model(Protocol):
    """What embeds photos."""

    def embed(self, photos: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Return unit vectors, (len(photos), dimensions)."""
        ...


def embed_photos(step: StepContext) -> None:
    """Write the vectors of all fetched photos, and the numbers of their rows, a folder per shard.

    The vectors of each pack are kept for later attempts with the same model.

    Raises:
        StepFailed: when the model is not that of the build, or too many of its vectors, or of the
            photos, cannot be used.
        ModelError: when the model cannot be loaded.
        SettingsError: when a setting in the environment is invalid.
    """
    settings = load_settings(EmbeddingSettings)
    model = load_embedder(settings.model, threads=settings.torch_threads)
    space = step.build.spec.space
    if ModelSpace(model.model_id, model.dimensions) != space:
        raise StepFailed(
            f"SHASHIN_MODEL={settings.model} is {ModelSpace(model.model_id, model.dimensions)}; the "
            f"build is of {space}: name its model with `--model`, as for the embedder"
        )
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
        self._identity = _identity(settings.model)
        self._budget = DecodeBudget(_DECODE_BYTES)
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
        name = hashlib.sha256(self._identity + photos.digest).hexdigest()
        kept = self._step.work / "vectors" / f"{name}.pack"
        vectors = read_pack(kept)
        if vectors is None:
            vectors = self._embedded(photos)
            vectors.write(kept)
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
            decoded: list[tuple[int, Image.Image]] = []
            batch = slice(start, start + self._batch_photos)
            for number, data in zip(photos.header["rows"][batch], thumbnails[batch], strict=True):
                try:
                    decoded.append((number, thumbnail_image(data, budget=self._budget)))
                except PhotoError as error:
                    unusable.append((number, error.message))
            vectors = as_stored(self._model.embed([image for _, image in decoded]))
            for (number, _), vector in zip(decoded, vectors, strict=True):
                problem = length_problem(vector)
                if problem is None:
                    numbers.append(number)
                    blocks.append(vector.tobytes())
                else:
                    unusable.append((number, f"the model returned a vector {problem}"))
        return Pack({"rows": numbers, "unusable": unusable}, b"".join(blocks))


def _identity(model: str) -> bytes:
    """Return what distinguishes a model's vectors from those of a later one with the same id."""
    path = Path(model)
    return hashlib.sha256(path.read_bytes() if path.is_file() else model.encode()).digest()
