"""Fitting a linear head on the features of photos: views of one product close together, others apart. Pure.

The loss is the supervised contrastive one of ``training.py``. It starts from a given head, or from the principal
components of the features, which keep most of what the backbone tells apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from shashin.model.training import contrastive_loss

Features = npt.NDArray[np.float32]
Products = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeadConfig:
    """Parameters of a fit."""

    dimensions: int = 256
    steps: int = 200
    batch_products: int = 160
    """Products with several photos in a batch, at most."""
    batch_singles: int = 32
    """Products with one photo in a batch, at most: their views are copies, of which a few keep copies found
    and many outweigh what other photos teach."""
    batch_views: int = 6
    """Per product in a batch."""
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    temperature: float = 0.05
    dropout: float = 0.1
    """Share of the features that a step does without."""
    seed: int = 0


OnStep = Callable[[int, int, float], None]
"""Called with the steps done, their total, and the loss."""


def principal_head(features: Features, dimensions: int) -> nn.Linear:
    """Return the head of the largest principal components of features (n, f), centred and scaled by power 1/2."""
    mean = features.mean(axis=0)
    covariance = np.cov((features - mean).T)
    values, vectors = np.linalg.eigh(covariance)
    chosen = np.argsort(-values, kind="stable")[:dimensions]
    scale = np.maximum(values[chosen], values[chosen[0]] * 1e-6) ** -0.25
    weight = torch.from_numpy((vectors[:, chosen] * scale).T.astype(np.float32))
    return _linear(weight, -weight @ torch.from_numpy(mean.astype(np.float32)))


def fit_head(
    features: Features,
    products: Products,
    singles: npt.NDArray[np.bool_],
    config: HeadConfig,
    on_step: OnStep,
    *,
    start: nn.Linear | None = None,
) -> nn.Linear:
    """Return a head fitted on features (n, f), of which each belongs to one of ``products`` (n,).

    ``singles`` (n,) tells which belong to a product with one photo. ``start`` is a head to start from, which is left as it is.
    """
    rng = np.random.default_rng(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    first = principal_head(features, config.dimensions) if start is None else start
    # The scale of a head changes nothing of its unit vectors, but much of what a step does.
    with torch.no_grad():
        length = first(torch.from_numpy(features)).norm(dim=1).mean().clamp(min=1e-6)
        head = _linear(first.weight / length, first.bias / length)
    groups = [
        [np.flatnonzero(products == product) for product in np.unique(products[singles == single])]
        for single in (False, True)
    ]
    inputs = torch.from_numpy(features)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _rate(step / config.steps)
        rows, labels = _batch(groups, config, rng)
        batch = _thinned(inputs[rows], config.dropout, generator)
        vectors = functional.normalize(head(batch), dim=1)
        loss = contrastive_loss(vectors, labels, config.temperature)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        on_step(step + 1, config.steps, float(loss.detach()))
    return head.requires_grad_(requires_grad=False)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": bias})
    return head


def _rate(share: float) -> float:
    """Return the learning rate at a share of the steps: up for a tenth, then down along a cosine."""
    return min(1.0, share * 10) * 0.5 * (1 + math.cos(math.pi * share))


def _thinned(batch: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    kept = torch.rand(batch.shape, generator=generator) >= dropout
    return functional.normalize(batch * kept, dim=1)


def _batch(
    groups: list[list[npt.NDArray[np.int64]]], config: HeadConfig, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], Tensor]:
    """Return the rows of a batch, and the number of each one's product in it."""
    chosen = [
        views[one]
        for views, count in zip(groups, (config.batch_products, config.batch_singles), strict=True)
        for one in rng.permutation(len(views))[:count]
    ]
    rows = [rng.permutation(views)[: config.batch_views] for views in chosen]
    labels = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
    return np.concatenate(rows), torch.from_numpy(labels)
