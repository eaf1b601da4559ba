"""``embed``: makes the vectors of a re-index. A build that merges shards uses those that they store."""

from __future__ import annotations

import asyncio

from shashin.builds.step import StepContext
from shashin.runtime.settings import load_settings


async def run(step: StepContext) -> None:
    """Embed the fetched photos, or leave everything to the build step, which reads stored vectors."""
    if step.build.spec.source.reindex is None:
        step.log.info("nothing to embed: the vectors of the selected shards are used")
        return
    # Imported here: a merge needs no model, and hence no torch.
    from shashin.builds.reindex.models import BuildEmbeddingSettings
    from shashin.builds.reindex.vectors import embed_photos, published_checkpoint

    settings = load_settings(BuildEmbeddingSettings)
    checkpoint = await published_checkpoint(step, settings)
    await asyncio.to_thread(embed_photos, step, settings, checkpoint)
