"""A sealed shard, memory-mapped; the caller has verified its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shashin.offsets.ranges import OffsetRange
from shashin.shards.files import open_files
from shashin.shards.format.manifest import Manifest
from shashin.shards.kinds.protocol import StackMember
from shashin.shards.listing_index import Hashes
from shashin.shards.shard import Shard


class SealedShard(Shard):
    """One shard of the repository.

    Raises:
        CorruptShard: when a file does not match the manifest.
        UnknownFormat: when a file has a format that this reader does not support.
    """

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        files = open_files(folder, manifest.index_spec, rows=manifest.rows)
        super().__init__(files.rows, files.index)
        self._sealed_rows = files.rows
        self.manifest = manifest
        self.shard_id = manifest.shard_id
        self.tier = manifest.tier
        self.stack_member = StackMember(
            files.index,
            self._masked.flags,
            files.rows.columns(len(files.rows)).group,
            files.rows.listings,
            self._masked,
        )
        """What a stack needs to search the shard with others."""

    def supersede(self, listing_id: str, below_version: int) -> None:
        """Find the listing's rows of lower versions no more if this shard has a newer version."""
        numbers = self._sealed_rows.rows_of(listing_id)
        older = self._sealed_rows.versions_of(numbers) < np.uint64(below_version)
        if not older.all():
            self._masked.replace_rows(numbers[older])

    @property
    def listing_hashes(self) -> Hashes:
        """The hash of each row's listing, sorted."""
        return self._sealed_rows.sorted_hashes

    def listing_ids(self) -> list[str]:
        """Return the distinct listings; takes a microsecond per row."""
        return self._sealed_rows.listing_ids()

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The log ranges that the shard was built from."""
        return self.manifest.source_ranges

    @property
    def bucket_start(self) -> int | None:
        """Unix seconds."""
        return self.manifest.bucket_start

    @property
    def bucket_seconds(self) -> int:
        """Length of the bucket."""
        return self.manifest.bucket_seconds
