"""Fitting a head: what it learns, and that a seed decides everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from shashin.model.head import HeadConfig, fit_head, principal_head

CONFIG = HeadConfig(dimensions=8, steps=60, batch_views=4, dropout=0.0)
Features = npt.NDArray[np.float32]


def made(
    products: int, views: int, *, seed: int = 0
) -> tuple[Features, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Features whose first few directions tell products apart, under louder ones that do not."""
    rng = np.random.default_rng(seed)
    own = np.repeat(rng.normal(size=(products, 6)), views, axis=0)
    own += 0.1 * rng.normal(size=own.shape)
    loud = 2 * rng.normal(size=(products * views, 12))
    features = np.concatenate([own, loud], axis=1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    numbers = np.repeat(np.arange(products), views)
    return features.astype(np.float32), numbers, np.zeros(len(numbers), bool)


def recall(head: nn.Linear, features: Features, products: npt.NDArray[np.int64]) -> float:
    with torch.inference_mode():
        vectors = functional.normalize(head(torch.from_numpy(features)), dim=1).numpy()
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    return float((products[similarity.argmax(axis=1)] == products).mean())


def test_a_head_finds_products_that_it_was_not_fitted_on() -> None:
    features, products, singles = made(60, 6)
    unseen, others, _ = made(40, 6, seed=1)
    config = replace(CONFIG, steps=300, learning_rate=0.03)
    fitted = fit_head(features, products, singles, config, lambda *_: None)
    start = principal_head(features, CONFIG.dimensions)
    assert recall(fitted, unseen, others) > recall(start, unseen, others) + 0.2


def test_a_seed_decides_everything_and_a_start_is_left_as_it_is() -> None:
    features, products, singles = made(12, 4)
    start = principal_head(features, CONFIG.dimensions)
    before = start.weight.clone()
    runs = [
        fit_head(features, products, singles, CONFIG, lambda *_: None, start=start) for _ in "ab"
    ]
    assert torch.equal(runs[0].weight, runs[1].weight)
    assert torch.equal(start.weight, before)
    assert not torch.equal(runs[0].weight, before)


def test_progress_counts_every_step() -> None:
    features, products, singles = made(4, 3)
    steps: list[tuple[int, int]] = []
    fit_head(
        features, products, singles, CONFIG, lambda done, total, _: steps.append((done, total))
    )
    assert steps == [(number + 1, CONFIG.steps) for number in range(CONFIG.steps)]


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 30), st.integers(1, 4))
def test_a_head_is_finite_for_any_number_of_products(products: int, views: int) -> None:
    features, numbers, _ = made(products, views)
    config = HeadConfig(dimensions=4, steps=2)
    singles = np.full(len(numbers), views == 1)
    head = fit_head(features, numbers, singles, config, lambda *_: None)
    assert torch.isfinite(head.weight).all()
    assert head.weight.shape == (4, features.shape[1])
