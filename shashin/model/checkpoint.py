"""A model in one file: what it is, how queries are searched with it, and its weights as float16.

Format 1 had the project's own network only, and no zooms.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from shashin.errors import ModelError, UserError
from shashin.model.lite_network import VARIANTS, LiteNetwork, LiteVariant
from shashin.model.network import PhotoNetwork
from shashin.model_space import check_model_id

FORMAT = 2
_READABLE = (1, FORMAT)

Network = PhotoNetwork | LiteNetwork


class _Architecture(NamedTuple):
    """A kind of network, as a checkpoint names it."""

    name: str
    pooling: str
    network: Callable[[int], Network]
    """Makes one of some dimensions."""
    made: Callable[[Network], bool]
    """Whether a network is of this kind."""
    side: int | None
    """The only side of its input, in pixels; None if there are several."""


def _lite(variant: LiteVariant, *, colours: bool) -> _Architecture:
    return _Architecture(
        variant.name,
        "regional-maximum and colours" if colours else "regional-maximum",
        partial(LiteNetwork, variant=variant, colours=colours),
        lambda network: (
            isinstance(network, LiteNetwork)
            and network.backbone.variant == variant
            and network.colours == colours
        ),
        variant.side,
    )


_ARCHITECTURES = (
    _Architecture(
        "photo-network",
        "generalised-mean",
        PhotoNetwork,
        lambda network: isinstance(network, PhotoNetwork),
        None,
    ),
    *(_lite(variant, colours=colours) for variant in VARIANTS for colours in (False, True)),
)


@dataclass(frozen=True)
class Checkpoint:
    """A network with its id and dimensions."""

    model_id: str
    dimensions: int
    side: int
    """Side of the network's square input, in pixels."""
    network: Network
    zooms: bool = False
    """Whether a query photo is also searched by its middle, since that finds more with this model."""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically."""
    (kind,) = (one for one in _ARCHITECTURES if one.made(checkpoint.network))
    document = {
        "format": FORMAT,
        "architecture": kind.name,
        "pooling": kind.pooling,
        "zooms": checkpoint.zooms,
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
    if document.get("format") not in _READABLE:
        raise ModelError(
            f"{path} has checkpoint format {document.get('format')!r}; this version reads "
            f"{' and '.join(map(str, _READABLE))}"
        )
    kind = _architecture(path, document)
    try:
        dimensions, side = int(document["dimensions"]), int(document["side"])
        if kind.side not in {None, side}:
            raise ModelError(f"a side of {side} pixels, expected {kind.side} for {kind.name}")
        network = kind.network(dimensions)
        network.load_state_dict(
            {
                name: value.float() if value.is_floating_point() else value
                for name, value in document["weights"].items()
            }
        )
        model_id = str(document["model_id"])
        check_model_id(model_id)
        zooms = bool(document.get("zooms", False))
        return Checkpoint(model_id, dimensions, side, network, zooms)
    except UserError as error:
        raise ModelError(f"{path}: {error.message}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} does not match the network: {reason}") from error


def _architecture(path: Path, document: dict[str, Any]) -> _Architecture:
    own = _ARCHITECTURES[0]
    if document["format"] == 1:
        return own
    name, pooling = document.get("architecture"), document.get("pooling")
    for kind in _ARCHITECTURES:
        if (kind.name, kind.pooling) == (name, pooling):
            return kind
    known = ", ".join(f"{kind.name} with {kind.pooling} pooling" for kind in _ARCHITECTURES)
    raise ModelError(
        f"{path} has a network {name!r} with pooling {pooling!r}; this version knows {known}"
    )


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
