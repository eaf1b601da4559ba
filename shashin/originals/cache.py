"""The cache: content-addressed files, and an entry for each URI that names its content.

    content/ab/<SHA-256 of the content>     an original
    uris/cd/<SHA-256 of the URI>            an entry (JSON): content hash, source's version, time
    unfinished/<random name>                what is being written

There are only files, so that any file system that processes share will do: a file appears under its
name once it is complete (a rename), its content is compared with its hash whenever it is read, and
an entry that names content which is gone is a miss. So there is nothing that a crash, another
process or a damaged disk could bring out of step. A file's time of modification is its last use.
A reader that has opened a file keeps it, even if another process removes it.

Nothing here raises because of the disk: an original that cannot be cached is fetched again, and
``problem`` says why.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from shashin.metrics import cache as metrics
from shashin.originals.entry import CacheEntry, SourceVersion, parse_entry
from shashin.originals.eviction import Eviction, StoredFile, plan_eviction
from shashin.runtime.failpoints import failpoint
from shashin.runtime.files import open_regular
from shashin.runtime.logging import get_logger

_CONTENT, _URIS, _UNFINISHED = "content", "uris", "unfinished"
_LOCK = ".prune-lock"
_HASH = re.compile(r"[0-9a-f]{64}")
_UNFINISHED_NAME = re.compile(r"[0-9a-f]{32}")

_MAX_ENTRY_BYTES = 64 * 1024
_TOUCH_SECONDS = 60.0
"""Uses within this time count as one, to save writes."""
_RETRY_SECONDS = 10.0
"""Pause of writing after a failure, for example on a full volume."""
_ABANDONED_SECONDS = 3600.0
"""Age of an unfinished file whose writer must have died."""
_PRUNE_SECONDS = 600.0
_PRUNE_SHARE = 64
"""Part of the cache that may be added before it is scanned again."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Original:
    """A photo as its source had it."""

    data: bytes
    sha256: bytes
    """Digest of ``data``, 32 bytes."""


@dataclass(frozen=True)
class CacheStats:
    """What is in a cache."""

    originals: int
    original_bytes: int
    entries: int
    entry_bytes: int
    unfinished: int
    """Files that are being written, or were left by a process that died."""
    oldest_use: float | None
    """When the original that was not used for longest was last used; seconds since 1970."""

    @property
    def bytes(self) -> int:
        """The size of the cache."""
        return self.original_bytes + self.entry_bytes


@dataclass(frozen=True)
class Pruned:
    """What was removed from a cache, or would be."""

    expired: int
    surplus: int
    bytes: int
    """Bytes of these."""
    left_bytes: int
    """Size of what stays."""


@dataclass(frozen=True)
class _Files:
    """Every file of a cache."""

    content: list[StoredFile]
    entries: list[StoredFile]
    unfinished: list[StoredFile]


