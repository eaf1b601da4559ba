"""Messages, statuses, timeouts and metadata of gRPC, from and to bytes."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.rpc.wire import (
    Messages,
    Status,
    WireError,
    framed,
    headers_of,
    metadata_of,
    status_in,
    timeout_in,
    timeout_of,
)

LIMIT = 1000
messages = st.lists(st.binary(max_size=LIMIT), max_size=5)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


@given(messages, st.lists(st.integers(0, 10_000), max_size=6))
def test_messages_are_the_same_however_their_bytes_arrive(
    sent: list[bytes], cuts: list[int]
) -> None:
    reader = Messages(LIMIT, None)
    data = b"".join(framed(message) for message in sent)
    received = [message for piece in pieces(data, cuts) for message in reader.feed(piece)]
    assert received == sent
    assert reader.is_whole


@given(st.binary(max_size=LIMIT), st.sampled_from([b"gzip", b"deflate"]))
def test_compressed_messages_are_as_they_were(message: bytes, compression: bytes) -> None:
    data = gzip.compress(message) if compression == b"gzip" else zlib.compress(message)
    sent = b"\1" + framed(data)[1:]
    assert Messages(LIMIT + 100, compression).feed(sent) == [message]


def refusal(data: bytes, compression: bytes | None = None) -> grpc.StatusCode:
    with pytest.raises(WireError) as refused:
        Messages(LIMIT, compression).feed(data)
    return refused.value.status.code


@pytest.mark.parametrize("whole", [True, False])
def test_a_message_that_is_too_large_is_refused_by_its_length(whole: bool) -> None:
    data = framed(bytes(LIMIT + 1))
    assert refusal(data if whole else data[:5]) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_that_would_be_too_large_uncompressed_is_refused() -> None:
    bomb = b"\1" + framed(gzip.compress(bytes(50_000_000), compresslevel=1))[1:]
    with pytest.raises(WireError) as refused:
        Messages(len(bomb), b"gzip").feed(bomb)
    assert refused.value.status.code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("data", "compression", "code"),
    [
        (b"\1" + framed(b"abc")[1:], b"gzip", grpc.StatusCode.INTERNAL),
        (
            b"\1" + framed(gzip.compress(b"abc", mtime=0)[:-4])[1:],
            b"gzip",
            grpc.StatusCode.INTERNAL,
        ),
        (b"\1" + framed(b"abc")[1:], b"snappy", grpc.StatusCode.UNIMPLEMENTED),
        (b"\1" + framed(b"abc")[1:], None, grpc.StatusCode.UNIMPLEMENTED),
        (b"\7" + framed(b"abc")[1:], None, grpc.StatusCode.INTERNAL),
    ],
)
def test_what_is_no_message_is_refused(
    data: bytes, compression: bytes | None, code: grpc.StatusCode
) -> None:
    assert refusal(data, compression) == code


@given(st.floats(0, 1e9))
def test_a_timeout_is_never_shorter_than_it_was(seconds: float) -> None:
    sent = timeout_of(seconds)
    assert len(sent) <= 9
    received = timeout_in(sent)
    assert received is not None
    assert min(seconds, 99_999_999) * (1 - 1e-9) <= received <= seconds * 1.0001 + 1e-6


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"4S", 4), (b"5m", 0.005), (b"6u", 6e-6), (b"7n", 7e-9)],
)
def test_timeouts_have_units(sent: bytes, seconds: float) -> None:
    assert timeout_in(sent) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "sent", [b"", b"1", b"S", b"123456789S", b"-1S", b"1.5S", b"1s", "\u0661S".encode()]
)
def test_what_is_no_timeout_is_none(sent: bytes) -> None:
    assert timeout_in(sent) is None


@given(st.sampled_from(list(grpc.StatusCode)), st.text(), st.binary())
def test_a_status_is_received_as_it_was_sent(
    code: grpc.StatusCode, message: str, details: bytes
) -> None:
    message = message.encode(errors="replace").decode()
    status = Status(code, message, (("details-bin", details),))
    for headers in (status.trailers, status.response):
        received = status_in(headers)
        assert (received.code, received.message) == (code, message)
        assert dict(received.metadata)["details-bin"] == details
        assert all(0x20 <= byte < 0x7F for _, value in headers for byte in value)
        assert all(value.strip() == value for _, value in headers)


def test_a_response_without_a_status_or_with_an_unknown_one_is_an_error() -> None:
    assert status_in([]).code == grpc.StatusCode.UNKNOWN
    for number in (b"99", b"", b"-1", b"x"):
        assert status_in([(b"grpc-status", number)]).code == grpc.StatusCode.UNKNOWN


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1).map("x-".__add__)
texts = st.text("".join(map(chr, range(0x21, 0x7F))), min_size=1)


@given(
    st.lists(
        st.tuples(names.filter(lambda name: not name.endswith("-bin")), texts)
        | st.tuples(names.map("{}-bin".format), st.binary())
    )
)
def test_metadata_are_received_as_they_were_sent(sent: list[tuple[str, str | bytes]]) -> None:
    headers = [(b":path", b"/a/b"), (b"te", b"trailers"), *headers_of(sent)]
    assert metadata_of(headers) == sent


def test_values_in_one_header_are_taken_apart_and_those_that_are_no_base64_left_out() -> None:
    assert metadata_of([(b"x-bin", b"YQ==, Yg,x")]) == [("x-bin", b"a"), ("x-bin", b"b")]
