"""A model beside demo-v1 that finds the same products, with vectors of another length."""

from __future__ import annotations

from pathlib import Path

import torch

from shashin.model.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from shashin.model.loading import DEMO, shipped_checkpoint
from shashin.model.network import PhotoNetwork

MODEL, DIMENSIONS = "demo-half", 64


def save_second_model(path: Path) -> None:
    """Write a checkpoint: the demo model, rotated at random and cut to half of its dimensions."""
    demo = read_checkpoint(shipped_checkpoint(DEMO))
    network = PhotoNetwork(DIMENSIONS)
    weights = dict(demo.network.state_dict())
    random = torch.Generator().manual_seed(7)
    rotation, _ = torch.linalg.qr(torch.randn(128, 128, generator=random))
    for name in ("project.weight", "project.bias"):
        weights[name] = (rotation @ weights[name])[:DIMENSIONS]
    network.load_state_dict(weights)
    save_checkpoint(Checkpoint(MODEL, DIMENSIONS, demo.side, network), path)
