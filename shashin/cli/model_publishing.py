"""``shashin model publish``: puts a model into the model repository, where embedders load it from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shashin.cli.options import DEFAULT_STATE, JsonOption, RepositoryOption, StateOption
from shashin.errors import UserError
from shashin.local.system import System
from shashin.model.loading import IN_REPOSITORY, TORCHVISION, checkpoint_of, published_id
from shashin.objectstore.open import opened_object_store
from shashin.repository.published_models import PublishedModel, PublishedModels, checkpoint_key
from shashin.terminal.console import echo, echo_json
from shashin.terminal.run import run


def publish(
    model: Annotated[
        str, typer.Argument(help="demo-v1, efficientnet-lite0, or the path of a checkpoint.")
    ],
    *,
    repository: RepositoryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Put a model into the model repository, under its id; idempotent.

    Embedders with SHASHIN_MODEL=repository:ID load it from there. A published model is never overwritten by
    another one of its id.
    """
    if model.startswith(TORCHVISION) or published_id(model) is not None:
        raise UserError(
            f"{model} is no checkpoint: expected the name of a model that comes along, or the path of a file"
        )
    from shashin.model.checkpoint import read_checkpoint

    path = checkpoint_of(model)
    checkpoint = read_checkpoint(path)
    uri = repository or System(state).repository
    found = run(_published(uri, path, checkpoint.model_id, checkpoint.dimensions))
    if as_json:
        echo_json(
            {
                "model": found.model_id,
                "dimensions": found.dimensions,
                "key": checkpoint_key(found.model_id),
                "size": found.file.size,
                "sha256": found.file.sha256,
            }
        )
        return
    echo(
        f"{found.model_id}: {found.file.size / 1e6:.1f} MB with SHA-256 {found.file.sha256} are "
        f"{checkpoint_key(found.model_id)} of {uri}",
        style="green",
    )
    echo(f"embedders:  SHASHIN_MODEL={IN_REPOSITORY}{found.model_id} with this SHASHIN_REPOSITORY")


async def _published(uri: str, path: Path, model_id: str, dimensions: int) -> PublishedModel:
    async with opened_object_store(uri) as store:
        return await PublishedModels(store).publish(path, model_id, dimensions)
