"""Recall of models on folders of real photos, in several kinds of search."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from shashin.model.baselines import Vectors, colour_histogram, difference_hash, intersections
from shashin.model.embedder import PhotoEmbedder
from shashin.model.photo_changes import GENTLE, HARD, changed, with_clutter
from shashin.model.photo_folders import ProductPhotos, open_photo
from shashin.model.zooms import zoomed

_BATCH = 32
_PLACES = 10
HISTOGRAM, HASH = "colour histogram", "perceptual hash"

Key = TypeVar("Key")

OnProgress = Callable[[str, int, int], None]
"""Called with a stage, the number done and the total."""


class Search(StrEnum):
    """A kind of search."""

    OTHER_VIEW = "other view"
    """A query photo, or each photo against the others of its product."""
    GENTLE_COPY = "gentle copy"
    HARD_COPY = "hard copy"
    CLUTTER = "in clutter"


@dataclass(frozen=True)
class PhotoRecall:
    """Shares of queries whose product is shown by the nearest photo, and by one of the ten nearest."""

    at_1: float
    at_10: float


@dataclass(frozen=True)
class Miss:
    """A query whose product is not the first: what was searched with, found, and expected."""

    search: Search
    query: Path
    rank: int
    """Place of the first photo of its product, from 1."""
    found: tuple[Path, ...]
    """The nearest photos."""
    expected: Path
    """The photo of its product that is nearest."""


@dataclass(frozen=True)
class PhotoEvaluation:
    """Result of an evaluation."""

    products: int
    gallery_photos: int
    queries: dict[Search, int]
    recall: dict[str, dict[Search, PhotoRecall]]
    """By what was measured, and kind of search; a kind without queries is left out."""
    misses: list[Miss] = field(default_factory=list)
    """Of the first model, worst first."""

    def document(self) -> dict[str, Any]:
        """Return this for JSON output."""
        found = asdict(self)
        del found["misses"]
        return found


@dataclass(frozen=True)
class PhotoEvaluationConfig:
    """What is searched for."""

    copies: int = 300
    """Photos that are changed and searched for, at most."""
    misses: int = 40
    """That are kept, at most."""
    seed: int = 0


@dataclass(frozen=True)
class _Query:
    search: Search
    path: Path
    owner: int
    itself: int | None = None
    """Its row of the gallery, which is no answer."""
    background: Path | None = None


def evaluate_photos(
    embedders: Sequence[PhotoEmbedder],
    products: Sequence[ProductPhotos],
    progress: OnProgress,
    config: PhotoEvaluationConfig | None = None,
    *,
    queried: Callable[[ProductPhotos], bool] = lambda _: True,
) -> PhotoEvaluation:
    """Search with photos of the products, and with changed copies, among the photos of all.

    Only products that are ``queried`` are searched for; the others are what they may be mistaken for.

    Raises:
        PhotoFolderError: if a photo cannot be used.
    """
    config = config or PhotoEvaluationConfig()
    gallery = [photo for product in products for photo in product.photos]
    owners = np.repeat(np.arange(len(products)), [len(one.photos) for one in products])
    queries = _queries(products, gallery, owners, queried, config)
    kept = _vectors(embedders, gallery, open_photo, "photos embedded", progress, zooms=False)

    def photo_of(number: int) -> Image.Image:
        return _query_photo(queries[number], config.seed)

    asked = _vectors(
        embedders, range(len(queries)), photo_of, "queries embedded", progress, zooms=True
    )
    scores = {name: _scores(name, asked[name], kept[name]) for name in kept}
    for row, query in enumerate(queries):
        if query.itself is not None:
            for similarity in scores.values():
                similarity[row, query.itself] = -np.inf
    counts = {kind: sum(query.search is kind for query in queries) for kind in Search}
    return PhotoEvaluation(
        products=len(products),
        gallery_photos=len(gallery),
        queries={kind: count for kind, count in counts.items() if count},
        recall={name: _recalls(similarity, owners, queries) for name, similarity in scores.items()},
        misses=_misses(next(iter(scores.values())), owners, queries, gallery, config.misses),
    )


def _queries(
    products: Sequence[ProductPhotos],
    gallery: Sequence[Path],
    owners: npt.NDArray[np.int64],
    queried: Callable[[ProductPhotos], bool],
    config: PhotoEvaluationConfig,
) -> list[_Query]:
    rng = np.random.default_rng(config.seed)
    found, copied = [], []
    for owner, product in enumerate(products):
        if not queried(product):
            continue
        rows = np.flatnonzero(owners == owner)
        copied += rows.tolist()
        found += [_Query(Search.OTHER_VIEW, path, owner) for path in product.queries]
        if not product.queries and len(rows) > 1:
            found += [_Query(Search.OTHER_VIEW, gallery[row], owner, row) for row in rows.tolist()]
    chosen = sorted(rng.permutation(copied)[: config.copies].tolist())
    for row in chosen:
        path, owner = gallery[row], int(owners[row])
        found += [_Query(kind, path, owner) for kind in (Search.GENTLE_COPY, Search.HARD_COPY)]
        if len(gallery) > 1:
            other = (row + 1 + int(rng.integers(len(gallery) - 1))) % len(gallery)
            found.append(_Query(Search.CLUTTER, path, owner, background=gallery[other]))
    return found


def _query_photo(query: _Query, seed: int) -> Image.Image:
    photo = open_photo(query.path)
    # By name, so that a photo is changed alike wherever its folder is.
    named = f"{query.search}/{query.path.parent.name}/{query.path.name}"
    rng = np.random.default_rng([seed, zlib.crc32(named.encode())])
    if query.search is Search.GENTLE_COPY:
        return changed(photo, GENTLE, rng)
    if query.search is Search.HARD_COPY:
        return changed(photo, HARD, rng)
    if query.background is not None:
        return with_clutter(photo, open_photo(query.background), rng)
    return photo


def _vectors(
    embedders: Sequence[PhotoEmbedder],
    keys: Sequence[Key],
    open_one: Callable[[Key], Image.Image],
    stage: str,
    progress: OnProgress,
    *,
    zooms: bool,
) -> dict[str, Vectors]:
    """Return the vectors (n, views, dimensions) of photos, by what they are measured with."""
    found: dict[str, list[Vectors]] = {}
    for start in range(0, len(keys), _BATCH):
        photos = [open_one(key) for key in keys[start : start + _BATCH]]
        for embedder in embedders:
            views = [zoomed(photo) if zooms and embedder.zooms else [photo] for photo in photos]
            vectors = embedder.embed([view for some in views for view in some])
            found.setdefault(embedder.model_id, []).append(
                vectors.reshape(len(photos), -1, embedder.dimensions)
            )
        histograms = np.stack([colour_histogram(np.asarray(photo)) for photo in photos])
        found.setdefault(HISTOGRAM, []).append(histograms[:, None])
        hashes = np.stack([difference_hash(photo) for photo in photos])
        found.setdefault(HASH, []).append(hashes[:, None])
        progress(stage, min(start + _BATCH, len(keys)), len(keys))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _scores(name: str, queries: Vectors, gallery: Vectors) -> Vectors:
    """Return the similarity of queries to photos, (queries, photos): the best of each query's views."""
    kept = gallery[:, 0]
    if name == HISTOGRAM:
        return intersections(queries[:, 0], kept)
    best: Vectors = np.max([queries[:, view] @ kept.T for view in range(queries.shape[1])], axis=0)
    return best


def _recalls(
    similarity: Vectors, owners: npt.NDArray[np.int64], queries: Sequence[_Query]
) -> dict[Search, PhotoRecall]:
    expected = np.array([query.owner for query in queries])
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :_PLACES]
    correct = owners[order] == expected[:, None]
    found = {}
    for kind in Search:
        rows = np.array([query.search is kind for query in queries])
        if rows.any():
            some = correct[rows]
            found[kind] = PhotoRecall(float(some[:, 0].mean()), float(some.any(axis=1).mean()))
    return found


def _misses(
    similarity: Vectors,
    owners: npt.NDArray[np.int64],
    queries: Sequence[_Query],
    gallery: Sequence[Path],
    count: int,
) -> list[Miss]:
    found = []
    for query, row in zip(queries, similarity, strict=True):
        order = np.argsort(-row, kind="stable")
        rank = int(np.argmax(owners[order] == query.owner))
        if rank:
            nearest = tuple(gallery[number] for number in order[:5].tolist())
            found.append(Miss(query.search, query.path, rank + 1, nearest, gallery[order[rank]]))
    return sorted(found, key=lambda miss: (-miss.rank, str(miss.query)))[:count]
