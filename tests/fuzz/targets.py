"""What is fuzzed: each target reads bytes, and may only return or refuse them with an error that it names."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import DecodeError
from ngh2 import Connection, Role
from PIL import Image

from services.router.handlers import query_of
from services.router.queries import check_vector, validated
from services.router.rest.body import query_in
from services.router.rest.convert import query_of as query_of_json
from services.router.rest.problems import HttpError
from shashin.codecs.filters import check_filter
from shashin.codecs.index import filter_of
from shashin.errors import InvalidQuery, PhotoError
from shashin.photo_box import Box, box_problem
from shashin.photos.thumbnail import LONGEST_RATIO, SHORT_SIDE, thumbnail_image
from shashin.rpc.server_call import Method, ServerCall
from shashin.rpc.server_connection import Connections, ServerConnection
from shashin.rpc.server_limits import ServerLimits
from shashin.rpc.wire import framed
from shashin.shards.format.columns import Coded, Columns
from shashin.shards.format.dictionary import Dictionary
from shashin.v1 import index_pb2, search_pb2
from tests.support.raw_http2 import HEADERS

_DIMENSIONS = 16


@dataclass(frozen=True)
class Target:
    """One of them."""

    read: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]] = field(default=lambda: [b""])
    """Inputs to begin with."""
    longest: int = 4096
    """Maximum bytes of an input."""


def read_photo(data: bytes) -> None:
    """Decode a photo, or a part of it: the first four bytes say which."""
    sides = [byte / 255 for byte in data[:4]] if len(data) >= 4 else [0.0, 0.0, 1.0, 1.0]
    box = Box(*sides)
    try:
        image = thumbnail_image(data[4:], box=None if box_problem(box) else box)
    except (PhotoError, InvalidQuery):
        return
    width, height = image.size
    assert image.mode == "RGB"
    assert 1 <= min(width, height) <= SHORT_SIDE
    assert max(width, height) <= LONGEST_RATIO * SHORT_SIDE + LONGEST_RATIO
    image.load()


def read_filter(data: bytes) -> None:
    """Check a filter, and look which rows match it."""
    try:
        message = index_pb2.Filter.FromString(data)
        check_filter(message)
    except (DecodeError, InvalidQuery):
        return
    mask = filter_of(message).mask(_columns())
    assert mask.shape == (_ROWS,)
    if not message.ByteSize():
        assert mask.all()


def read_request(data: bytes) -> None:
    """Check a search as it comes by gRPC."""
    try:
        query = validated(query_of(search_pb2.SearchRequest.FromString(data)))
        if query.vector is not None:
            check_vector("vector", query.vector, _DIMENSIONS)
    except (DecodeError, InvalidQuery, PhotoError):
        return
    assert 1 <= query.k <= 1000


def read_json(data: bytes) -> None:
    """Check a search as it comes by REST."""
    try:
        query = validated(query_of_json(query_in(data), {}))
        if query.vector is not None:
            check_vector("vector", query.vector, _DIMENSIONS)
    except (HttpError, InvalidQuery, PhotoError):
        return
    assert 1 <= query.k <= 1000


class _Discarding(asyncio.Transport):
    """Sends nothing anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        """Do nothing."""

    def get_write_buffer_size(self) -> int:
        """Return that nothing waits."""
        return 0

    def can_write_eof(self) -> bool:
        """Return that it can be ended."""
        return True

    def is_closing(self) -> bool:
        """Return whether it was."""
        return self.closed

    def close(self) -> None:
        """Note it."""
        self.closed = True

    abort = write_eof = close


async def _echo(request: bytes, _call: ServerCall) -> bytes:
    await asyncio.sleep(0)
    return request


_LOOP = asyncio.new_event_loop()


def read_connection(data: bytes) -> None:
    """Serve a client that has begun as it should, in two pieces: the first two bytes say where to cut."""
    _LOOP.run_until_complete(_serve(data))


