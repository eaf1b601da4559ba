"""Photos as users upload them: decoded correctly, or rejected with a specific error."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from shashin.errors import PhotoEmpty, PhotoError, PhotoTooLarge, PhotoUndecodable
from shashin.photos import FORMATS, SHORT_SIDE, decode_photo, thumbnail
from tests.support.colour_profiles import grey_profile, ink_profile, matrix_profile

RED, BLUE, WHITE = (220, 30, 30), (30, 30, 220), (255, 255, 255)


def two_halves(mode: str = "RGB", size: tuple[int, int] = (120, 80)) -> Image.Image:
    """Return a picture that is red on the left and blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, size[0], size[1]))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def is_near(pixel: object, colour: tuple[int, int, int], off: int = 40) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= off for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_listed_format_is_read(kind: str) -> None:
    image = decode_photo(saved(two_halves(), kind))
    assert image.mode == "RGB"
    assert is_near(image.getpixel((10, 40)), RED)
    assert is_near(image.getpixel((110, 40)), BLUE)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG")],
)
def test_colours_of_other_modes_are_converted_correctly(mode: str, kind: str) -> None:
    image = decode_photo(saved(two_halves(mode), kind))
    assert is_near(image.getpixel((10, 40)), RED, 60)
    assert is_near(image.getpixel((110, 40)), BLUE, 60)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_photos_become_rgb(mode: str) -> None:
    image = decode_photo(saved(two_halves(mode), "PNG"))
    assert image.mode == "RGB"
    assert image.size == (120, 80)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(mode: str) -> None:
    clear = Image.new("RGBA", (50, 50), (0, 0, 0, 0)).convert(mode)
    assert decode_photo(saved(clear, "PNG")).getpixel((25, 25)) == WHITE


def test_a_palette_with_a_transparent_colour_is_put_on_white() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 0, 200, 0, 0])
    data = saved(image, "PNG", transparency=0)
    assert decode_photo(data).getpixel((10, 10)) == WHITE


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, -1).repeat(8, axis=0)
    image = decode_photo(saved(Image.fromarray(ramp), "PNG"))
    middle = image.getpixel((128, 4))
    assert is_near(middle, (128, 128, 128), 3)
    assert is_near(image.getpixel((255, 4)), WHITE, 1)


def test_a_rotated_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image = decode_photo(saved(two_halves(size=(120, 80)), "JPEG", exif=exif))
    assert image.size == (80, 120)
    assert is_near(image.getpixel((40, 10)), RED)
    assert is_near(image.getpixel((40, 110)), BLUE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, BLUE)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert is_near(decode_photo(data).getpixel((20, 20)), RED)


def test_no_bytes_are_refused_as_empty() -> None:
    with pytest.raises(PhotoEmpty, match="no bytes"):
        decode_photo(b"")


@pytest.mark.parametrize("data", [b"hello, I am text", b"\x00" * 100, b"%PDF-1.7 and more"])
def test_bytes_that_are_not_an_image_are_rejected_with_the_known_formats(data: bytes) -> None:
    with pytest.raises(PhotoUndecodable, match=r"not an image of a known format: .*JPEG.*PNG"):
        decode_photo(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_photo_that_is_cut_short_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(PhotoUndecodable):
        decode_photo(data[: len(data) // 2])


def bomb_png(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size, with almost no data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\x00" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height"),
    [(10_000, 5_001), (40_000, 40_000), (500_000_000, 1), (2**31 - 1, 2**31 - 1)],
)
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(PhotoTooLarge, match="at most 50 megapixels"):
        decode_photo(bomb_png(width, height))


def test_fifty_megapixels_are_still_read() -> None:
    image = decode_photo(saved(Image.new("1", (10_000, 5_000)), "PNG"))
    assert image.size == (10_000, 5_000)


def test_a_format_that_pillow_knows_and_we_do_not_list_is_refused() -> None:
    with pytest.raises(PhotoUndecodable, match="not an image of a known format"):
        decode_photo(saved(two_halves(), "PPM"))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_photo_or_a_photo_error(data: bytes) -> None:
    with suppress(PhotoError):
        assert decode_photo(data).mode == "RGB"


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8
    ),
)
def test_a_damaged_photo_is_a_photo_or_a_photo_error(
    kind: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(saved(two_halves(size=(32, 24)), kind))
    for at, value in changes:
        data[at % len(data)] = value
    with suppress(PhotoError):
        assert thumbnail(bytes(data))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1200, 800), (384, 256)),
        ((800, 1200), (256, 384)),
        ((100, 60), (100, 60)),
        ((256, 256), (256, 256)),
        ((4000, 200), (800, 200)),
    ],
)
def test_a_thumbnail_has_a_short_side_of_256_at_most_and_is_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    with Image.open(io.BytesIO(thumbnail(saved(two_halves(size=size), "JPEG")))) as made:
        assert (made.format, made.mode) == ("JPEG", "RGB")
        assert made.size == expected
        assert min(made.size) <= SHORT_SIDE


