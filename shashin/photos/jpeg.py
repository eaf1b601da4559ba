"""The structure of a JPEG that Pillow does not report: its scans, and whether it has an end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SCANS = 100
"""Encoders write about 10. A scan of few bytes makes the decoder visit every block of the image."""

START = b"\xff\xd8"
END = b"\xff\xd9"
_RESTARTS = [bytes([0xFF, 0xD0 + number]) for number in range(8)]


def _continuation(bits: bytes, first_restart: int) -> bytes:
    # Longer than any group of blocks, so that data also reaches what is visible of the last one.
    enough = bits * 1024
    restarts = _RESTARTS[first_restart:] + _RESTARTS[:first_restart]
    return enough + b"".join(restart + enough for restart in restarts)


CONTINUATIONS = (_continuation(b"\x55", 0), _continuation(b"\xaa", 4))
"""Image data that differs in its bits and in the restart marker that it begins with. The decoder
skips restart markers that are far from the one that it expects."""

_SOF2, _SOS, _EOI = 0xC2, 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BLOCK = 64
"""Coefficients per block."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""A marker; within a scan, 0xFF is followed by 0, or by a restart marker."""


@dataclass(frozen=True)
class JpegStructure:
    """What the markers of a JPEG say about how it is decoded."""

    coefficient_bytes: int
    """What the decoder holds of the whole image, whatever size it decodes to; 0 if it has one scan."""
    scans: int
    """The number of scans; 1 if they were not counted, which is only done where it matters."""
    ended: bool
    """Whether it has an end marker."""
    all_sent: bool
    """Whether the scans of a JPEG without an end marker together send every coefficient in full;
    false if they were not counted."""


def jpeg_structure(data: bytes) -> JpegStructure:
    """Return the structure of the first image in ``data``, as far as its markers are readable."""
    missing: dict[int, list[int | None]] = {}
    frame, scans, progressive, buffered = b"", 0, False, False
    ended = data.endswith(END)
    for code, body in _segments(data):
        if code == _EOI:
            ended = True
        elif code in _FRAMES and len(body) > 5:
            frame, progressive = body, code == _SOF2
            missing = {component: [None] * _BLOCK for component, _, _ in _components(frame)}
        elif code == _SOS and body:
            scans += 1
            buffered = buffered or progressive or body[0] < len(missing)
            _note_sent(body, missing)
            if scans > MAX_SCANS or (ended and not progressive):
                break
    return JpegStructure(
        coefficient_bytes=_coefficient_bytes(frame) if buffered else 0,
        scans=scans,
        ended=ended,
        # Asked only of a JPEG without an end.
        all_sent=not ended and all(left == 0 for block in missing.values() for left in block),
    )


def header_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the body of each segment before the first scan."""
    for code, body in _segments(data):
        if code == _SOS:
            return
        yield code, body


def _components(frame: bytes) -> list[tuple[int, int, int]]:
    """Return each component's id with its horizontal and vertical sampling factor."""
    found = [frame[at : at + 2] for at in range(6, 6 + 3 * frame[5], 3)]
    return [(part[0], part[1] >> 4, part[1] & 15) for part in found if len(part) == 2]


def _coefficient_bytes(frame: bytes) -> int:
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    components = _components(frame)
    across = max(horizontal for _, horizontal, _ in components)
    down = max(vertical for _, _, vertical in components)
    # Rounded up to whole blocks of the least sampled component; two bytes per coefficient.
    units = -(-width // (8 * across or 1)) * -(-height // (8 * down or 1))
    blocks = sum(horizontal * vertical for _, horizontal, vertical in components)
    return 2 * _BLOCK * units * blocks


def _note_sent(scan: bytes, missing: dict[int, list[int | None]]) -> None:
    """Note for each coefficient in a scan's header how many of its low bits are still to come."""
    parameters = scan[1 + 2 * scan[0] :]
    if len(parameters) < 3:
        return
    first, last, low_bit = parameters[0], min(parameters[1], _BLOCK - 1), parameters[2] & 15
    for component in scan[1 : 1 + 2 * scan[0] : 2]:
        if component in missing:
            missing[component][first : last + 1] = [low_bit] * max(0, last + 1 - first)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        code, at = data[found.end() - 1], found.end()
        if code == _EOI:
            yield code, b""
            return
        if code in {0x01, 0xD8}:  # without a body
            continue
        length = int.from_bytes(data[at : at + 2])
        yield code, data[at + 2 : at + length]
        at += max(2, length)