class OriginalsCache:
    """Originals in a folder; for threads, and for any number of processes.

    ``clock`` returns seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        keep_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._write_again_at = float("-inf")
        self._pruned_at = float("-inf")
        self._added_bytes = 0
        self.problem: str | None = None
        """Why nothing is written at the moment; None if it is."""

    # --- reading --------------------------------------------------------------------------------

    def cached(self, uri: str, expected_sha256_prefix: bytes | None = None) -> Original | None:
        """Return the original at a URI without asking its source; None if it is not cached.

        With ``expected_sha256_prefix`` it is only returned if its digest begins with that.
        """
        entry = self.lookup(uri)
        if entry is None:
            return None
        if not bytes.fromhex(entry.sha256).startswith(expected_sha256_prefix or b""):
            metrics.LOOKUPS.labels("miss").inc()
            return None
        return self.read(entry)

    def lookup(self, uri: str) -> CacheEntry | None:
        """Return the entry of a URI; None if there is none. Its content may be gone."""
        path = self._entry_path(uri)
        try:
            with open_regular(path) as file:
                entry = parse_entry(file.read(_MAX_ENTRY_BYTES), uri)
        except FileNotFoundError:
            entry = None
        except OSError as error:
            self._note_error("read", error)
            entry = None
        else:
            if entry is None:
                self._drop_damaged(path, "entry")
        if entry is None:
            metrics.LOOKUPS.labels("miss").inc()
        return entry

    def read(self, entry: CacheEntry) -> Original | None:
        """Return the original that an entry names; None if it is gone or was damaged."""
        path = self._content_path(entry.sha256)
        original = None
        try:
            with open_regular(path) as file:
                data = file.read(entry.size + 1)
                used_at = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            _remove(self._entry_path(entry.uri))
        except OSError as error:
            self._note_error("read", error)
        else:
            digest = hashlib.sha256(data).digest()
            if len(data) == entry.size and digest.hex() == entry.sha256:
                original = Original(data, digest)
                self._note_use(used_at, path, self._entry_path(entry.uri))
            else:
                self._drop_damaged(path, "original")
                _remove(self._entry_path(entry.uri))
        metrics.LOOKUPS.labels("miss" if original is None else "hit").inc()
        return original

    def _note_use(self, used_at: float, *paths: Path) -> None:
        now = self._clock()
        if now - used_at > _TOUCH_SECONDS:
            for path in paths:
                with suppress(OSError):
                    os.utime(path, (now, now))

    def _drop_damaged(self, path: Path, what: str) -> None:
        metrics.ERRORS.labels("damaged").inc()
        log.warning("dropped a damaged file of the cache", what=what, path=str(path))
        _remove(path)

    # --- writing --------------------------------------------------------------------------------

    def store(self, uri: str, original: Original, version: SourceVersion) -> bool:
        """Add an original; returns whether it is cached. A failure is noted in ``problem``."""
        entry = CacheEntry(uri, original.sha256.hex(), len(original.data), version, self._clock())
        return self._writing(lambda: self._store(entry, original.data))

    def confirm(self, entry: CacheEntry) -> bool:
        """Note that the source still has what an entry names; returns whether it was noted."""
        confirmed = replace(entry, fetched_at=self._clock())
        return self._writing(lambda: self._write_entry(confirmed))

    def forget(self, uri: str) -> None:
        """Drop the entry of a URI, so that the source is asked the next time."""
        _remove(self._entry_path(uri))

    def _writing(self, write: Callable[[], None]) -> bool:
        if self._clock() < self._write_again_at:
            return False
        try:
            write()
        except OSError as error:
            self._write_again_at = self._clock() + _RETRY_SECONDS
            self._note_error("write", error)
            self.problem = (
                f"photos are not cached: {self.folder} cannot be written "
                f"({(error.strerror or str(error)).lower()})"
            )
            return False
        self.problem = None
        return True

    def _store(self, entry: CacheEntry, data: bytes) -> None:
        path = self._content_path(entry.sha256)
        if _holds(path, data):
            with suppress(FileNotFoundError):  # it was evicted just now: a miss the next time
                os.utime(path, (entry.fetched_at, entry.fetched_at))
        else:
            self._write(path, data)
            self._added_bytes += len(data)
            metrics.WRITTEN_BYTES.inc(len(data))
        failpoint("after-content")
        self._write_entry(entry)
        failpoint("after-entry")

    def _write_entry(self, entry: CacheEntry) -> None:
        # Not forced to the disk: an entry that a power failure damages is a miss.
        self._write(self._entry_path(entry.uri), entry.encoded(), force=False)

    def _write(self, path: Path, data: bytes, *, force: bool = True) -> None:
        """Write a file that appears under its name once it is complete."""
        unfinished = self.folder / _UNFINISHED / uuid.uuid4().hex
        for folder in (unfinished.parent, path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb", buffering=0) as file:
                half = len(data) // 2
                for part in (memoryview(data)[:half], memoryview(data)[half:]):
                    _write_all(file.fileno(), part)
                    failpoint("amid-content")
                if force:
                    os.fsync(file.fileno())
            now = self._clock()
            os.utime(unfinished, (now, now))
            unfinished.replace(path)
        except BaseException:
            _remove(unfinished)
            raise

    def _note_error(self, what: str, error: OSError) -> None:
        metrics.ERRORS.labels(what).inc()
        log.warning("cache of originals failed", what=what, error=str(error))

    # --- pruning --------------------------------------------------------------------------------

    def prune_if_due(self) -> Pruned | None:
        """Prune when enough was added, or ten minutes have passed; None if it was not due."""
        due = (
            self._added_bytes * _PRUNE_SHARE >= self._max_bytes
            or self._clock() - self._pruned_at >= _PRUNE_SECONDS
        )
        return self.prune() if due else None

    def prune(self, *, dry_run: bool = False) -> Pruned | None:
        """Remove what was not used for too long, and what does not fit, least recently used first.

        Returns None if another process is pruning, or if the folder cannot be read.
        """
        self._pruned_at = self._clock()
        self._added_bytes = 0
        try:
            with self._only_pruner(needed=not dry_run) as alone:
                return self._prune(dry_run=dry_run) if alone else None
        except OSError as error:
            self._note_error("prune", error)
            return None

    def _prune(self, *, dry_run: bool) -> Pruned:
        files, now = self._files(), self._clock()
        plan = plan_eviction(
            files.content,
            max_bytes=max(0, self._max_bytes - sum(file.size for file in files.entries)),
            oldest_use=now - self._keep_seconds,
        )
        removed = [*plan.expired, *plan.surplus]
        kept = {file.path.name for file in files.content} - {file.path.name for file in removed}
        # Entries are used with their content, give or take what counts as one use.
        unused = [file for file in files.entries if file.last_use <= plan.before + _TOUCH_SECONDS]
        dangling = [file for file in unused if not self._has_content(file.path, kept)]
        if not dry_run:
            self._remove_planned(plan, dangling)
            for file in files.unfinished:
                if now - file.last_use > _ABANDONED_SECONDS:
                    _remove(file.path)
        removed_bytes = sum(file.size for file in [*removed, *dangling])
        left = sum(file.size for file in [*files.content, *files.entries]) - removed_bytes
        metrics.BYTES.set(left)
        return Pruned(len(plan.expired), len(plan.surplus), removed_bytes, left)

    def _has_content(self, entry_path: Path, kept: set[str]) -> bool:
        try:
            with open_regular(entry_path) as file:
                entry = parse_entry(file.read(_MAX_ENTRY_BYTES))
        except OSError:
            return False
        return entry is not None and entry.sha256 in kept

    def _remove_planned(self, plan: Eviction, dangling: Sequence[StoredFile]) -> None:
        for reason, files in (("age", plan.expired), ("size", plan.surplus)):
            for file in files:
                # Another process may have used it since the scan.
                if _is_unused_since(file) and _remove(file.path):
                    metrics.EVICTIONS.labels(reason).inc()
        for file in dangling:
            if _is_unused_since(file):
                _remove(file.path)

    @contextmanager
    def _only_pruner(self, *, needed: bool) -> Iterator[bool]:
        if not needed or not self.folder.is_dir():
            yield True
            return
        with (self.folder / _LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def stats(self) -> CacheStats:
        """Count what is in the cache.

        Raises:
            OSError: when the folder cannot be read.
        """
        files = self._files()
        return CacheStats(
            originals=len(files.content),
            original_bytes=sum(file.size for file in files.content),
            entries=len(files.entries),
            entry_bytes=sum(file.size for file in files.entries),
            unfinished=len(files.unfinished),
            oldest_use=min((file.last_use for file in files.content), default=None),
        )

    def _files(self) -> _Files:
        return _Files(
            [file for folder in _folders(self.folder / _CONTENT) for file in _found(folder, _HASH)],
            [file for folder in _folders(self.folder / _URIS) for file in _found(folder, _HASH)],
            list(_found(self.folder / _UNFINISHED, _UNFINISHED_NAME)),
        )

    # --- names ----------------------------------------------------------------------------------

    def _content_path(self, sha256: str) -> Path:
        return self.folder / _CONTENT / sha256[:2] / sha256

    def _entry_path(self, uri: str) -> Path:
        name = hashlib.sha256(uri.encode()).hexdigest()
        return self.folder / _URIS / name[:2] / name


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file has these bytes; it may have been damaged since it was written."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _remove(path: Path) -> bool:
    """Remove a file; returns whether it was there."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _is_unused_since(file: StoredFile) -> bool:
    try:
        return file.path.stat().st_mtime <= file.last_use
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def _found(folder: Path, names: re.Pattern[str]) -> Iterator[StoredFile]:
    """Yield the files of a folder that have such a name; others are not the cache's own."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield StoredFile(Path(entry.path), found.st_size, found.st_mtime)
    except FileNotFoundError:
        return
