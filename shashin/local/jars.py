"""Kafka's jars: pinned by version and SHA-256, downloaded once, verified before each start."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import FetchFailed, JarMismatch, UserError

PIN_FILE = Path(__file__).with_name("kafka_jars.json")
CACHE_VARIABLE = "SHASHIN_CACHE"

_FETCHERS = 6
_ATTEMPTS = 4

FetchProgress = Callable[[int, int], None]
"""Called with the bytes downloaded so far and the total."""


@dataclass(frozen=True, order=True)
class Jar:
    """One pinned jar of the class path."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int
    """Bytes."""

    @property
    def coordinate(self) -> str:
        """Its Maven coordinate."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def filename(self) -> str:
        """Its file name."""
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True)
class PinnedJars:
    """A Kafka version and all of its jars."""

    kafka_version: str
    jars: tuple[Jar, ...]


def read_pins(path: Path = PIN_FILE) -> PinnedJars:
    """Read the pinned jars."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return PinnedJars(document["kafka"], tuple(Jar(**entry) for entry in document["jars"]))


def user_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the per-user download cache: ``$SHASHIN_CACHE``, or the platform's default."""
    if chosen := environment.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "shashin"
    if (xdg := environment.get("XDG_CACHE_HOME")) and Path(xdg).is_absolute():
        return Path(xdg) / "shashin"
    return Path.home() / ".cache" / "shashin"


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_pinned(path: Path, jar: Jar) -> bool:
    """Return whether the file is exactly that jar."""
    try:
        return path.stat().st_size == jar.size and sha256_of(path) == jar.sha256
    except (FileNotFoundError, NotADirectoryError):
        return False


def ensure_jars(
    pins: PinnedJars | None = None,
    *,
    cache: Path | None = None,
    progress: FetchProgress | None = None,
) -> list[Path]:
    """Return the class path, downloading jars that are missing from the cache or do not match.

    Needs no network if the cache is complete. Safe to call from several processes at once.

    Raises:
        FetchFailed: if a jar cannot be downloaded.
        JarMismatch: if a downloaded jar is not the pinned one; it is discarded.
        UserError: if the cache folder cannot be read or written.
    """
    pins = pins or read_pins()
    root = cache or user_cache()
    folder = root / f"kafka-{pins.kafka_version}"
    try:
        if _missing(folder, pins.jars):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / "lock"):
                missing = _missing(folder, pins.jars)  # another process may have downloaded them
                with tempfile.TemporaryDirectory(dir=folder, prefix="fetching-") as staging:
                    _fetch(missing, Path(staging), folder, progress)
    except OSError as error:
        raise UserError(
            f"cannot store kafka's jars in {folder} ({error.strerror or error}): make it writable "
            f"with 100 MB free, or set {CACHE_VARIABLE} to another folder"
        ) from error
    return [folder / jar.filename for jar in pins.jars]


def _missing(folder: Path, jars: Sequence[Jar]) -> list[Jar]:
    return [jar for jar in jars if not is_pinned(folder / jar.filename, jar)]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Counter:
    """Adds up the bytes downloaded by all threads."""

    def __init__(self, total: int, progress: FetchProgress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            if self._progress is not None:
                self._progress(self._done, self._total)


def _fetch(
    jars: Sequence[Jar], staging: Path, folder: Path, progress: FetchProgress | None
) -> None:
    counter = _Counter(sum(jar.size for jar in jars), progress)
    with ThreadPoolExecutor(_FETCHERS) as pool:
        for jar, path in zip(jars, pool.map(lambda jar: download(jar, staging), jars), strict=True):
            if not is_pinned(path, jar):
                raise JarMismatch(
                    f"{jar.coordinate} was downloaded with SHA-256 {sha256_of(path)} instead of the pinned "
                    f"{jar.sha256}: it is not used; check for a proxy or mirror that alters downloads"
                )
            counter.add(jar.size)
            path.replace(folder / jar.filename)


def download(jar: Jar, staging: Path) -> Path:
    """Download a jar from Maven Central, or from the repositories of the user's jgo settings.

    Raises:
        FetchFailed: if no repository has it.
    """
    import requests
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    repositories = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    # Local Maven repositories are not used: a pinned jar comes from its publisher or a mirror.
    context = MavenContext(
        repo_cache=staging, local_repos=[], remote_repos=repositories, timeout=30
    )
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return Path(artifact.resolve())
        except requests.RequestException as error:
            # jgo writes the file in place, and takes an existing one to be complete.
            shutil.rmtree(staging / artifact.component.path_prefix, ignore_errors=True)
            if attempt == _ATTEMPTS:
                raise FetchFailed(_unfetched(jar, repositories.values(), error)) from error
            time.sleep(0.5 * 2**attempt)
        except RuntimeError as error:
            raise FetchFailed(_unfetched(jar, repositories.values(), error)) from error
    raise AssertionError


def _unfetched(jar: Jar, repositories: Iterable[str], error: Exception) -> str:
    return (
        f"{jar.coordinate} cannot be downloaded from {', '.join(repositories)} ({error}): "
        "the first start needs network access; configure a mirror in jgo's settings"
    )
