"""What a header declares, and headers that are made to be long."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image
from support.bundles import picture

from serve.decoding.decode import decode
from serve.decoding.headers import MAX_READS, declared_pixels
from serve.decoding.jpeg import MAX_SEGMENTS
from serve.imaging.errors import NotAnImageError, TooManyPixelsError

MAX = 16_000_000
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
ANIMATION = {"save_all": True, "append_images": [Image.new("RGB", (40, 30), "red")]}


def saved(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (28, 30), (301, 7), (500, 499)])
def test_each_format(file_format, size):
    content = saved(Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)), file_format)
    pixels = size[0] * size[1]
    assert declared_pixels(content, pixels) == pixels
    assert declared_pixels(content, pixels - 1) == 0


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("WEBP", ANIMATION),
        ("GIF", ANIMATION),
        ("JPEG", {"progressive": True, "comment": b"\xff\xc0" * 9}),
        ("TIFF", {"big_tiff": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", ANIMATION),
    ],
)
def test_each_kind_of_a_format(file_format, options):
    content = saved(Image.new("RGB", (40, 30)), file_format, **options)
    assert declared_pixels(content, MAX) == 1200


def grown(content, before, width, height):
    """The same file with another size in its header, which comes after those bytes."""
    form = ">HH" if b"JFIF" in content[:20] else "<HH" if content[:3] == b"GIF" else ">II"
    sides = (height, width) if form == ">HH" else (width, height)
    place = content.index(before) + len(before)
    return content[:place] + struct.pack(form, *sides) + content[place + struct.calcsize(form) :]


SMALL = Image.new("RGB", (64, 64))
INTERLACED = bytearray(saved(SMALL, "PNG"))
INTERLACED[28] = 1
FULL = {"progressive": True, "subsampling": 0}


@pytest.mark.parametrize(
    ("content", "before", "side", "fits"),
    [
        pytest.param(saved(SMALL, "JPEG"), b"\xff\xc0\0\x11\x08", 8000, True, id="jpeg"),
        pytest.param(
            saved(SMALL, "JPEG", progressive=True), b"\xff\xc2\0\x11\x08", 6900, True, id="scans"
        ),
        pytest.param(
            saved(SMALL, "JPEG", progressive=True), b"\xff\xc2\0\x11\x08", 7000, False, id="more"
        ),
        pytest.param(
            saved(SMALL, "JPEG", **FULL), b"\xff\xc2\0\x11\x08", 4890, True, id="full-colours"
        ),
        pytest.param(
            saved(SMALL, "JPEG", **FULL), b"\xff\xc2\0\x11\x08", 4910, False, id="more-of-them"
        ),
        pytest.param(
            saved(SMALL, "JPEG").replace(b"\xff\xc0", b"\xff\xc3"),
            b"\xff\xc3\0\x11\x08",
            4010,
            False,
            id="lossless-jpeg",
        ),
        pytest.param(saved(SMALL, "PNG"), b"IHDR", 8000, True, id="png"),
        pytest.param(bytes(INTERLACED), b"IHDR", 4010, False, id="interlaced-png"),
        pytest.param(saved(SMALL, "PNG", **ANIMATION), b"IHDR", 4010, False, id="animated-png"),
        pytest.param(saved(SMALL, "GIF"), b"GIF87a", 4010, False, id="gif"),
        pytest.param(saved(SMALL, "AVIF"), b"ispe\0\0\0\0", 4890, True, id="avif"),
        pytest.param(saved(SMALL, "AVIF"), b"ispe\0\0\0\0", 4910, False, id="large-avif"),
        pytest.param(
            saved(SMALL.convert("RGBA").point(lambda level: level // 2), "AVIF"),
            b"ispe\0\0\0\0",
            4010,
            False,
            id="avif-alpha",
        ),
    ],
)
def test_what_is_decoded_whole_may_have_fewer_pixels(content, before, side, fits):
    large = grown(content, before, side, side)
    assert declared_pixels(large, 64_000_000) == fits * side**2
    if not fits:
        with pytest.raises(TooManyPixelsError, match="pixels"):
            decode(large, max_pixels=64_000_000)


def test_a_png_of_very_long_rows_or_endless_chunks_is_decoded_whole():
    content = saved(SMALL, "PNG")
    wide = grown(content, b"IHDR", 40_000, 1_600)
    assert declared_pixels(wide, 64_000_000) == 64_000_000
    assert declared_pixels(grown(content, b"IHDR", 40_001, 1_599), 64_000_000) == 0
    started = time.thread_time()
    endless = wide[:33] + 400_000 * (bytes(4) + b"teXt" + bytes(4)) + wide[33:]
    assert declared_pixels(endless, 64_000_000) == 0
    assert time.thread_time() - started < 0.05


def test_a_tiff_of_the_other_byte_order():
    content = saved(Image.new("I;16B", (40, 30)), "TIFF")
    assert content.startswith(b"MM")
    assert declared_pixels(content, MAX) == 1200


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_header_that_is_cut_off_declares_nothing(file_format):
    whole = picture(64, file_format)
    for part in range(20):
        assert declared_pixels(whole[:part], MAX) in (0, 64 * 64)
    assert declared_pixels(b"no image", MAX) == 0


def with_parts(file_format, count):
    """A file whose header has so many empty comments or unknown tags before the image."""
    if file_format == "TIFF":
        tags = b"".join(struct.pack("<HHII", 1000 + tag % 60_000, 3, 1, 1) for tag in range(count))
        return b"II*\0\x08\0\0\0" + struct.pack("<H", min(count, 65_535)) + tags
    content = picture(64, file_format)
    place = {"GIF": content.index(b",\0\0\0\0") if file_format == "GIF" else 0, "JPEG": 2}
    comment = {"GIF": b"!\xfe\0", "JPEG": b"\xff\xfe\0\2"}
    at = place[file_format]
    return content[:at] + count * comment[file_format] + content[at:]


@pytest.mark.parametrize("file_format", ["GIF", "JPEG"])
def test_a_header_of_some_hundred_parts_is_read(file_format):
    assert declared_pixels(with_parts(file_format, 900), MAX) == 64 * 64
    assert decode(with_parts(file_format, 900), max_pixels=MAX).pixels.shape == (64, 64)


@pytest.mark.parametrize(
    ("file_format", "count"),
    [
        ("GIF", 3_000_000),
        ("TIFF", 800_000),
        ("JPEG", 2_000_000),
        ("GIF", MAX_READS),
        ("JPEG", MAX_SEGMENTS),
    ],
)
def test_a_header_of_endless_parts_is_refused_soon(file_format, count):
    """The header is read in the event loop, where it would hold up every request."""
    content = with_parts(file_format, count)
    started = time.thread_time()
    assert declared_pixels(content, MAX) == 0
    with pytest.raises(NotAnImageError):
        decode(content, max_pixels=MAX)
    assert time.thread_time() - started < 0.5


def test_a_big_tiff_whose_tags_lie_beyond_any_file():
    content = bytearray(saved(Image.new("L", (28, 28)), "TIFF", big_tiff=True))
    content[8:16] = b"\xff" * 8
    assert declared_pixels(bytes(content), MAX) == 0
    with pytest.raises(NotAnImageError, match="TIFF"):
        decode(bytes(content), max_pixels=MAX)