async def _serve(data: bytes) -> None:
    connections = Connections()
    limits = ServerLimits(request_bytes=10_000, calls_per_connection=10)
    server = ServerConnection(lambda _path, _call: Method(unary=_echo), limits, connections)
    transport = _Discarding()
    server.connection_made(transport)
    client = Connection(Role.CLIENT)
    client.initiate_connection()
    cut = 2 + int.from_bytes(data[:2], "big") % (len(data) + 1)
    for piece in (client.data_to_send(), data[2:cut], data[cut:]):
        if piece and not transport.closed:
            server.data_received(piece)
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server.is_closed == transport.closed
    server.connection_lost(None)
    await asyncio.gather(*server.tasks, return_exceptions=True)
    assert not connections.open
    assert not connections.held_bytes
    assert not server.has_calls


def _connections() -> list[bytes]:
    """Return what clients send: calls, and all else of HTTP/2."""
    call = [*HEADERS, (b"grpc-timeout", b"1S")]
    seeds = []
    for end in ("stream", "reset", "trailers", "nothing"):
        client = Connection(Role.CLIENT)
        client.initiate_connection()
        client.data_to_send()
        stream_id = client.send_request(call)
        client.send_data(stream_id, framed(b"abc"), end_stream=end == "stream")
        client.ping()
        seed = client.data_to_send()
        if end == "reset":
            client.reset_stream(stream_id)
        elif end == "trailers":
            client.send_trailers(stream_id, [(b"x", b"y")])
        client.send_goaway()
        seeds.append(b"\0\xff" + seed + client.data_to_send())
    return seeds


_ROWS = 6


def _columns() -> Columns:
    names = Dictionary(["", "shoes", "shoes/red", "shirt", "é", "JPY"])
    codes = np.arange(_ROWS, dtype=np.int32)
    return Columns(
        group=np.arange(_ROWS, dtype=np.uint32),
        version=np.ones(_ROWS, np.uint64),
        price_minor=np.array([0, 1, 100, 2**40, 2**63 - 1, 7]),
        listed_at=np.array([-(2**63), 0, 1, 2**40, 2**63 - 1, -5]),
        category=Coded(codes, names),
        brand=Coded(codes[::-1].copy(), names),
        currency=Coded(np.array([0, 5, 5, 5, 5, 0], np.int32), names),
    )


def _photos() -> list[bytes]:
    image = Image.effect_noise((48, 32), 64).convert("RGB")
    seeds = []
    for format_name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF"):
        output = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        try:
            image.save(output, format_name, exif=exif)
        except (KeyError, OSError, TypeError, ValueError):
            continue
        seeds.append(b"\x00\x00\xff\xff" + output.getvalue())
        seeds.append(b"\x20\x20\xe0\xc0" + output.getvalue())
    return seeds


def _filters() -> list[bytes]:
    return [
        index_pb2.Filter(
            categories=["shoes"],
            category_prefixes=["shoes"],
            brands=["ACME"],
            prices=[index_pb2.PriceRange(currency="JPY", min_minor=1, max_minor=5)],
            listed=[index_pb2.TimeRange(since=0, until=5)],
        ).SerializeToString()
    ]


def _requests() -> list[bytes]:
    vector = np.ones(_DIMENSIONS, "<f4").tobytes()
    part = search_pb2.QueryPart(vector=vector, weight=-1)
    crop = search_pb2.CropBox(left=0.1, top=0.1, right=0.9, bottom=0.9)
    requests = [
        search_pb2.SearchRequest(vector=vector, k=5, min_score=0.5),
        search_pb2.SearchRequest(photo=b"photo", crop=crop),
        search_pb2.SearchRequest(listing_id="lamp", excluded_listing_ids=["a"]),
        search_pb2.SearchRequest(parts=[part, part], each_photo=True),
    ]
    return [request.SerializeToString() for request in requests]


TARGETS = {
    "photo": Target(read_photo, _photos, longest=16_384),
    "filter": Target(read_filter, _filters),
    "request": Target(read_request, _requests),
    "json": Target(
        read_json,
        lambda: [
            b'{"vector": [1, 2], "k": 5, "filter": {"prices": [{"currency": "JPY", "min_minor": 1}]}}',
            b'{"photo": "AAAA", "crop": {"left": 0, "top": 0, "right": 1, "bottom": 0.5}}',
            b'{"parts": [{"listing_id": "a", "weight": -1.5}], "min_score": 0.1}',
            b'{"listing_id": "a", "filter": {"listed": [{"since": "2024-01-01T00:00:00Z"}]}}',
        ],
    ),
    "connection": Target(read_connection, _connections),
}