@pytest.mark.parametrize("size", [(200, 150), (700, 500), (2400, 1600)])
def test_nothing_but_pixels_is_kept_of_a_photo(size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    profile = matrix_profile()
    options = {"comment": b"secret", "exif": exif, "icc_profile": profile, "xmp": b"<x/>"}
    data = saved(two_halves(size=size), "JPEG", **options)
    assert decode_photo(data).info == decode_photo(data, enough=256).info == {}
    made = thumbnail(data)
    assert not any(part in made for part in (b"secret", b"where I live", b"<x/>", b"ICC_PROFILE"))


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((1024, 768), (512, 384)),
        ((1023, 768), (512, 384)),
        ((2048, 1536), (512, 384)),
        ((4096, 3072), (512, 384)),
        ((511, 511), (511, 511)),
        ((100, 80), (100, 80)),
    ],
)
def test_a_large_jpeg_is_decoded_at_the_smallest_scale_that_is_enough(
    size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    data = saved(two_halves(size=size), "JPEG")
    assert decode_photo(data).size == size
    # Reducing it only after it was decoded would leave another size.
    assert decode_photo(data, enough=256).size == decoded


def test_a_thumbnail_of_a_thumbnail_keeps_its_size() -> None:
    once = thumbnail(saved(two_halves(size=(1000, 700)), "PNG"))
    with Image.open(io.BytesIO(once)) as first, Image.open(io.BytesIO(thumbnail(once))) as second:
        assert first.size == second.size


def many_segments(count: int) -> bytes:
    data = saved(two_halves(), "JPEG")
    return data[:2] + b"\xff\xfe\x00\x02" * count + data[2:]


def many_chunks(count: int) -> bytes:
    data, header_end = saved(two_halves(), "PNG"), 8 + 25
    empty = struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd"))
    return data[:header_end] + empty * count + data[header_end:]


def many_strips(count: int) -> bytes:
    """Return a TIFF of one pixel per row, in ``count`` strips of which each is the same byte."""
    table = struct.pack("<I", 8) * count, struct.pack("<I", 1) * count
    tags = [(256, 4, 1, 1), (257, 4, 1, min(count, 300)), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, count, 12), (277, 3, 1, 1), (278, 4, 1, 1)]
    tags += [(279, 4, count, 12 + 4 * count)]
    body = bytes(4) + b"".join(table)
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(body))
        + body
        + struct.pack("<H", len(tags))
        + directory
        + bytes(4)
    )


@pytest.mark.parametrize(
    ("make", "few", "many", "message"),
    [
        (many_segments, 1000, 30_000, "more than 20000 segments"),
        (many_chunks, 1000, 30_000, "more than 20000 chunks"),
        (many_strips, 300, 110_000, "more than 200000 values in its tags"),
    ],
)
def test_a_photo_of_very_many_parts_is_refused_before_they_are_read(
    make: Callable[[int], bytes], few: int, many: int, message: str
) -> None:
    assert decode_photo(make(few)).mode == "RGB"
    with pytest.raises(PhotoTooLarge, match=message):
        decode_photo(make(many))


@pytest.mark.parametrize("make", [many_segments, many_chunks, many_strips])
def test_a_file_that_ends_within_its_parts_is_refused(make: Callable[[int], bytes]) -> None:
    data = make(100)
    for length in (*range(8, 60), len(data) - 150):
        with pytest.raises(PhotoUndecodable):
            decode_photo(data[:length])


