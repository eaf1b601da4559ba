"""Removes from text what may be a secret: the queries and user names of URLs, and API keys. Pure.

A signed URL of a photo lets whoever reads it fetch the photo; its signature is in the query.
"""

from __future__ import annotations

import re

_URL_PARTS = re.compile(
    r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{0,19}://)"
    r"(?P<user>[^\s/?#@\"'<>]*@)?"
    r"(?P<path>[^\s?#\"'<>]*)"
    r"(?P<rest>[?#][^\s\"'<>]*)?"
)
_API_KEY = re.compile(r"(shashin_[0-9a-f]{10}_)[0-9a-f]{16,}")
"""With enough of its secret to be worth anything; what is before it is its id."""
REDACTED = "REDACTED"


def redacted(text: str) -> str:
    """Return text with the query, fragment and user name of each URL in it replaced, and API keys."""
    if "shashin_" in text:
        text = _API_KEY.sub(rf"\1{REDACTED}", text)
    return _URL_PARTS.sub(_without_secrets, text) if "://" in text else text


def without_user_names(text: str) -> str:
    """Return text with the user name, and password, of each URL in it replaced, and nothing else."""
    return _URL_PARTS.sub(_without_user_name, text) if "://" in text else text


def _without_secrets(url: re.Match[str]) -> str:
    user = f"{REDACTED}@" if url["user"] else ""
    rest = f"{url['rest'][0]}{REDACTED}" if url["rest"] else ""
    return f"{url['scheme']}{user}{url['path']}{rest}"


def _without_user_name(url: re.Match[str]) -> str:
    user = f"{REDACTED}@" if url["user"] else ""
    return f"{url['scheme']}{user}{url['path']}{url['rest'] or ''}"
