"""Reports the manifests that could not be read at startup, until they can be."""

from __future__ import annotations

from collections.abc import Iterable

from shashin.errors import ObjectNotFound, ShashinError
from shashin.metrics import indexer as metrics
from shashin.repository.repository import ModelRepository, UnreadableShard
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

_POLL_SECONDS = 30.0

log = get_logger(__name__)


class UnreadableManifests:
    """The shards whose manifest could not be read at startup.

    Their ranges count as sealed, so this process does not hold their rows. Index servers that have
    them keep serving them; the image builder adds the others once they can be read.
    """

    def __init__(
        self,
        repository: ModelRepository,
        unreadable: Iterable[UnreadableShard],
        *,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self._repository = repository
        self._problems = {shard.manifest_key: shard.error.message for shard in unreadable}
        self._poll_seconds = poll_seconds

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("unreadable manifests", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Report each of them, and try to read it again, until stopped."""
        for key, problem in self._problems.items():
            log.error("unreadable manifest: its range counts as sealed", key=key, error=problem)
            loop.degraded(f"manifest {key}", problem)
        metrics.UNREADABLE_MANIFESTS.set(len(self._problems))
        while self._problems and await loop.sleep(self._poll_seconds):
            for key in list(self._problems):
                with loop.waiting_for(f"manifest {key}"):
                    await self._check(key, loop)
        await loop.until_stopped()

    async def _check(self, key: str, loop: LoopScope) -> None:
        try:
            await self._repository.read_shard(key)
        except ObjectNotFound:
            # Deleted, so that the range is sealed again: only a start reads it from the log.
            loop.degraded(
                f"manifest {key}",
                "deleted, and its range was not read from the log: restart this indexer",
            )
        except ShashinError as error:
            loop.degraded(f"manifest {key}", error.message)
        else:
            log.info("manifest can be read again", key=key)
            del self._problems[key]
            loop.clear(f"manifest {key}")
            metrics.UNREADABLE_MANIFESTS.set(len(self._problems))
