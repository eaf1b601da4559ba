"""The rules for a listing's fields: the same for events, for search filters and for the command.

Each function returns what is wrong and what is expected, or None. Pure.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from shashin.codecs.limits import MAX_LISTING_ID_BYTES

MAX_VERSION = 2**63 - 2
"""So that ``below_version``, which is one more, fits an int64."""

MAX_PRICE_MINOR = 2**63 - 1
MAX_PHOTOS = 20
MAX_TEXT_BYTES = 256
MAX_URI_BYTES = 4096


def listing_id_problem(listing_id: str) -> str | None:
    """Check a listing id, for a message that begins with "a listing id of"."""
    size = len(listing_id.encode())
    if 1 <= size <= MAX_LISTING_ID_BYTES:
        return None
    return f"{size} bytes; expected 1 to {MAX_LISTING_ID_BYTES}"


def version_problem(version: int) -> str | None:
    """Check a version, for a message that begins with "version"."""
    if 1 <= version <= MAX_VERSION:
        return None
    return f"{version}; expected 1 to {MAX_VERSION}"


def text_problem(text: str) -> str | None:
    """Check a category or brand, for a message that ends with "of"."""
    size = len(text.encode())
    return None if size <= MAX_TEXT_BYTES else f"{size} bytes; at most {MAX_TEXT_BYTES}"


def choice_problem(text: str) -> str | None:
    """Check a category, brand or prefix of a filter, for a message that ends with "has"."""
    size = len(text.encode())
    return None if 1 <= size <= MAX_TEXT_BYTES else f"{size} bytes; expected 1 to {MAX_TEXT_BYTES}"


def prefix_problem(prefix: str) -> str | None:
    """Check the form of a prefix of categories, for a message that ends with "is"."""
    if not prefix.startswith("/") and not prefix.endswith("/") and "//" not in prefix:
        return None
    return (
        f"{prefix[:100]!r}; expected a path such as fashion/shoes, without a slash at its start or end and "
        "without two in a row"
    )


def price_problem(price_minor: int) -> str | None:
    """Check a price in minor units, or a bound on prices."""
    if 0 <= price_minor <= MAX_PRICE_MINOR:
        return None
    return f"{price_minor}; expected 0 to {MAX_PRICE_MINOR}"


def currency_problem(currency: str) -> str | None:
    """Check a currency that is not empty."""
    if len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper():
        return None
    return f"{currency[:20]!r}; expected an ISO 4217 code in capital letters, such as JPY"


def attributes_problem(category: str, brand: str, price_minor: int, currency: str) -> str | None:
    """Check the attributes of an event, for a message that begins with the event."""
    for name, text in (("category", category), ("brand", brand)):
        if problem := text_problem(text):
            return f"has a {name} of {problem}"
    if problem := price_problem(price_minor):
        return f"has price_minor {problem}"
    if currency and (problem := currency_problem(currency)):
        return f"has currency {problem}"
    if price_minor and not currency:
        return "has a price without a currency: set one, such as JPY"
    return None


def uri_size_problem(uri: str) -> str | None:
    """Check the length of a photo's URI, for a message that ends with "a URI of"."""
    size = len(uri.encode())
    return None if size <= MAX_URI_BYTES else f"{size} bytes; at most {MAX_URI_BYTES}"


def uri_form_problem(uri: str) -> str | None:
    """Check the form of a photo's URI, for a message that begins with the URI."""
    try:
        return None if urlsplit(uri).scheme else "has no scheme: expected SCHEME://..."
    except ValueError as error:
        return f"is malformed ({error})"
