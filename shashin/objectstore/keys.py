"""What may be a key, the same in every store."""

from __future__ import annotations

from shashin.errors import UserError


def check_key(key: str) -> tuple[str, ...]:
    """Return the parts of a key, which are what its slashes separate.

    Raises:
        UserError: when it is absolute, or when a part is empty, begins with a dot or holds a
            control character: stores differ in what they make of these.
    """
    parts = tuple(key.split("/"))
    if not all(parts) or any(part.startswith(".") for part in parts) or min(key) < " ":
        raise UserError(
            f"object key {key!r} is not a relative path whose parts are neither empty nor begin "
            "with a dot"
        )
    return parts


def check_prefix(prefix: str) -> None:
    """Refuse what no key begins with; the empty prefix is that of every key.

    Raises:
        UserError: as ``check_key``.
    """
    if prefix:
        check_key(prefix.removesuffix("/") or prefix)
