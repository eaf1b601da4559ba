"""Which listings are hidden, on disk: for rows that are still to come.

It is a cache of ``listings.hidden`` in a RocksDB of this process alone. A batch of entries and the
position in the log that it leads to are one write, so after ``kill -9`` the next start reads on exactly
there; after a crash of the machine RocksDB recovers some earlier batch with its position. A store that
belongs to another topic, has another format, is damaged, or is behind what the log still has is thrown
away and filled again from the log's begin.

RocksDB was chosen over LMDB, which is twice as fast while all of it is in memory: a B+ tree takes the
page cache of its whole size to add random keys at that speed, writes each page that it touches, and is
either synced with every batch or may be damaged unnoticed by a crash of the machine.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    WriteBatch,
)

from shashin.errors import DiskUnavailable
from shashin.metrics import indexer as metrics
from shashin.offsets.log_position import LogPosition
from shashin.runtime.logging import get_logger
from shashin.serving.hidden_listings import LogBounds
from shashin.shards.visibility import HiddenEntry

FORMAT = "shashin.hidden-store/1"

_CACHE_BYTES = 64 * 1024 * 1024
_BUFFER_BYTES = 16 * 1024 * 1024
_BUFFERS = 3

_META = b"meta"
_LISTING = b"l:"
"""Before the id of a listing in its key."""

_FOLDER, _DAMAGED = "rocksdb", "damaged"

log = get_logger(__name__)


@dataclass(frozen=True)
class _Meta:
    """What the store reflects."""

    begin: LogPosition
    """Where its first read of the log began: earlier entries are missing."""
    position: LogPosition
    """Everything from the begin up to it is in the store."""
    listings: int

    def to_bytes(self) -> bytes:
        return json.dumps(
            {
                "format": FORMAT,
                "topic_id": self.position.topic_id,
                "begins": dict(self.begin.offsets),
                "offsets": dict(self.position.offsets),
                "listings": self.listings,
            }
        ).encode()

    @classmethod
    def of_bytes(cls, data: bytes) -> _Meta | None:
        """Return what was stored; None if it has another format."""
        document = json.loads(data)
        if document["format"] != FORMAT:
            return None
        begins, offsets = (
            LogPosition(document["topic_id"], {int(p): o for p, o in document[name].items()})
            for name in ("begins", "offsets")
        )
        return cls(begins, offsets, document["listings"])


class HiddenStore:
    """The lowest visible version of every hidden listing; one thread writes, any thread reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        """Held while the store is opened and closed."""
        self._db: Rdict | None = None
        self._failed = False
        """Whether the last use failed, so that it has to be opened again."""
        self._meta = _Meta(LogPosition(), LogPosition(), 0)

    def __len__(self) -> int:
        return self._meta.listings

    @property
    def begin(self) -> LogPosition:
        """The position from which on all entries are known."""
        return self._meta.begin

    @property
    def position(self) -> LogPosition:
        """The position before which all entries are known."""
        return self._meta.position

    def open_at(self, bounds: LogBounds) -> LogPosition:
        """Open the store, or begin a new one at the log's begin; returns where to read on.

        Raises:
            DiskUnavailable: when the folder cannot be written.
        """
        with self._lock:
            if self._db is not None and self._failed:
                self._db.close()
                self._db = None
            if self._db is None:
                self._db = self._open()
                self._failed = False
            why = self._unusable(bounds)
            if why is not None:
                if self._meta.position.offsets:
                    log.warning("hidden listings are read again from the log's begin", why=why)
                    metrics.HIDDEN_STORES_DISCARDED.inc()
                self._db.close()
                self._delete()
                self._db = self._open()
                self._meta = _Meta(LogPosition(bounds.topic_id), LogPosition(bounds.topic_id), 0)
            # A partition that is new is read from its begin.
            self._meta = _Meta(
                LogPosition(bounds.topic_id, {**bounds.begins, **self._meta.begin.offsets}),
                LogPosition(bounds.topic_id, {**bounds.begins, **self._meta.position.offsets}),
                self._meta.listings,
            )
            self._db.put(_META, self._meta.to_bytes())
            return self._meta.position

    def _unusable(self, bounds: LogBounds) -> str | None:
        """Return why what is stored is of no use; None if it is."""
        position = self._meta.position
        if not position.offsets:
            return "it is empty"
        if not position.may_be_of(bounds.topic_id):
            return (
                f"it belongs to topic {position.topic_id}, and the present one is {bounds.topic_id}"
            )
        for partition, offset in position.offsets.items():
            begin, end = bounds.begins.get(partition, 0), bounds.ends.get(partition, -1)
            if not begin <= offset <= end:
                return (
                    f"it reflects partition {partition} up to offset {offset}, and the log has "
                    f"{begin} to {end}"
                )
        return None

    def _open(self) -> Rdict:
        """Open RocksDB and read what it reflects; a damaged one is deleted first."""
        if (self._folder / _DAMAGED).exists():
            log.warning("damaged store of hidden listings: discarded", folder=str(self._folder))
            self._delete()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._opened()
        except OSError as error:
            raise DiskUnavailable(
                f"{self._folder} cannot be used: {error.strerror or error}"
            ) from error
        except Exception as error:
            # The library raises plain exceptions. A full disk, or another process, is no damage; a
            # file that is missing is.
            if str(error).startswith("IO error") and "No such file" not in str(error):
                raise DiskUnavailable(f"{self._folder} cannot be used: {error}") from error
            log.warning("unreadable store of hidden listings: discarded", error=str(error))
            self._delete()
        try:
            return self._opened()
        except Exception as error:
            raise DiskUnavailable(f"{self._folder} cannot be used: {error}") from error

    def _opened(self) -> Rdict:
        db = Rdict(str(self._folder / _FOLDER), _options())
        try:
            stored = db.get(_META)
            meta = None if stored is None else _Meta.of_bytes(stored)
        except BaseException:
            db.close()
            raise
        self._meta = meta or _Meta(LogPosition(), LogPosition(), 0)
        return db

    def _delete(self) -> None:
        shutil.rmtree(self._folder / _FOLDER, ignore_errors=True)
        (self._folder / _DAMAGED).unlink(missing_ok=True)

    def note(self, entries: Sequence[HiddenEntry], position: LogPosition) -> None:
        """Store entries and the position that they lead to, in one write.

        Raises:
            DiskUnavailable: when it cannot be read or written.
        """
        db = self._usable()
        highest: dict[bytes, int] = {}
        for entry in entries:
            key = _key(entry.listing_id)
            highest[key] = max(entry.below_version, highest.get(key, 0))
        try:
            stored = _values(db, list(highest))
            batch = WriteBatch(raw_mode=True)
            listings = self._meta.listings
            for (key, below), before in zip(highest.items(), stored, strict=True):
                if before is None or int.from_bytes(before, "little") < below:
                    batch.put(key, below.to_bytes(8, "little"))
                    listings += before is None
            meta = _Meta(self._meta.begin, position, listings)
            batch.put(_META, meta.to_bytes())
            db.write(batch)
        except Exception as error:
            raise self._failure(error) from error
        self._meta = meta

    def below(self, listing_id: str) -> int:
        """Return the version below which rows of the listing are hidden; 0 hides none."""
        ((_, below),) = self.below_each([listing_id])
        return below

    def below_each(self, listing_ids: Iterable[str]) -> list[tuple[str, int]]:
        """Return for each listing the version below which its rows are hidden; 0 hides none.

        Raises:
            DiskUnavailable: when it cannot be read.
        """
        ids = list(listing_ids)
        found = self._get([_key(listing_id) for listing_id in ids])
        return [
            (listing_id, 0 if value is None else int.from_bytes(value, "little"))
            for listing_id, value in zip(ids, found, strict=True)
        ]

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        db = self._usable()
        try:
            return _values(db, keys)
        except Exception as error:
            with self._lock:
                reopened = db is not self._db
            if not reopened:
                raise self._failure(error) from error
        return self._get(keys)

    def visible(self, listing_id: str, version: int) -> bool:
        """Whether a row of this version is visible."""
        return version >= self.below(listing_id)

    def close(self) -> None:
        """Close it; what was noted is there at the next start."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _usable(self) -> Rdict:
        assert self._db is not None, "open_at comes first"
        return self._db

    def _failure(self, error: Exception) -> DiskUnavailable:
        """Have the store opened again before the next read of the log; a damaged one is not used."""
        self._failed = True
        if "Corruption" in str(error):
            try:
                (self._folder / _DAMAGED).touch()
            except OSError as failed:
                log.warning("store cannot be marked as damaged", error=str(failed))
        return DiskUnavailable(f"hidden listings in {self._folder} cannot be used: {error}")


def _values(db: Rdict, keys: list[bytes]) -> list[bytes | None]:
    found: list[bytes | None] = db.get(list(keys)) or []
    return found


def _key(listing_id: str) -> bytes:
    return _LISTING + listing_id.encode()


def _options() -> Options:
    """Return options that bound memory at about 100 MB, however many listings there are."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_BUFFER_BYTES)
    options.set_max_write_buffer_number(_BUFFERS)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(_CACHE_BYTES))
    # Filters and indexes in small parts, so that they are cached and dropped like other blocks: whole
    # ones grow with the store, and are read again for each look-up once the cache is too small.
    table.set_bloom_filter(10, False)
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_top_level_index_and_filter(True)
    options.set_block_based_table_factory(table)
    return options
