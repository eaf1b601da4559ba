"""Where the indexer of a second model begins to read, while another model is active.

Everything before that offset comes from builds, which embed the photos of the active model's shards
again. So a listing is lost if the active model's record of it is at or after the offset, and this
model's record before it. This model's embedder starts at the begin of ``images.downloaded``; whatever
the active model's embedder writes from now on comes from images that are still there. The end of
``vectors.embedded`` is right, then, as long as this model's embedder has not begun: all that it
writes is after the end. If it has begun, the offset of its first record is right: what the active
model's embedder wrote after that record comes from images that both have read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.indexer.settings import IndexerSettings
from shashin.codecs.events import parse_embedded
from shashin.errors import UnparsableRecord
from shashin.kafka.groups import embedder_group
from shashin.kafka.log_reader import LogReader
from shashin.kafka.topic_admin import group_has_begun
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.active_model import ActiveModels
from shashin.repository.horizons import Horizons
from shashin.runtime.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class LiveStart:
    """How a partition begins that a model has never opened."""

    horizon: int
    """For a second model, that of the active one."""
    live_from: int | None
    """None to read from the horizon on."""


class BesideActiveModel:
    """Decides how the partitions of a model begin that is not the active one."""

    def __init__(self, settings: IndexerSettings, store: ObjectStore) -> None:
        self._settings = settings
        self._store = store

    async def starts(self, partitions: Sequence[int]) -> dict[int, LiveStart]:
        """Return how partitions begin that this model has never opened.

        Without those that the active model has not opened either; none if this model is the active
        one, or no model is.

        Raises:
            RepositoryError: when the active model, or one of its horizons, cannot be read.
            KafkaUnavailable: when the broker does not respond.
            ObjectStoreError: when the store does not respond or refuses.
        """
        active = await ActiveModels(self._store).read()
        if active is None or active.model == self._settings.model_id:
            return {}
        horizons = Horizons(self._store, active.model)
        stored = {partition: await horizons.read(partition) for partition in partitions}
        opened = {partition: found.offset for partition, found in stored.items() if found}
        first = await self._live_from(list(opened))
        log.info("beginning beside the active model", active=active.model, live_from=first)
        return {p: LiveStart(horizon, first[p]) for p, horizon in opened.items()}

    async def _live_from(self, partitions: Sequence[int]) -> Mapping[int, int]:
        kafka, group = self._settings.kafka, embedder_group(self._settings.model_id)
        async with LogReader(kafka, VECTORS_EMBEDDED, client_id="indexer") as reader:
            # Before the group is looked at: an embedder that begins later writes after these ends.
            ends = await reader.end_offsets(partitions)
            if not await group_has_begun(kafka, group):
                return ends
            begins = await reader.begin_offsets(partitions)
            first = dict(ends)
            async for record in reader.between(begins, ends):
                try:
                    model_id = parse_embedded(record).model_id
                except UnparsableRecord:
                    continue
                if model_id == self._settings.model_id:
                    first[record.partition] = min(first[record.partition], record.offset)
            return first
