"""Text from outside, safe to print: nothing in it can control a terminal or pass for another line."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""They shape words and emoji, and show nothing by themselves."""


def printable(text: str) -> str:
    """Return text with every control character, line break and invisible character escaped.

    Lone surrogates, which stand for the bytes of a name that is not UTF-8, are escaped as well.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def _is_shown(character: str) -> bool:
    # isprintable() rejects every space but the ASCII one; Japanese text uses others.
    return (
        character.isprintable() or unicodedata.category(character) == "Zs" or character in _JOINERS
    )
