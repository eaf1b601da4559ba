"""A model as one file: what it is called, how it is built, and its weights as float16."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shashin.errors import ModelError
from shashin.model.network import PhotoNetwork

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network with what belongs to it."""

    model_id: str
    dimensions: int
    side: int
    """Pixels a side of the photos that the network takes."""
    network: PhotoNetwork


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; the file appears when it is complete."""
    document = {
        "format": FORMAT,
        "model_id": checkpoint.model_id,
        "dimensions": checkpoint.dimensions,
        "side": checkpoint.side,
        "weights": {
            name: value.half() if value.is_floating_point() else value
            for name, value in checkpoint.network.state_dict().items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    torch.save(document, fresh)
    fresh.replace(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: when the file is missing, holds more than tensors and numbers, or does not fit.
    """
    document = _document(path)
    if document.get("format") != FORMAT:
        raise ModelError(
            f"{path} has checkpoint format {document.get('format')!r}; this version reads {FORMAT}"
        )
    try:
        dimensions, side = int(document["dimensions"]), int(document["side"])
        network = PhotoNetwork(dimensions)
        network.load_state_dict(
            {
                name: value.float() if value.is_floating_point() else value
                for name, value in document["weights"].items()
            }
        )
        return Checkpoint(str(document["model_id"]), dimensions, side, network)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} does not fit the network that it is for: {reason}") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        # weights_only: a checkpoint from elsewhere must not run code.
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"there is no checkpoint at {path}") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is refused: a checkpoint may hold tensors and plain values only "
            f"({str(error).splitlines()[0]})"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is no checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(document, dict):
        raise ModelError(f"{path} is no checkpoint: it holds a {type(document).__name__}")
    return document
