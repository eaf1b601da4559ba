"""Validation of keys, the same for every store."""

from __future__ import annotations

from shashin.errors import UserError


def check_key(key: str) -> tuple[str, ...]:
    """Return the slash-separated parts of a key.

    Raises:
        UserError: when it is absolute, or when a part is empty, starts with a dot or contains a
            control character or backslash: stores differ in how they treat these.
    """
    parts = tuple(key.split("/"))
    if (
        not all(parts)
        or any(part.startswith(".") for part in parts)
        or min(key) < " "
        or "\\" in key
    ):
        raise UserError(
            f"object key {key!r} is not a relative path, or has a part that is empty, starts "
            "with a dot or contains a backslash"
        )
    return parts


def check_prefix(prefix: str) -> None:
    """Reject a prefix that no key can have; the empty prefix matches every key.

    Raises:
        UserError: as ``check_key``.
    """
    if prefix:
        check_key(prefix.removesuffix("/") or prefix)
