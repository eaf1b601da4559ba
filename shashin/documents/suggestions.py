"""The end of an error about a name that is not known."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

_LISTED_NAMES = 20


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the end of an error about an unknown name: the nearest known one, and all of them."""
    near = get_close_matches(name, known, n=1)
    meant = f": did you mean {near[0]}?" if near else ":"
    listed = ", ".join(known[:_LISTED_NAMES])
    return f"{meant} expected {'one of ' if len(known) > 1 else ''}{listed}"
