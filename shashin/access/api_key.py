"""What an API key is, and what of it is stored. Pure.

A key is ``shashin_ID_SECRET``: the prefix tells people and scanners of repositories what it is, the id
(10 hex digits) is how it is looked up and what logs may name, and the secret (64 hex digits) has 256 random
bits. Nothing shorter than all of its values can be tried, so one SHA-256 is as good a hash as a slow one,
which exists for what people choose.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.types import AwareDatetime

from shashin.errors import ApiKeyRefused, UserError

MAX_KEYS = 256
"""In one file: a bound on the series of metrics by key."""

_KEY = re.compile(r"shashin_([0-9a-f]{10})_[0-9a-f]{64}", re.ASCII)
_ID_BYTES, _SECRET_BYTES = 5, 32

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class StoredKey(BaseModel):
    """What is known of a key, without the key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{10}$")]
    name: Name
    """Of who uses it. Several keys may have the same one, while they are rotated."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    """Of the whole key, in ASCII."""
    created: AwareDatetime
    expires: AwareDatetime | None = None
    """From then on it is refused."""
    revoked: AwareDatetime | None = None
    """When it was revoked: it has been refused since the file was read again."""
    per_second: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Calls a second; None for no limit."""
    burst: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)] | None = None
    """Calls at once after a pause; by default those of a second, and at least 1."""

    @model_validator(mode="after")
    def _burst_belongs_to_a_rate(self) -> Self:
        if self.burst is not None and self.per_second is None:
            raise ValueError("burst is given without per_second")
        return self

    def problem(self, now: datetime) -> str | None:
        """Return why the key is not valid at this time; None if it is."""
        if self.revoked is not None:
            return f"was revoked at {self.revoked:%Y-%m-%dT%H:%M:%SZ}"
        if self.expires is not None and now >= self.expires:
            return f"expired at {self.expires:%Y-%m-%dT%H:%M:%SZ}"
        return None


class KeyDocument(BaseModel):
    """The content of a file of keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["shashin-api-keys/1"] = "shashin-api-keys/1"
    keys: Annotated[tuple[StoredKey, ...], Field(max_length=MAX_KEYS)] = ()

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [key.id for key in self.keys]
        if len(set(ids)) < len(ids):
            raise ValueError("two keys have the same id")
        return self


def key_document(data: bytes) -> KeyDocument:
    """Return the document that a file has.

    Raises:
        UserError: if it is not one; the message has no value of it.
    """
    try:
        return KeyDocument.model_validate_json(data)
    except ValidationError as error:
        # Without their input: someone may have put a key where its hash belongs.
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'the document'}: {problem['msg'].lower()}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise UserError(
            f"it is not a file of API keys ({'; '.join(problems[:3])}): `shashin keys` writes one"
        ) from None


def new_key(
    name: str,
    *,
    created: datetime,
    expires: datetime | None = None,
    per_second: float | None = None,
    burst: float | None = None,
) -> tuple[str, StoredKey]:
    """Return a new key, and what to store of it.

    Raises:
        UserError: if a value is not possible.
    """
    key = f"shashin_{secrets.token_hex(_ID_BYTES)}_{secrets.token_hex(_SECRET_BYTES)}"
    try:
        stored = StoredKey(
            id=id_of(key),
            name=name,
            sha256=hash_of(key),
            created=created.astimezone(UTC).replace(microsecond=0),
            expires=expires,
            per_second=per_second,
            burst=burst,
        )
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{where or 'the key'}: {problem['msg'].lower()}") from None
    return key, stored


def id_of(key: str) -> str:
    """Return the id of a key.

    Raises:
        ApiKeyRefused: if it does not have the form of one; the message does not repeat it.
    """
    # Headers are compared as bytes elsewhere: a text of other characters is no key.
    if (found := _KEY.fullmatch(key)) is None:
        raise ApiKeyRefused(
            "the API key is malformed: expected shashin_, 10 hex digits, _ and 64 hex digits, as "
            "`shashin keys add` prints it"
        )
    return found[1]


def hash_of(key: str) -> str:
    """Return the hash that is stored of a key."""
    return hashlib.sha256(key.encode("ascii")).hexdigest()


def is_hash_of(stored: StoredKey, key: str) -> bool:
    """Whether the key is the stored one; takes as long for every wrong key."""
    return hmac.compare_digest(stored.sha256, hash_of(key))
