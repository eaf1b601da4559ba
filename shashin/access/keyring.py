"""Tells who calls by the API key of a call, and whether that key may be used that often.

Independent of the transport: it takes the text of a key, and raises errors of the one tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from shashin.access.api_key import StoredKey, id_of, is_hash_of
from shashin.errors import ApiKeyMissing, ApiKeyRefused, RateLimited
from shashin.metrics import access as metrics
from shashin.runtime.token_bucket import TokenBucket

_SCHEME = "bearer "


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Keyring:
    """The keys that a server accepts."""

    def __init__(
        self,
        keys: Iterable[StoredKey],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._clock, self._now = clock, now
        self._keys: dict[str, StoredKey] = {}
        self._buckets: dict[str, TokenBucket] = {}
        self.replace(keys)

    def replace(self, keys: Iterable[StoredKey]) -> None:
        """Accept these keys from now on; one whose limit has not changed keeps what is left of it."""
        before, buckets = self._keys, self._buckets
        self._keys = {key.id: key for key in keys}
        self._buckets = {}
        for key in self._keys.values():
            if key.per_second is None:
                continue
            old = before.get(key.id)
            if old is not None and (old.per_second, old.burst) == (key.per_second, key.burst):
                self._buckets[key.id] = buckets[key.id]
            else:
                burst = max(1.0, key.per_second) if key.burst is None else key.burst
                self._buckets[key.id] = TokenBucket(key.per_second, burst, clock=self._clock)
        self.count_valid()
        kept = {key.name for key in self._keys.values()}
        for name in {key.name for key in before.values()} - kept:
            metrics.forget(name)

    def count_valid(self) -> None:
        """Count the keys that are valid now: some expire while nothing changes."""
        now = self._now()
        metrics.KEYS.set(sum(key.problem(now) is None for key in self._keys.values()))

    def caller(self, key: str | None) -> StoredKey:
        """Return the stored key of a caller.

        Raises:
            ApiKeyMissing: if there is no key.
            ApiKeyRefused: if it is malformed, unknown, expired or revoked; the message names its id at most.
        """
        if not key:
            metrics.REFUSED.labels("missing").inc()
            raise ApiKeyMissing(
                "the call has no API key: send `authorization: Bearer KEY` or `x-api-key: KEY`"
            )
        try:
            key_id = id_of(key)
        except ApiKeyRefused:
            metrics.REFUSED.labels("malformed").inc()
            raise
        stored = self._keys.get(key_id)
        if stored is None or not is_hash_of(stored, key):
            metrics.REFUSED.labels("unknown").inc()
            raise ApiKeyRefused(
                f"the API key with the id {key_id} is unknown here: use one of this environment, or add one "
                "with `shashin keys add`"
            )
        if stored.expires is None and stored.revoked is None:
            return stored
        if (problem := stored.problem(self._now())) is not None:
            metrics.REFUSED.labels("revoked" if stored.revoked else "expired").inc()
            raise ApiKeyRefused(
                f"the API key {stored.name} with the id {key_id} {problem}: use a new one"
            )
        return stored

    def take(self, caller: StoredKey) -> None:
        """Count a call of a caller.

        Raises:
            RateLimited: if it exceeds the rate of its key.
        """
        bucket = self._buckets.get(caller.id)
        if bucket is None or bucket.take():
            metrics.CALLS.labels(caller.name).inc()
            return
        metrics.RATE_LIMITED.labels(caller.name).inc()
        seconds = bucket.seconds_to_next()
        raise RateLimited(
            f"the API key {caller.name} is used more often than {bucket.per_second:g} times a second: "
            f"the next call is possible in {seconds:.3f} s",
            retry_after_seconds=seconds,
        )


def key_in(headers: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the API key in the headers, or the metadata, of a call; None if there is none.

    Names are in lower case, as in HTTP/2. ``authorization`` of another scheme is not a key's.
    """
    found = None
    for name, value in headers:
        if name == "authorization":
            text = value if isinstance(value, str) else value.decode("latin-1")
            if text[: len(_SCHEME)].lower() == _SCHEME:
                return text[len(_SCHEME) :].strip()
        elif name == "x-api-key":
            found = value if isinstance(value, str) else value.decode("latin-1")
    return found
