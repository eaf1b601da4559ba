"""A model in one file: its id, its dimensions, and its weights as float16."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shashin.errors import ModelError, UserError
from shashin.model.network import PhotoNetwork
from shashin.model_space import check_model_id

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network with its id and dimensions."""

    model_id: str
    dimensions: int
    side: int
    """Side of the network's square input, in pixels."""
    network: PhotoNetwork


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically."""
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
        ModelError: if the file is missing, contains more than tensors and plain values, or does not
            match the network.
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
        model_id = str(document["model_id"])
        check_model_id(model_id)
        return Checkpoint(model_id, dimensions, side, network)
    except UserError as error:
        raise ModelError(f"{path}: {error.message}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} does not match the network: {reason}") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        # weights_only: an untrusted checkpoint must not run code.
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"there is no checkpoint at {path}") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is rejected: a checkpoint may contain only tensors and plain values "
            f"({str(error).splitlines()[0]})"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is not a checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(document, dict):
        raise ModelError(f"{path} is not a checkpoint: it contains a {type(document).__name__}")
    return document
