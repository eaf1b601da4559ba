"""Packs: what a re-index keeps of a few hundred photos, in one file that is checked by its hash.

A line with the SHA-256 of all that follows, a line of JSON, then bytes. So a pack in the folder that
attempts share is used again only if it is complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shashin.errors import StepFailed
from shashin.runtime.json_file import replace_file


@dataclass(frozen=True)
class Pack:
    """The content of one file."""

    header: dict[str, Any]
    body: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content, 32 bytes."""
        return hashlib.sha256(self._content).digest()

    @property
    def _content(self) -> bytes:
        return json.dumps(self.header, ensure_ascii=False).encode() + b"\n" + self.body

    def write(self, path: Path) -> None:
        """Write it, as a whole or not at all.

        Raises:
            OSError: when it cannot be written.
        """
        replace_file(path, self.digest.hex().encode() + b"\n" + self._content)


def read_pack(path: Path) -> Pack | None:
    """Return a pack; None if there is none, or not all of it.

    Raises:
        OSError: when it exists and cannot be read.
    """
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    header, _, body = content.partition(b"\n")
    return Pack(json.loads(header), body)


def require_pack(path: Path) -> Pack:
    """Return a pack of an earlier step.

    Raises:
        StepFailed: when it is missing or damaged.
    """
    pack = read_pack(path)
    if pack is None:
        raise StepFailed(f"{path} is damaged: expected the hash in its first line")
    return pack