JPEGS: dict[str, dict[str, object]] = {
    "baseline": {},
    "optimised": {"optimize": True, "quality": 95},
    "unsubsampled": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts in a row": {"restart_marker_blocks": 3},
    "restarts per row": {"restart_marker_rows": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
}


def detailed_jpeg(options: dict[str, object]) -> bytes:
    """Return a JPEG in which every block has details; its size is no multiple of a block's."""
    noise = np.random.default_rng(1).integers(0, 255, (60, 76, 3), dtype=np.uint8)
    return saved(Image.fromarray(noise).resize((101, 83)), "JPEG", **options)


@pytest.mark.parametrize("options", JPEGS.values(), ids=list(JPEGS))
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_decoded_in_full(
    options: dict[str, object], missing: int
) -> None:
    data = detailed_jpeg(options)
    assert decode_photo(data[:-missing]).tobytes() == decode_photo(data).tobytes()
    assert thumbnail(data[:-missing])


@pytest.mark.parametrize("options", JPEGS.values(), ids=list(JPEGS))
def test_a_jpeg_that_also_lacks_image_data_is_refused_wherever_it_ends(
    options: dict[str, object],
) -> None:
    data = detailed_jpeg(options)
    first_scan = data.index(b"\xff\xda")
    lengths = {*range(len(data) - 40, len(data) - 2), *range(first_scan, len(data) - 2, 97)}
    lengths |= {found.start() for found in re.finditer(rb"\xff[\xd0-\xd7\xda]", data)}
    for length in lengths:
        with pytest.raises(PhotoUndecodable, match="truncated or corrupt"):
            decode_photo(data[:length])


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_a_jpeg_of_which_only_a_part_was_written_is_refused(filler: bytes) -> None:
    data = detailed_jpeg({})
    with pytest.raises(PhotoUndecodable, match="image data is missing"):
        decode_photo(data[: len(data) // 2] + filler * (len(data) // 2))


def test_a_jpeg_of_many_scans_is_refused_and_one_of_several_is_read() -> None:
    data = saved(two_halves(), "JPEG", progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    repeated = data[last_scan:-2]
    assert decode_photo(data[:-2] + repeated * 20 + data[-2:]).size == (120, 80)
    with pytest.raises(PhotoTooLarge, match="more than 100 scans"):
        decode_photo(data[:-2] + repeated * 100 + data[-2:])


SHADE = (90, 150, 100)
SHADE_IN_SRGB = (36, 151, 97)
"""The same colour, when it is given in Adobe RGB."""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_colours_of_an_embedded_profile_are_converted_to_srgb(kind: str) -> None:
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    if kind in {"JPEG", "AVIF", "HEIF"}:
        options["quality"] = 95
    data = saved(Image.new("RGB", (64, 64), SHADE), kind, icc_profile=matrix_profile(), **options)
    assert is_near(decode_photo(data).getpixel((30, 30)), SHADE_IN_SRGB, 4)
    with Image.open(io.BytesIO(thumbnail(data))) as made:
        assert is_near(made.getpixel((30, 30)), SHADE_IN_SRGB, 6)
        assert "icc_profile" not in made.info


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_colours_of_a_profile_are_converted_in_other_modes(mode: str) -> None:
    image = Image.new("RGB", (64, 64), SHADE)
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    converted = decode_photo(saved(image, "PNG", icc_profile=matrix_profile()))
    assert is_near(converted.getpixel((30, 30)), SHADE_IN_SRGB, 4)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_greys_of_a_profile_are_converted_to_srgb(mode: str) -> None:
    image = Image.new("L", (64, 64), 128).convert(mode)
    converted = decode_photo(saved(image, "PNG", icc_profile=grey_profile(gamma=1.0)))
    assert is_near(converted.getpixel((30, 30)), (188, 188, 188), 1)


@pytest.mark.parametrize(("ink", "expected"), [(0, (255, 255, 255)), (255, (119, 119, 119))])
def test_inks_of_a_profile_are_converted_to_srgb(ink: int, expected: tuple[int, int, int]) -> None:
    profile = ink_profile(paper=(255, 128, 128), ink=(128, 128, 128))
    data = saved(Image.new("CMYK", (64, 64), (ink, 0, 0, 0)), "TIFF", icc_profile=profile)
    assert is_near(decode_photo(data).getpixel((30, 30)), expected, 2)


@pytest.mark.parametrize(
    "profile",
    [b"no profile", matrix_profile()[:300], grey_profile(1.8), matrix_profile() + b"mpet"],
)
def test_a_profile_that_is_broken_or_does_not_fit_is_ignored(profile: bytes) -> None:
    data = saved(Image.new("RGB", (64, 64), SHADE), "PNG", icc_profile=profile)
    assert decode_photo(data).getpixel((30, 30)) == SHADE


def test_a_picture_is_the_same_in_srgb_and_in_another_profile() -> None:
    ramp = Image.linear_gradient("L").resize((64, 64))
    colours = Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180)))
    muted = colours.point(lambda value: 60 + value // 2)  # within the gamut of both
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    adobe = ImageCms.ImageCmsProfile(io.BytesIO(matrix_profile()))
    transform = ImageCms.ImageCmsTransform(
        srgb, adobe, "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    in_adobe = transform.apply(muted)
    plain = np.asarray(decode_photo(saved(muted, "PNG", icc_profile=srgb.tobytes())), np.int16)
    other = decode_photo(saved(in_adobe, "PNG", icc_profile=matrix_profile()))
    assert np.array_equal(plain, np.asarray(muted))
    assert np.abs(plain - np.asarray(in_adobe)).max() > 20
    assert np.abs(plain - np.asarray(other)).max() <= 3


def exif_of(tags: list[tuple[int, int, int, int]]) -> bytes:
    """Return EXIF data with tags: number, type, count, and value or where it is."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def jpeg_with_exif(exif: bytes) -> bytes:
    """Return a JPEG with EXIF data in as many segments as they take."""
    data, segments = saved(two_halves(), "JPEG"), b""
    for at in range(0, len(exif), 60_000):
        body = b"Exif\0\0" + exif[at : at + 60_000]
        segments += b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return data[:2] + segments + data[2:]


TURNED = (0x0112, 3, 1, 6)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([(0x9000, 3, 1, 0)] * 3000, "more than 2000 tags in its EXIF data"),
        ([(0x9000, 2, 9_000, 8)] * 1000, "more bytes than there are in its EXIF data"),
    ],
)
def test_exif_data_that_would_take_long_or_much_to_read_are_refused(
    tags: list[tuple[int, int, int, int]], message: str
) -> None:
    exif = exif_of(tags)
    for data in (
        jpeg_with_exif(exif),
        saved(two_halves(), "AVIF", exif=exif),
        saved(two_halves(), "HEIF", exif=exif),
    ):
        with pytest.raises(PhotoTooLarge, match=message):
            decode_photo(data)
    for kind in ("PNG", "WEBP"):  # nothing but the orientation is read
        turned = saved(two_halves(), kind, exif=exif_of([TURNED, *tags]))
        assert decode_photo(turned).size == (80, 120)


def test_large_exif_data_of_few_tags_are_read() -> None:
    exif = exif_of([TURNED, (0x9000, 7, 500_000, 60)]) + bytes(500_000)
    assert decode_photo(jpeg_with_exif(exif)).size == (80, 120)


def test_a_tiff_whose_tags_share_their_bytes_is_refused() -> None:
    tags = [(0xC000 + number, 1, 1_000_000, 8) for number in range(50)]
    with pytest.raises(PhotoTooLarge, match="more bytes than there are in its tags"):
        decode_photo(exif_of(tags) + bytes(1_000_000))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_a_photo_is_turned_as_pillow_would_turn_it(turn: int, kind: str, where: str) -> None:
    if where == "exif":
        exif = Image.Exif()
        exif[0x0112] = turn
        data = saved(two_halves(), kind, exif=exif)
    elif kind in {"JPEG", "WEBP"}:
        data = saved(two_halves(), kind, xmp=f'<x tiff:Orientation="{turn}"/>'.encode())
    else:
        return
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert decode_photo(data).tobytes() == expected.tobytes()
