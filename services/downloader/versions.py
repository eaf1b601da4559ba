"""The newest version seen of each listing, to detect versions that go backwards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from shashin.errors import StaleVersion
from shashin.kafka.records import InRecord


class NewestVersions:
    """An LRU map of a bounded number of listings.

    Once a listing is evicted, an older version of it is accepted. Hidden versions stay hidden even
    then, since visibility depends on the highest ``below_version``.
    """

    def __init__(self, max_listings: int) -> None:
        self._max_listings = max_listings
        self._newest: OrderedDict[str, tuple[int, int, int]] = OrderedDict()
        """Partition, offset and version of the listing's newest event."""

    def check(self, record: InRecord, listing_id: str, version: int) -> None:
        """Remember a version.

        The same version again is a redelivery and accepted, and so is an older version that
        precedes the newest in the log: it, or its batch, is being retried.

        Raises:
            StaleVersion: when a newer version precedes it in the log.
        """
        _, offset, newest = self._newest.get(listing_id, (record.partition, record.offset, 0))
        if version < newest:
            if record.offset < offset:
                return
            raise StaleVersion(
                f"{record}, listing {listing_id} has version {version} after version {newest}: "
                "versions must increase with every event"
            )
        self._newest[listing_id] = (record.partition, record.offset, version)
        self._newest.move_to_end(listing_id)
        if len(self._newest) > self._max_listings:
            self._newest.popitem(last=False)

    def forget(self, partitions: Sequence[int]) -> None:
        """Forget the listings of partitions that were reassigned."""
        lost = set(partitions)
        for listing_id in [
            key for key, (partition, _, _) in self._newest.items() if partition in lost
        ]:
            del self._newest[listing_id]
