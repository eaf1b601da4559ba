"""What gRPC adds to HTTP/2: messages with a length before them, statuses, timeouts and metadata. Pure.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import binascii
import math
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from urllib.parse import quote, unquote

import grpc

Header = tuple[bytes, bytes]
Metadata = Sequence[tuple[str, str | bytes]]
"""Names in lower case; the values of those that end with ``-bin`` are bytes."""

CONTENT_TYPE: Header = (b"content-type", b"application/grpc")
ACCEPTED_COMPRESSIONS = b"identity, deflate, gzip"

_PREFIX_BYTES = 5
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}
_OWN_NAMES = frozenset(
    {
        b"te",
        b"content-type",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"grpc-status",
        b"grpc-message",
    }
)
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_DIGITS = 8
_MAX_DIGITS = 10**_DIGITS - 1
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_PLAIN = frozenset(_PRINTABLE)
_MAX_MESSAGE_BYTES = 1500
"""Of a status message, as it is sent."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class Status:
    """How a call has ended."""

    code: grpc.StatusCode
    message: str = ""
    metadata: Metadata = field(default=())
    """Sent with it."""

    @cached_property
    def trailers(self) -> list[Header]:
        """The headers that end a response."""
        headers = [(b"grpc-status", str(self.code.value[0]).encode())]
        if self.message:
            headers.append((b"grpc-message", _encoded(self.message)))
        return headers + headers_of(self.metadata)

    @cached_property
    def response(self) -> list[Header]:
        """The headers of a response that has nothing but this status."""
        return [(b":status", b"200"), CONTENT_TYPE, *self.trailers]


OK = Status(grpc.StatusCode.OK)


class WireError(Exception):
    """What was received is not a message of gRPC, or is one that is not taken."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = Status(code, message)


def status_in(headers: Iterable[Header]) -> Status:
    """Return the status that the headers at the end of a response have."""
    found = dict(headers)
    number = found.get(b"grpc-status")
    if number is None:
        return Status(grpc.StatusCode.UNKNOWN, "the response ended without a status")
    if number == b"0" and len(found) == 1:
        return OK
    code = _CODES.get(int(number)) if number.isdigit() else None
    message = unquote(found.get(b"grpc-message", b"").decode("ascii", "replace"), errors="replace")
    if code is None:
        return Status(grpc.StatusCode.UNKNOWN, f"status {number!r}: {message}")
    return Status(code, message, metadata_of(found.items()))


def shortened(message: str) -> str:
    """Return a message that fits into headers: clients take no more than 8 KB of all of them together."""
    head = message[: _MAX_MESSAGE_BYTES + 1]
    if len(head) <= _MAX_MESSAGE_BYTES and len(_quoted(head)) <= _MAX_MESSAGE_BYTES:
        return message
    sizes = accumulate(
        1 if one in _PLAIN else 3 * len(one.encode(errors="replace")) for one in head
    )
    return message[: sum(1 for size in sizes if size <= _MAX_MESSAGE_BYTES)] + "..."


def _quoted(message: str) -> str:
    return quote(message, safe=_PRINTABLE, errors="replace")


def _encoded(message: str) -> bytes:
    """Return a status message as it is sent: without spaces around it, which no header has."""
    quoted = _quoted(shortened(message))
    if quoted.startswith(" "):
        quoted = "%20" + quoted[1:]
    if quoted.endswith(" "):
        quoted = quoted[:-1] + "%20"
    return quoted.encode("ascii")


def framed(message: bytes) -> bytes:
    """Return a message with its length before it."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Messages:
    """Takes the messages out of a body, as its bytes arrive."""

    __slots__ = ("_at_most", "_compression", "_held")

    def __init__(self, at_most: int, compression: bytes | None) -> None:
        """Take messages of at most so many bytes; the compression is that of ``grpc-encoding``."""
        self._at_most = at_most
        self._compression = compression
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that end in these bytes.

        Raises:
            WireError: if a message is too large, or is not one.
        """
        held = self._held
        if not held and len(data) >= _PREFIX_BYTES:
            size = self._size(data)
            if len(data) == size and not data[0]:
                return [data[_PREFIX_BYTES:]]
        held += data
        messages = []
        while len(held) >= _PREFIX_BYTES and len(held) >= (size := self._size(held)):
            messages.append(self._message(held[0], bytes(held[_PREFIX_BYTES:size])))
            del held[:size]
        return messages

    @property
    def held_bytes(self) -> int:
        """How much is kept of a message that has only begun."""
        return len(self._held)

    def clear(self) -> None:
        """Keep nothing of it."""
        self._held.clear()

    @property
    def is_whole(self) -> bool:
        """Whether no message has only begun."""
        return not self._held

    def _size(self, data: bytes | bytearray) -> int:
        """Return how long the message is that begins here, with what is before it."""
        size = int.from_bytes(data[1:_PREFIX_BYTES], "big")
        if size > self._at_most:
            raise self._too_large(f"{size} bytes")
        return _PREFIX_BYTES + size

    def _message(self, flag: int, data: bytes) -> bytes:
        if not flag:
            return data
        bits = _WINDOW_BITS.get(self._compression or b"")
        if flag != 1 or bits is None:
            raise WireError(
                grpc.StatusCode.UNIMPLEMENTED if flag == 1 else grpc.StatusCode.INTERNAL,
                f"a message is compressed with {self._compression!r}: expected one of "
                f"{ACCEPTED_COMPRESSIONS.decode()}",
            )
        inflater = zlib.decompressobj(bits)
        try:
            message = inflater.decompress(data, self._at_most + 1)
        except zlib.error as error:
            raise WireError(grpc.StatusCode.INTERNAL, f"a compressed message: {error}") from None
        if len(message) > self._at_most:
            raise self._too_large("more bytes uncompressed")
        if not inflater.eof:
            raise WireError(grpc.StatusCode.INTERNAL, "a compressed message is cut off")
        return message

    def _too_large(self, what: str) -> WireError:
        return WireError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"a message has {what}: expected at most {self._at_most}",
        )


def timeout_in(value: bytes) -> float | None:
    """Return the seconds of a ``grpc-timeout``; None if it is not one."""
    digits, unit = value[:-1], _SECONDS.get(value[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _DIGITS:
        return None
    return int(digits) * unit


def timeout_of(seconds: float) -> bytes:
    """Return seconds as a ``grpc-timeout``, rounded up."""
    microseconds = math.ceil(max(0.0, seconds) * 1e6)
    if microseconds <= _MAX_DIGITS:
        return b"%du" % microseconds
    milliseconds = math.ceil(microseconds / 1000)
    if milliseconds <= _MAX_DIGITS:
        return b"%dm" % milliseconds
    return b"%dS" % min(_MAX_DIGITS, math.ceil(milliseconds / 1000))


def headers_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[Header]:
    """Return the headers in which metadata are sent."""
    return [(name.encode("ascii"), _sent(value)) for name, value in metadata]


def _sent(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return b64encode(value).rstrip(b"=")
    return value.encode("ascii")


def metadata_of(headers: Iterable[Header]) -> list[tuple[str, str | bytes]]:
    """Return the metadata that headers are; those of HTTP/2 and gRPC itself are none."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name.startswith(b":") or name in _OWN_NAMES:
            continue
        text = name.decode("ascii", "replace")
        if not name.endswith(b"-bin"):
            found.append((text, value.decode("ascii", "replace")))
            continue
        # Several values of one name may come in one header.
        for part in value.split(b","):
            try:
                found.append((text, b64decode(part.strip() + b"=" * (-len(part.strip()) % 4))))
            except binascii.Error:
                continue
    return found
