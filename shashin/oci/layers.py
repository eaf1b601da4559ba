"""Layers: files as one uncompressed tar, the same bytes on every machine.

Nothing of the machine is in it: no time, no owner, no mode. Vectors hardly compress (by 8 %), so
layers are not compressed, and a layer's digest is also its diff id. The tar is never written to disk:
it is hashed and sent as its files are read.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePosixPath

from shashin.errors import CorruptBlob, UserError

FILE_MODE = 0o444
FOLDER_MODE = 0o555

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
"""Relative, without hidden parts: no name can be a whiteout (``.wh.``) or leave its folder."""


@dataclass(frozen=True)
class LayerFile:
    """One file of a layer."""

    path: str
    """In the image, without the leading slash: ``indexes/a/rows.arrow``."""
    size: int
    """Bytes."""
    read: Callable[[], AsyncGenerator[bytes]]
    """Returns its bytes from the start, in chunks of at most a few MiB; can be called again."""


@dataclass(frozen=True)
class Layer:
    """Files that are appended to an image together."""

    files: tuple[LayerFile, ...]

    def __post_init__(self) -> None:
        names = [file.path for file in self.files]
        for name in names:
            if _PATH.fullmatch(name) is None:
                raise UserError(
                    f"{name[:300]!r} cannot be a path in a layer: expected a relative one of letters, "
                    "digits and ._+-, with no part that starts with a dot"
                )
        clashing = set(names) & {folder for name in names for folder in _folders_of(name)}
        if clashing or len(set(names)) < len(names):
            raise UserError(f"a layer has two entries for one path: {sorted(clashing) or names}")

    @property
    def size(self) -> int:
        """Bytes of the tar."""
        entries = sum(len(header) for _, header in self._entries())
        return entries + sum(file.size + _padding(file.size) for file in self.files) + len(_END)

    def _entries(self) -> Iterator[tuple[LayerFile | None, bytes]]:
        """Return every entry's header in order: folders before what is in them."""
        by_path = {file.path: file for file in self.files}
        folders = {folder for path in by_path for folder in _folders_of(path)}
        for path in sorted({*by_path, *folders}, key=lambda path: path.split("/")):
            yield by_path.get(path), _header(path, by_path.get(path))

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Return the tar, in chunks of at most a few MiB.

        Raises:
            CorruptBlob: when a file has another size than stated.
        """
        for file, header in self._entries():
            yield header
            if file is None:
                continue
            left = file.size
            async with aclosing(file.read()) as chunks:
                async for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        break
                    yield chunk
            if left:
                more = "more" if left < 0 else f"{left} fewer"
                raise CorruptBlob(
                    f"{file.path} has {more} bytes than the {file.size} that its shard's manifest "
                    "states: restore it"
                )
            if padding := _padding(file.size):
                yield bytes(padding)
        yield _END


@dataclass(frozen=True)
class HashedLayer:
    """A layer whose digest is known: it can be uploaded."""

    layer: Layer
    digest: str
    size: int

    def chunks(self) -> AsyncGenerator[bytes]:
        """Return the tar."""
        return self.layer.chunks()


async def hash_layer(layer: Layer) -> HashedLayer:
    """Read all files of a layer once and return it with its digest.

    Raises:
        CorruptBlob: as ``Layer.chunks``.
    """
    digest = hashlib.sha256()
    async with aclosing(layer.chunks()) as chunks:
        async for chunk in chunks:
            digest.update(chunk)
    return HashedLayer(layer, f"sha256:{digest.hexdigest()}", layer.size)


def _folders_of(path: str) -> Sequence[str]:
    return [str(parent) for parent in PurePosixPath(path).parents][:-1]


def _padding(size: int) -> int:
    return -size % _BLOCK


def _header(path: str, file: LayerFile | None) -> bytes:
    info = tarfile.TarInfo(path if file else f"{path}/")
    info.type = tarfile.REGTYPE if file else tarfile.DIRTYPE
    info.mode = FILE_MODE if file else FOLDER_MODE
    info.size = file.size if file else 0
    # Paths beyond 255 bytes and sizes beyond 8 GiB become PAX records, which are part of the header.
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
