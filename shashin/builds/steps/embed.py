"""``embed``: makes the vectors. A build that merges shards uses those that they store."""

from __future__ import annotations

from shashin.builds.step import StepContext


async def run(step: StepContext) -> None:
    """Leave everything to the build step, which reads stored vectors."""
    step.log.info("nothing to embed: the vectors of the selected shards are used")
