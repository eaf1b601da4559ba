"""Loading a model by its name.

``demo-v1`` is the project's own model, ``efficientnet-lite0`` the one for real photos, ``torchvision:NAME``
a torchvision backbone with its weights, ``repository:ID`` a model that was published in the model repository
(``shashin model publish``), anything else the path of a checkpoint. A new kind of model is one more function here.

A published model is named by its id alone, without the repository's URI: that is a setting which all services
share, so a repository that is copied or moved is one changed setting, and an id that is published once means
the same model everywhere. Whoever names one has to fetch it first (shashin.repository.published_models).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shashin.errors import ModelError, UnknownModel
from shashin.model_space import ModelSpace, check_model_id

if TYPE_CHECKING:
    from shashin.model.embedder import PhotoEmbedder

DEMO = "demo-v1"
LITE = "efficientnet-lite0"
SHIPPED = {DEMO: 128, LITE: 256}
"""The models that come along, with their dimensions."""

TORCHVISION = "torchvision:"
IN_REPOSITORY = "repository:"

_PLACES = (
    Path(__file__).parents[2] / "models",  # a checkout
    Path(__file__).parent / "models",  # an installed wheel
)


@dataclass(frozen=True)
class ModelDescription:
    """What the rest of the system needs to know about a model."""

    model_id: str
    dimensions: int


def published_id(model: str) -> str | None:
    """Return the id of a model that is in the model repository; None if it is elsewhere.

    Raises:
        UserError: if it cannot be an id.
    """
    if not model.startswith(IN_REPOSITORY):
        return None
    model_id = model.removeprefix(IN_REPOSITORY)
    check_model_id(model_id)
    return model_id


def shipped_checkpoint(model: str) -> Path:
    """Return the path of the checkpoint of a model that comes along.

    Raises:
        ModelError: if it is missing from the installation.
    """
    for place in _PLACES:
        path = place / model / "checkpoint.pt"
        if path.exists():
            return path
    raise ModelError(f"the checkpoint of {model} is missing from this installation")


def checkpoint_of(model: str) -> Path:
    """Return the path of the checkpoint of a model that comes along, or of one that is a file.

    Raises:
        UnknownModel: if it is neither.
        ModelError: if it is missing from the installation.
    """
    if model in SHIPPED:
        return shipped_checkpoint(model)
    if Path(model).is_file():
        return Path(model)
    raise UnknownModel(
        f"unknown model {model!r}: expected {', '.join(SHIPPED)}, {TORCHVISION}NAME (such as "
        f"{TORCHVISION}resnet50), {IN_REPOSITORY}ID where a model repository is known, or the path of a "
        "checkpoint"
    )


def describe_model(model: str) -> ModelDescription:
    """Return a model's id and dimensions.

    Raises:
        UnknownModel: if there is no such model.
        ModelError: if it cannot be loaded.
    """
    if model in SHIPPED:
        return ModelDescription(model, SHIPPED[model])  # known without importing torch
    loaded = load_embedder(model)
    return ModelDescription(loaded.model_id, loaded.dimensions)


def load_embedder(model: str, *, threads: int = 1) -> PhotoEmbedder:
    """Load a model; ``threads`` sets torch's threads per call, for the whole process.

    Raises:
        UnknownModel: if there is no such model.
        ModelError: if it cannot be loaded.
    """
    import torch

    from shashin.model.checkpoint import read_checkpoint
    from shashin.model.embedder import embedder_of

    torch.set_num_threads(threads)
    if model.startswith(TORCHVISION):
        return _torchvision_embedder(model.removeprefix(TORCHVISION))
    return embedder_of(read_checkpoint(checkpoint_of(model)))


def load_published(path: Path, space: ModelSpace, *, threads: int = 1) -> PhotoEmbedder:
    """Load the checkpoint of a published model, which has to be of its model space.

    Raises:
        ModelError: if it cannot be loaded, or is of another model.
    """
    loaded = load_embedder(str(path), threads=threads)
    found = ModelSpace(loaded.model_id, loaded.dimensions)
    if found != space:
        raise ModelError(
            f"{path} is {found}, but was published as {space}: publish it under its own id"
        )
    return loaded


def _torchvision_embedder(name: str) -> PhotoEmbedder:
    import torch
    from torch import nn
    from torchvision import models

    from shashin.model.embedder import PhotoEmbedder

    if name not in models.list_models(module=models):
        known = ", ".join(n for n in ("resnet50", "efficientnet_b0", "convnext_tiny", "vit_b_16"))
        raise UnknownModel(f"torchvision has no classifier {name!r}; it has {known} and more")
    try:
        weights = models.get_model_weights(name).DEFAULT
        network = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights of {TORCHVISION}{name} cannot be downloaded ({error}): the first use needs "
            "network access, after that they are in torch's cache"
        ) from error
    # The features before the classification head are the embedding.
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
            break
    else:
        raise ModelError(f"{TORCHVISION}{name} has no known classification head to remove")
    transform = weights.transforms()
    with torch.inference_mode():
        blank = transform(torch.zeros(3, 64, 64, dtype=torch.uint8))[None]
        dimensions = int(network.eval()(blank).flatten(1).shape[1])

    def prepare(photo: object) -> torch.Tensor:
        prepared: torch.Tensor = transform(photo)
        return prepared

    return PhotoEmbedder(f"torchvision-{name}", dimensions, network, prepare)
