"""What may be a key, the same in every store."""

from __future__ import annotations

from pathlib import PurePosixPath

from shashin.errors import UserError


def check_key(key: str) -> tuple[str, ...]:
    """Return the parts of a key.

    Raises:
        UserError: when it is empty, absolute, goes up, or begins with a dot.
    """
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or parts[0].startswith("."):
        raise UserError(f"object key {key!r} is not a relative path without dots")
    return parts
