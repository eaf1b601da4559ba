"""Names of images: ``REGISTRY/REPOSITORY:TAG@DIGEST``. Pure.

The grammar is that of https://github.com/distribution/reference, with its short forms of Docker Hub.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from shashin.errors import UserError
from shashin.printable import printable

DOCKER_HUB = "docker.io"

MAX_NAME_LENGTH = 255
"""Of registry and repository together."""

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

_EXPECTED = (
    "expected REGISTRY/REPOSITORY with :TAG or @sha256:DIGEST, such as registry.example/shop/a:1"
)


@dataclass(frozen=True, order=True)
class Repository:
    """Images of one name in one registry."""

    registry: str
    """Host, with its port if it has one: ``registry.example:5000``."""
    path: str
    """The name in the registry: ``shop/index-server``."""

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"


@dataclass(frozen=True)
class Reference:
    """One image of a repository, by tag, by digest, or by both: then the digest counts."""

    repository: Repository
    tag: str | None = None
    digest: str | None = None

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> Reference:
        """Return the same reference, pinned to a digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def digest_of(data: bytes) -> str:
    """Return the digest of bytes: ``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    """Return whether it is a digest of the only kind that is supported, SHA-256."""
    return _DIGEST.fullmatch(text) is not None


def parse_repository(text: str) -> Repository:
    """Read ``REGISTRY/REPOSITORY``; without a registry it is one of Docker Hub.

    Raises:
        UserError: when it is not the name of a repository.
    """
    registry, slash, path = text.partition("/")
    if not slash or not (registry == "localhost" or re.search(r"[.:\[A-Z]", registry)):
        registry, path = DOCKER_HUB, text
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if _REGISTRY.fullmatch(registry) is None:
        raise _invalid(text, f"{registry!r} is not a host with an optional port")
    if _PATH.fullmatch(path) is None:
        raise _invalid(text, f"{path!r} is not a repository, whose parts are lower case")
    if len(registry) + 1 + len(path) > MAX_NAME_LENGTH:
        raise _invalid(text, f"it is longer than {MAX_NAME_LENGTH} characters")
    return Repository(registry, path)


def parse_reference(text: str) -> Reference:
    """Read the name of an image; with neither tag nor digest it is the one tagged ``latest``.

    Raises:
        UserError: when it is not the name of an image.
    """
    named, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"{digest!r} is not a digest: sha256: and 64 hexadecimal digits")
    name, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:
        name, tag = named, ""
    elif _TAG.fullmatch(tag) is None:
        raise _invalid(text, f"{tag!r} is not a tag: up to 128 letters, digits and any of _ . -")
    return Reference(parse_repository(name), tag or (None if digest else "latest"), digest or None)


def _invalid(text: str, why: str) -> UserError:
    return UserError(printable(f"{text[:300]!r} does not name an image: {why[:300]}; {_EXPECTED}"))
