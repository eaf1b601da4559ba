"""Training the network to map photos of one product close together and others apart.

The loss is the supervised contrastive loss (Khosla et al. 2020): in a batch of products with a few
photos each, the other photos of the same product are positives and all others negatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from shashin.model.checkpoint import Checkpoint
from shashin.model.network import PhotoNetwork, normalised
from shashin.model.rendered_photos import Photos, rendered_photos
from shashin.rendering import require_rendering

CATALOGUE_SEED = 2026


@dataclass(frozen=True)
class TrainingConfig:
    """Parameters of a training run."""

    model_id: str = "demo-v1"
    products: int = 8000
    photos: int = 4
    """Per product."""
    epochs: int = 12
    side: int = 112
    """Side of the network's input, in pixels."""
    stored_side: int = 128
    """Side of the rendered photos that crops are taken from, in pixels."""
    batch_products: int = 128
    batch_photos: int = 2
    """Per product in a batch."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    temperature: float = 0.06
    dimensions: int = 128
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a run."""

    stage: str
    done: int
    total: int
    loss: float | None = None


OnProgress = Callable[[TrainingProgress], None]


def train(config: TrainingConfig, work: Path, on_progress: OnProgress) -> Checkpoint:
    """Train a network from scratch; rendered photos are cached in ``work`` for the next run.

    Raises:
        UserError: if the package that renders photos is not installed.
    """
    require_rendering()
    from shashin_catalogue import TRAINING_NUMBERS

    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    photos = rendered_photos(
        work / f"training-{config.products}-{config.photos}-{config.stored_side}.npy",
        seed=CATALOGUE_SEED,
        numbers=TRAINING_NUMBERS[: config.products],
        photos_each=config.photos,
        side=config.stored_side,
        progress=lambda done, total: on_progress(
            TrainingProgress("products rendered", done, total)
        ),
    )
    network = PhotoNetwork(config.dimensions).to(memory_format=torch.channels_last)
    _fit(network, photos, config, on_progress)
    return Checkpoint(config.model_id, config.dimensions, config.side, network.eval())


def _fit(
    network: PhotoNetwork, photos: Photos, config: TrainingConfig, on_progress: OnProgress
) -> None:
    rng = np.random.default_rng(config.seed)
    batches = max(1, len(photos) // config.batch_products)
    rounds = max(1, config.photos // config.batch_photos)
    steps = config.epochs * batches * rounds
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps, pct_start=0.15
    )
    network.train()
    step, smooth_loss = 0, math.nan
    for _ in range(config.epochs * rounds):
        order = rng.permutation(len(photos))
        for batch in range(batches):
            chosen = order[batch * config.batch_products : (batch + 1) * config.batch_products]
            inputs, labels = _batch(photos, chosen, config, rng)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                vectors = network(inputs)
            loss = contrastive_loss(vectors.float(), labels, config.temperature)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            step += 1
            now = float(loss.detach())
            smooth_loss = now if math.isnan(smooth_loss) else 0.95 * smooth_loss + 0.05 * now
            on_progress(TrainingProgress("steps trained", step, steps, smooth_loss))


def contrastive_loss(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss of unit vectors (n, d) with labels (n,)."""
    similarity = vectors @ vectors.T / temperature
    identity = torch.eye(len(labels), dtype=torch.bool)
    similarity = similarity.masked_fill(identity, -1e9)
    positive = (labels[:, None] == labels[None, :]) & ~identity
    log_probability = similarity - torch.logsumexp(similarity, dim=1, keepdim=True)
    return -((log_probability * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)).mean()


def _batch(
    photos: Photos,
    chosen: npt.NDArray[np.int64],
    config: TrainingConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    count = config.batch_photos
    picks = np.stack([rng.permutation(photos.shape[1])[:count] for _ in chosen])
    pixels = photos[np.repeat(chosen, count), picks.ravel()]
    inputs = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    return _augmented(normalised(inputs), config, rng), torch.arange(len(chosen)).repeat_interleave(
        count
    )


def _augmented(inputs: Tensor, config: TrainingConfig, rng: np.random.Generator) -> Tensor:
    """Return the photos randomly cropped, scaled and colour-jittered."""
    crop = int(rng.integers(config.stored_side * 7 // 8, config.stored_side + 1))
    left, top = rng.integers(0, config.stored_side - crop + 1, size=2)
    cut = inputs[:, :, top : top + crop, left : left + crop]
    scaled = functional.interpolate(cut, size=(config.side, config.side), mode="bilinear")
    count = len(inputs)
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (count, 3, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.15, 0.15, (count, 1, 1, 1)).astype(np.float32))
    return (scaled * gain + shift).contiguous(memory_format=torch.channels_last)
