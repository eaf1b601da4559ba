"""The trace of a record, in W3C's headers ``traceparent`` and ``tracestate``. Pure.

Headers come from any producer: what cannot be such a header is ignored here or, if it is only malformed,
where the trace would be continued (shashin.runtime.spans).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shashin.runtime.trace_context import EXEMPLAR_TRACE, HEADERS, TRACEPARENT, Carrier

Headers = Sequence[tuple[str, bytes | None]]

_TRACEPARENT = re.compile("00-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})")
_SAMPLED = 1
_MAX_BYTES = 512
"""Of a value; W3C asks for no more of ``tracestate`` to be propagated."""


def extract(headers: Headers) -> Carrier | None:
    """Return the trace that headers name; None if they name none. The first of each name counts."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in HEADERS and name not in found and value is not None and _is_text(value):
            found[name] = value.decode("ascii")
    return found if TRACEPARENT in found else None


def exemplar(headers: Headers) -> dict[str, str] | None:
    """Return the labels of an exemplar that leads to the trace that headers name; None if it is not kept."""
    named = _TRACEPARENT.fullmatch((extract(headers) or {}).get(TRACEPARENT, ""))
    if named is None or not int(named["flags"], 16) & _SAMPLED:
        return None
    return {EXEMPLAR_TRACE: named["trace"]}


def inject(headers: Headers, carrier: Carrier) -> Headers:
    """Return headers that continue a trace, and no other."""
    kept = [header for header in headers if header[0] not in HEADERS]
    return (*kept, *((name, value.encode("ascii")) for name, value in carrier.items()))


def _is_text(value: bytes) -> bool:
    return len(value) <= _MAX_BYTES and value.isascii()
