"""Recall of a model on held-out products, compared with a colour histogram."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shashin.model.baselines import colour_histogram, intersections
from shashin.model.embedder import PhotoEmbedder
from shashin.model.rendered_photos import Photos, Progress, rendered_photos
from shashin.rendering import require_rendering

CATALOGUE_SEED = 2026
_SIDE = 224
_BATCH = 32

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recall:
    """Shares of queries that find their product.

    By photos: one of the k nearest photos shows the product. By listings: the product is among the
    k nearest products, each ranked by its nearest photo.
    """

    photos_at_1: float
    photos_at_10: float
    listings_at_10: float


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation."""

    model_id: str
    products: int
    gallery_photos: int
    queries: int
    model: Recall
    histogram: Recall
    """The baseline: an 8 x 8 x 8 colour histogram, compared by intersection."""

    def document(self) -> dict[str, Any]:
        """Return this for JSON output."""
        return asdict(self)


@dataclass(frozen=True)
class EvaluationConfig:
    """Sizes of the gallery and of the query set."""

    products: int = 3334
    photos: int = 3
    """Per product in the gallery; the next photo is the unseen query."""
    queries: int = 1000


def evaluate(
    embedder: PhotoEmbedder,
    work: Path,
    progress: Callable[[str, int, int], None],
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """Search with unseen photos in a gallery of held-out products.

    Raises:
        UserError: if the package that renders photos is not installed.
    """
    require_rendering()
    from shashin_catalogue import EVALUATION_NUMBERS

    config = config or EvaluationConfig()
    photos = rendered_photos(
        work / f"evaluation-{config.products}-{config.photos}-{_SIDE}.npy",
        seed=CATALOGUE_SEED,
        numbers=EVALUATION_NUMBERS[: config.products],
        photos_each=config.photos + 1,
        side=_SIDE,
        progress=lambda done, total: progress("products rendered", done, total),
    )
    queried = np.linspace(0, config.products - 1, min(config.queries, config.products)).astype(int)
    flat = photos[:, : config.photos].reshape(-1, _SIDE, _SIDE, 3)
    owners = np.repeat(np.arange(config.products), config.photos)
    queries = photos[queried, config.photos]
    described = _histograms(flat), _histograms(queries)
    gallery = _embed(embedder, flat, lambda n, of: progress("photos embedded", n, of))
    query_vectors = _embed(embedder, queries, lambda n, of: progress("queries embedded", n, of))
    return Evaluation(
        model_id=embedder.model_id,
        products=config.products,
        gallery_photos=len(flat),
        queries=len(queried),
        model=recall(query_vectors @ gallery.T, owners, queried),
        histogram=recall(intersections(described[1], described[0]), owners, queried),
    )


def recall(
    similarity: Vectors, owners: npt.NDArray[np.int64], expected: npt.NDArray[np.int64]
) -> Recall:
    """Return the recall of queries by their similarity (queries, photos) to photos of ``owners``."""
    order = np.argsort(-similarity, axis=1, kind="stable")
    ranked = owners[order]
    correct = ranked == expected[:, None]
    by_listing = [
        expected[i] in list(dict.fromkeys(row[:400].tolist()))[:10] for i, row in enumerate(ranked)
    ]
    return Recall(
        photos_at_1=float(correct[:, 0].mean()),
        photos_at_10=float(correct[:, :10].any(axis=1).mean()),
        listings_at_10=float(np.mean(by_listing)),
    )


def _embed(embedder: PhotoEmbedder, photos: Photos, progress: Progress) -> Vectors:
    parts = []
    for start in range(0, len(photos), _BATCH):
        batch = [Image.fromarray(pixels) for pixels in photos[start : start + _BATCH]]
        parts.append(embedder.embed(batch))
        progress(min(start + _BATCH, len(photos)), len(photos))
    return np.concatenate(parts)


def _histograms(photos: Photos) -> Vectors:
    """Return the colour histogram of each photo, (n, 512)."""
    return np.stack([colour_histogram(pixels) for pixels in photos])
