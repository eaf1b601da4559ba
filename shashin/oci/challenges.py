"""What a registry asks for in ``WWW-Authenticate``. Pure.

Tokens: https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SCHEME = re.compile(r"(?:^|,)\s*(Basic|Bearer)(?=\s|,|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    """One way to log in."""

    scheme: str
    """``basic`` or ``bearer``."""
    realm: str = ""
    """URL of the token server, for ``bearer``."""
    service: str = ""
    scopes: tuple[str, ...] = ()
    """What a token has to permit, such as ``repository:shop/a:pull``."""


def parse_challenge(headers: Iterable[str]) -> Challenge | None:
    """Return the challenge to answer, a token before a password; None if none is understood."""
    found = [challenge for header in headers for challenge in _challenges(header)]
    usable = [c for c in found if c.scheme == "basic" or c.realm]
    return max(usable, key=lambda c: c.scheme == "bearer", default=None)


def _challenges(header: str) -> Iterable[Challenge]:
    starts = list(_SCHEME.finditer(_without_quoted(header)))
    ends = [*(start.start() for start in starts[1:]), *([len(header)] if starts else [])]
    for start, end in zip(starts, ends, strict=True):
        values = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare
            for name, quoted, bare in _PARAMETER.findall(header[start.end() : end])
        }
        yield Challenge(
            start[1].lower(),
            values.get("realm", ""),
            values.get("service", ""),
            tuple(values.get("scope", "").split()),
        )


def _without_quoted(header: str) -> str:
    """Return the header with as many blanks in place of quoted text, which may name a scheme."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', lambda quoted: "_" * len(quoted[0]), header)
