"""Fitting a head of EfficientNet-Lite on folders of products: views, features, the fit, and what it brought."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from shashin.errors import ModelError, PhotoFolderError
from shashin.model.checkpoint import Checkpoint
from shashin.model.embedder import embedder_of, square
from shashin.model.head import Features, HeadConfig, fit_head
from shashin.model.lite_network import LiteBackbone, LiteNetwork, lite_normalised
from shashin.model.photo_changes import IN_CLUTTER, IN_LIKE_LIGHT, TRAINING, changed, with_clutter
from shashin.model.photo_evaluation import (
    PhotoEvaluation,
    PhotoEvaluationConfig,
    Search,
    evaluate_photos,
)
from shashin.model.photo_folders import ProductPhotos, is_held_out, open_photo

_BATCH = 32
_CLUTTERED = 3
"""One changed view in so many is in clutter."""

OnProgress = Callable[[str, int, int], None]
"""Called with a stage, the number done and the total."""


@dataclass(frozen=True)
class FitConfig:
    """Parameters of a fit."""

    model_id: str
    views: int = 4
    """Changed views per photo, beside the photo itself."""
    one_in: int = 5
    """One product in so many is held out, to measure with; 0 holds none out."""
    zooms: bool = True
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class FitReport:
    """What a fit brought, on products that it has not seen."""

    fitted_products: int
    fitted_photos: int
    held_out_products: int
    before: PhotoEvaluation | None
    """None if nothing is held out, or there was no head before."""
    after: PhotoEvaluation | None

    def document(self) -> dict[str, Any]:
        """Return this for JSON output."""
        document = asdict(replace(self, before=None, after=None))
        for name, found in (("before", self.before), ("after", self.after)):
            document[name] = None if found is None else found.document()
        return document


def fit(
    base: Checkpoint | LiteBackbone,
    products: Sequence[ProductPhotos],
    config: FitConfig,
    progress: OnProgress,
) -> tuple[Checkpoint, FitReport]:
    """Return a checkpoint with a new head, and what it brought.

    ``base`` is the model to start from, or a backbone alone.

    Raises:
        ModelError: if the model has no head that can be fitted.
        PhotoFolderError: if a photo cannot be used, or there are too few products.
    """
    network, start = _parts(base, config)
    seen = [product for product in products if not is_held_out(product, config.one_in)]
    if len(seen) < 2:
        raise PhotoFolderError(
            f"{len(seen)} products to fit on, of {len(products)}: expected two or more"
        )
    photos = [
        (number, path)
        for number, product in enumerate(seen)
        for path in (*product.photos, *product.queries)
    ]
    features = _features(network, [path for _, path in photos], config, progress)
    numbers = np.array([number for number, _ in photos])
    singles = np.bincount(numbers)[numbers] == 1
    views = config.views + 1
    head = fit_head(
        features,
        np.tile(numbers, views),
        np.tile(singles, views),
        config.head,
        lambda done, total, _: progress("steps fitted", done, total),
        start=start,
    )
    variant = network.backbone.variant
    made = LiteNetwork(head.out_features, variant=variant, colours=network.colours)
    made.backbone.load_state_dict(network.backbone.state_dict())
    made.head.load_state_dict(head.state_dict())
    made.eval()
    checkpoint = Checkpoint(config.model_id, head.out_features, variant.side, made, config.zooms)
    before = base if isinstance(base, Checkpoint) else None
    return checkpoint, _report(before, checkpoint, products, seen, config, progress)


def _parts(
    base: Checkpoint | LiteBackbone, config: FitConfig
) -> tuple[LiteNetwork, nn.Linear | None]:
    """Return a network whose features a head is fitted on, and the head to start from."""
    if isinstance(base, LiteBackbone):
        network = LiteNetwork(config.head.dimensions, variant=base.variant)
        network.backbone = base
        return network, None
    if not isinstance(base.network, LiteNetwork):
        raise ModelError(
            f"{base.model_id} has no head of its own to fit; expected efficientnet-lite0, or a checkpoint "
            "fitted from it"
        )
    same = base.dimensions == config.head.dimensions
    return base.network, base.network.head if same else None


def _features(
    network: LiteNetwork, paths: Sequence[Path], config: FitConfig, progress: OnProgress
) -> Features:
    """Return the features of each photo, then of a changed view of each, and so on: (views * n, features)."""
    network.eval().to(memory_format=torch.channels_last)
    total = len(paths) * (config.views + 1)
    features = np.empty((total, network.head.in_features), np.float32)
    for start in range(0, total, _BATCH):
        chosen = range(start, min(start + _BATCH, total))
        views = [_view(paths, *divmod(one, len(paths)), config.head.seed) for one in chosen]
        pixels = np.stack([square(view, network.backbone.variant.side) for view in views])
        with torch.inference_mode():
            batch = lite_normalised(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            batch = batch.contiguous(memory_format=torch.channels_last)
            features[chosen.start : chosen.stop] = network.features(batch).numpy()
        progress("views embedded", chosen.stop, total)
    return features


def _view(paths: Sequence[Path], view: int, number: int, seed: int) -> Image.Image:
    """Return a photo as it is (view 0), or as it may be met."""
    path = paths[number]
    photo = open_photo(path)
    if view == 0:
        return photo
    named = f"{path.parent.name}/{path.name}"
    rng = np.random.default_rng([seed, view, zlib.crc32(named.encode())])
    if view % _CLUTTERED:
        return changed(photo, TRAINING if view % 2 else IN_LIKE_LIGHT, rng)
    other = paths[int(rng.integers(len(paths)))]
    return changed(with_clutter(photo, open_photo(other), rng), IN_CLUTTER, rng)


def _report(
    before: Checkpoint | None,
    after: Checkpoint,
    products: Sequence[ProductPhotos],
    seen: Sequence[ProductPhotos],
    config: FitConfig,
    progress: OnProgress,
) -> FitReport:
    found: dict[str, PhotoEvaluation] = {}
    if len(seen) < len(products):
        for name, checkpoint in (("before", before), ("after", after)):
            if checkpoint is None:
                continue
            found[name] = evaluate_photos(
                [embedder_of(checkpoint)],
                products,
                partial(_named, progress, name),
                PhotoEvaluationConfig(copies=100),
                queried=lambda product: is_held_out(product, config.one_in),
            )
    return FitReport(
        fitted_products=len(seen),
        fitted_photos=sum(len(one.photos) + len(one.queries) for one in seen),
        held_out_products=len(products) - len(seen),
        before=found.get("before"),
        after=found.get("after"),
    )


def _named(progress: OnProgress, name: str, stage: str, done: int, total: int) -> None:
    progress(f"{name}: {stage}", done, total)


def tells_other_views(found: PhotoEvaluation) -> bool:
    """Return whether an evaluation has queries by other views, which one photo per product does not give."""
    return Search.OTHER_VIEW in found.queries
