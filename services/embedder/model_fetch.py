"""Fetches the model from the model repository before it is loaded."""

from __future__ import annotations

from pathlib import Path

from shashin.errors import ShashinError
from shashin.objectstore.open import opened_object_store
from shashin.redaction import without_user_names
from shashin.repository.published_models import PublishedModel, PublishedModels
from shashin.runtime.scope import LoopScope


async def fetch_model(
    start: LoopScope, repository: str, model_id: str, folder: Path
) -> tuple[PublishedModel, Path]:
    """Return a model's manifest and its verified checkpoint in a folder.

    While the object store does not respond, it is asked again, and /readyz says why the process is not ready.

    Raises:
        ModelNotPublished, CorruptModel, UnknownFormat: as ``PublishedModels.fetch``; a restart cannot help.
        ObjectStoreError: when the store refuses.
    """
    what = f"model {model_id} from {without_user_names(repository)}"
    start.not_ready(f"fetching {what}")
    async with opened_object_store(repository) as store:
        models = PublishedModels(store)

        async def fetch() -> tuple[PublishedModel, Path]:
            try:
                return await models.fetch(model_id, folder)
            except ShashinError as error:
                # An embedder that answers queries is ready while it is degraded, but not before its start.
                start.not_ready(f"fetching {what}: {error.message}")
                raise

        return await start.retry(what, fetch)
