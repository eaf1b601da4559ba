"""The newest version seen of each listing, to notice one that goes backwards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from shashin.errors import StaleVersion


class NewestVersions:
    """Remembers a bounded number of listings, the last used longest.

    A version that is forgotten lets an older one pass: what is hidden stays hidden all the same,
    since visibility is decided by the greatest ``below_version``, not here.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._newest: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def check(self, partition: int, listing_id: str, version: int, where: str) -> None:
        """Remember a version; the same one again is a redelivery, and fine.

        Raises:
            StaleVersion: when a newer one was seen on the partition.
        """
        _, newest = self._newest.get(listing_id, (partition, 0))
        if version < newest:
            raise StaleVersion(
                f"{where}, listing {listing_id} has version {version} after version {newest}: "
                "versions have to grow with every event"
            )
        self._newest[listing_id] = (partition, version)
        self._newest.move_to_end(listing_id)
        if len(self._newest) > self._at_most:
            self._newest.popitem(last=False)

    def forget(self, partitions: Sequence[int]) -> None:
        """Forget the listings of partitions that somebody else reads now."""
        gone = set(partitions)
        for listing_id in [key for key, (owner, _) in self._newest.items() if owner in gone]:
            del self._newest[listing_id]
