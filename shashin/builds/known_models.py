"""Checks that a build's model is one whose shards the repository has."""

from __future__ import annotations

from shashin.builds.document import KIND, IndexBuild
from shashin.documents.suggestions import suggestion
from shashin.errors import UserError
from shashin.objectstore.open import opened_object_store
from shashin.repository.known_shards import known_models


async def require_known_model(build: IndexBuild, repository: str) -> None:
    """Check that the repository has shards of the model whose shards the build reads.

    Raises:
        UserError: if it has none, naming the models that it has; or if the URI is invalid.
        ObjectStoreError: when the repository does not respond.
    """
    reindex = build.spec.source.reindex
    field, model = (
        ("spec.model", build.spec.model)
        if reindex is None
        else ("spec.source.reindex.fromModel", reindex.from_model)
    )
    async with opened_object_store(repository) as store:
        known = await known_models(store)
    if model in known:
        return
    if not known:
        raise UserError(f"{KIND} {build.name}: the repository {repository} has no shards yet")
    raise UserError(
        f"{KIND} {build.name}: {field}: the repository {repository} has no shard of "
        f"{model!r}{suggestion(model, known)}"
    )
