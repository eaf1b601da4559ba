"""Callers: API keys, and the calls that they are refused."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge
from shashin.metrics.definitions import Label

# As many as a file of keys has at most.
_NAME = Label("caller", "the name of the API key", at_most=256)

KEYS = gauge("shashin_api_keys", "API keys that are accepted now; 0 while none is asked for.")
REFUSED = counter(
    "shashin_api_keys_refused",
    "Calls that were refused for their API key, by what is wrong with it.",
    [
        Label(
            "problem",
            "what is wrong",
            values=("missing", "malformed", "unknown", "expired", "revoked"),
        )
    ],
)
CALLS = counter("shashin_api_key_calls", "Calls with an accepted API key, by its name.", [_NAME])
RATE_LIMITED = counter(
    "shashin_api_key_rate_limited",
    "Calls that were refused because they exceed the rate of their API key, by its name.",
    [_NAME],
)
EXPIRES = gauge(
    "shashin_certificate_expires_seconds",
    "When the certificate of the port expires, in Unix seconds; 0 without one, or if it is not known.",
    unit="seconds",
)
RENEWALS = counter(
    "shashin_credential_renewals",
    "Files of certificates or API keys that changed and were read again, by outcome; failed ones are on "
    "/healthz until they are corrected.",
    [
        Label("what", "what the file has", values=("certificates", "API keys")),
        Label("outcome", "whether what is new is used", values=("renewed", "failed")),
    ],
)


def forget(name: str) -> None:
    """Remove the series of a key that is no longer in the file."""
    CALLS.remove(name)
    RATE_LIMITED.remove(name)
