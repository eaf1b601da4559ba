"""The newest version seen of each listing, to notice one that goes backwards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from shashin.errors import StaleVersion
from shashin.kafka.records import InRecord


class NewestVersions:
    """Remembers a bounded number of listings, the last used longest.

    A version that is forgotten lets an older one pass: what is hidden stays hidden all the same,
    since visibility is decided by the greatest ``below_version``, not here.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._newest: OrderedDict[str, tuple[int, int, int]] = OrderedDict()
        """Partition, offset and version of the listing's newest event."""

    def check(self, record: InRecord, listing_id: str, version: int) -> None:
        """Remember a version.

        The same one again is a redelivery, and fine; so is an older one that stands before the
        newest in the log: it is tried again, or the batch is.

        Raises:
            StaleVersion: when a newer version stands before it in the log.
        """
        _, offset, newest = self._newest.get(listing_id, (record.partition, record.offset, 0))
        if version < newest:
            if record.offset < offset:
                return
            raise StaleVersion(
                f"{record}, listing {listing_id} has version {version} after version {newest}: "
                "versions have to grow with every event"
            )
        self._newest[listing_id] = (record.partition, record.offset, version)
        self._newest.move_to_end(listing_id)
        if len(self._newest) > self._at_most:
            self._newest.popitem(last=False)

    def forget(self, partitions: Sequence[int]) -> None:
        """Forget the listings of partitions that somebody else reads now."""
        gone = set(partitions)
        for listing_id in [key for key, (owner, _, _) in self._newest.items() if owner in gone]:
            del self._newest[listing_id]
