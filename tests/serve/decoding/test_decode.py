"""Every kind of image file, and files that are made to hurt."""

import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from support.hostile_inputs import png, png_chunk
from support.large_pictures import LARGE, saved

from serve.decoding import decode as decoding
from serve.decoding.decode import FORMATS
from serve.imaging.errors import (
    ImageError,
    NotAnImageError,
    TooManyPixelsError,
    UnsupportedImageError,
)

MAX = 16_000_000


def decode(content, *, max_pixels):
    return decoding.decode(content, max_pixels=max_pixels).pixels


def seven(height=30, width=20):
    """Grey levels of a 7, white on black, of which every turn is another."""
    picture = np.zeros((height, width), np.uint8)
    picture[4:8, 4:-4] = 255
    picture[8:-3, -9:-5] = 200
    return picture


GREY = seven()
MODES = ["L", "1", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"]
SUFFICIENT = {"CMYK": "TIFF", "I": "TIFF", "F": "TIFF"}


@pytest.mark.parametrize("mode", MODES)
def test_any_mode(mode):
    black_and_white = (GREY > 100).astype(np.uint8) * 255
    image = Image.fromarray(black_and_white)
    if mode == "I;16":
        image = Image.fromarray(black_and_white.astype(np.uint16) * 257)
    content = saved(image.convert(mode) if mode != "I;16" else image, SUFFICIENT.get(mode, "PNG"))
    np.testing.assert_array_equal(decode(content, max_pixels=MAX), black_and_white)


@pytest.mark.parametrize("file_format", FORMATS)
def test_any_format(file_format):
    options = {"lossless": True} if file_format == "WebP" else {}
    content = saved(Image.fromarray(GREY).convert("RGB"), file_format.upper(), **options)
    grey = decode(content, max_pixels=MAX).astype(int)
    assert (grey.shape, np.abs(grey - GREY).max() < 60) == (GREY.shape, True)


@pytest.mark.parametrize("deep", [np.uint16, np.int32, np.float32, np.dtype(">u2")])
def test_deep_images_keep_their_levels(deep):
    content = saved((GREY.astype(deep) * np.array(100, deep)), "TIFF")
    np.testing.assert_array_equal(decode(content, max_pixels=MAX), GREY)


def test_deep_images_may_hold_what_is_no_number():
    deep = GREY.astype(np.float32) * 1e36
    deep[0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(decode(saved(deep, "TIFF"), max_pixels=MAX), GREY)
    nothing = np.full((5, 5), np.nan, np.float32)
    assert not decode(saved(nothing, "TIFF"), max_pixels=MAX).any()


TURNS = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"]
TURNS += ["TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]


@pytest.mark.parametrize(("orientation", "turn"), list(enumerate([None, *TURNS], 1)))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_turned_by_exif(orientation, turn, file_format):
    image = Image.fromarray(GREY)
    image = image.transpose(Image.Transpose[turn]) if turn else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = decode(saved(image.convert("RGB"), file_format, exif=exif), max_pixels=MAX)
    assert grey.shape == GREY.shape
    assert np.abs(grey.astype(int) - GREY).mean() < 8


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 40]
)
def test_broken_metadata_does_no_harm(exif):
    content = saved(Image.fromarray(GREY), "PNG", exif=exif, icc_profile=b"no profile")
    np.testing.assert_array_equal(decode(content, max_pixels=MAX), GREY)


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30), (255, 240, 60)])
def test_ink_on_nothing_is_seen(ink):
    pixels = np.zeros((*GREY.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = ink, GREY
    grey = decode(saved(pixels), max_pixels=MAX).astype(int)
    assert abs(grey[6, 10] - grey[0, 0]) > 100


def test_what_is_hidden_by_transparency_stays_hidden():
    pixels = np.zeros((*GREY.shape, 4), np.uint8)
    pixels[..., :3] = np.random.default_rng(0).integers(0, 256, (*GREY.shape, 3))
    pixels[GREY > 0] = 255
    grey = decode(saved(pixels), max_pixels=MAX)
    assert set(np.unique(grey[GREY == 0])) == {0}


def test_paper_cut_out_keeps_its_colour_around():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[3:-3, 3:-3] = (240, 235, 225, 255)
    pixels[10:30, 18:22] = (20, 20, 60, 255)
    grey = decode(saved(pixels), max_pixels=MAX).astype(int)
    assert abs(grey[0, 0] - grey[5, 5]) < 3
    assert grey[5, 5] - grey[20, 20] > 150


@pytest.mark.parametrize("transparent", [0, bytes([0, 128, 255] + [255] * 253)])
def test_transparent_colours_of_a_palette(transparent):
    image = Image.fromarray((GREY > 0).astype(np.uint8) * 2)
    image.putpalette([0, 0, 0, 9, 9, 9, 30, 10, 10] + [0] * 759)
    grey = decode(saved(image, transparency=transparent), max_pixels=MAX).astype(int)
    assert grey[0, 0] - grey[6, 10] > 150


WHITE, BLACK = (255,) * 3, (0,) * 3


@pytest.mark.parametrize(
    ("ink", "paper"), [(BLACK, WHITE), (WHITE, BLACK), ((30, 40, 140), (240, 235, 220))]
)
@pytest.mark.parametrize("side", [28, 200, 1700])
def test_a_colour_that_was_made_transparent_is_the_paper(ink, paper, side):
    large = Image.fromarray(GREY).resize((side, side), Image.Resampling.BICUBIC)
    cover = np.asarray(large)[..., None] / 255  # with soft edges, which stay opaque
    opaque = Image.fromarray(
        np.rint(np.array(paper) * (1 - cover) + np.array(ink) * cover).astype(np.uint8)
    )
    expected = decode(saved(opaque), max_pixels=MAX).astype(int)
    palette = opaque.quantize(256)
    index = palette.getpixel((0, 0))
    clear = (np.asarray(opaque) == paper).all(axis=2)
    pixels = np.dstack([opaque, np.where(clear, 0, 255).astype(np.uint8)])
    for content in (
        saved(opaque, transparency=paper),
        saved(palette, transparency=index),
        saved(palette, "GIF", transparency=index),
        saved(pixels),
    ):
        # Reduced pictures have no edges, and any ground that contrasts with the ink.
        most = 12 if side < 1600 else 40
        assert np.abs(decode(content, max_pixels=MAX) - expected).max() < most
    pixels[clear] = 0  # its colour is lost
    lost = decode(saved(pixels), max_pixels=MAX).astype(int)
    assert lost[0, 0] == (255 if sum(paper) > sum(ink) else 0)
    assert np.abs(lost - expected).max() < 40


def test_no_transparency_at_all_is_the_plain_picture():
    for alpha in (255, 100):
        pixels = np.dstack([GREY, GREY, GREY, np.full_like(GREY, alpha)])
        np.testing.assert_array_equal(decode(saved(pixels), max_pixels=MAX), GREY)


def test_colours_of_one_brightness_are_told_apart():
    pixels = np.zeros((*GREY.shape, 3), np.uint8)
    pixels[:] = (0, 130, 0)
    pixels[GREY > 0] = (255, 0, 0)  # the same luminance
    grey = decode(saved(pixels), max_pixels=MAX).astype(int)
    assert abs(grey[6, 10] - grey[0, 0]) > 200


def test_the_first_frame_of_several():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for file_format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        content = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode(content, max_pixels=MAX), GREY)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("blank", [0, 255])
def test_the_first_frame_that_is_not_blank(file_format, blank):
    empty = Image.new("L", GREY.T.shape, blank)
    frames = [empty.point(lambda level: abs(level - 1)), Image.fromarray(GREY), empty]
    content = saved(empty, file_format, save_all=True, append_images=frames)
    grey = decode(content, max_pixels=MAX).astype(int)
    assert np.abs(grey - GREY).max() < 60
    few = decode(content, max_pixels=2 * GREY.size)  # enough for two frames
    assert np.ptp(few) < 10 if file_format != "WEBP" else few.shape == GREY.shape


@pytest.mark.parametrize("file_format", [name.upper() for name in FORMATS])
def test_pixels_are_counted_before_any_is_decoded(file_format):
    content = saved(Image.new("L", (300, 200)), file_format)
    decode(content, max_pixels=60_000)
    with pytest.raises(TooManyPixelsError, match="59,999"):
        decode(content, max_pixels=59_999)


@pytest.mark.parametrize("side", [9_400, 14_200])  # Pillow warns of the first, refuses the second
def test_a_small_file_of_very_many_pixels(side):
    content = saved(Image.new("1", (side, side)))
    assert len(content) < 100_000
    started = time.thread_time()
    with pytest.raises(TooManyPixelsError):
        decode(content, max_pixels=MAX)
    assert time.thread_time() - started < 0.05


def test_a_gif_whose_frame_is_larger_than_its_screen():
    content = bytearray(saved(Image.new("L", (64, 64)), "GIF"))
    frame = content.index(b"\x2c\0\0\0\0")
    content[frame + 5 : frame + 9] = struct.pack("<HH", 65535, 65535)
    with pytest.raises(TooManyPixelsError):
        decode(bytes(content), max_pixels=MAX)


def test_a_jpeg_of_endless_scans():
    content = saved(Image.new("L", (4000, 4000), 128), "JPEG", progressive=True)
    decode(content, max_pixels=MAX)
    last = content[content.rindex(b"\xff\xda") : -2]
    started = time.thread_time()
    with pytest.raises(NotAnImageError, match="scans"):
        decode(content[:-2] + 3000 * last + content[-2:], max_pixels=MAX)
    assert time.thread_time() - started < 0.05


def test_what_follows_a_jpeg_is_not_its_scans():
    content = saved(Image.fromarray(GREY).convert("RGB"), "JPEG")
    film = np.random.default_rng(0).bytes(4_000_000)
    assert film.count(b"\xff\xda") > 50
    np.testing.assert_array_equal(
        decode(content + film, max_pixels=MAX), decode(content, max_pixels=MAX)
    )
    exif = b"Exif\0\0" + b"\xff\xda" * 100  # a thumbnail, say
    decode(saved(Image.fromarray(GREY), "JPEG", exif=exif), max_pixels=MAX)


def tiff(width, height, tags, data):
    """A grey TIFF in deflate with these tags; `data` is what unfolds."""
    packed = zlib.compress(data, 9)
    place, size = (324, 325) if 322 in tags else (273, 279)
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, **tags}
    tags[size], tags[place] = len(packed), 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + entries + struct.pack("<I", 0) + packed


def test_a_tiff_of_one_tile_larger_than_a_picture_may_be():
    small = tiff(28, 28, {322: 32, 323: 32}, b"\7" * 1024)
    assert decode(small, max_pixels=MAX).shape == (28, 28)
    large = tiff(28, 28, {322: 32768, 323: 32768}, b"")
    with pytest.raises(TooManyPixelsError, match="32768 x 32768"):
        decode(large, max_pixels=MAX)


def test_a_tiff_of_one_strip_larger_than_a_picture_may_be():
    for rows in (28, 1000, 2**32 - 1):  # the last means all
        assert decode(tiff(28, 28, {278: rows}, b"\7" * 784), max_pixels=MAX).shape == (28, 28)
    with pytest.raises(TooManyPixelsError):
        decode(tiff(28, 28, {278: 2**31}, b""), max_pixels=MAX)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_strip_of_a_turned_tiff_is_as_wide_as_stored(orientation):
    upright = tiff(20, 30, {274: orientation, 278: 30}, b"\7" * 600)
    assert sorted(decode(upright, max_pixels=600).shape) == [20, 30]
    with pytest.raises(TooManyPixelsError, match="30 x 21"):
        decode(tiff(30, 20, {274: orientation, 278: 21}, b""), max_pixels=600)


def gif(screen, frame, before=b""):
    """A GIF of disposal 2 without pixels."""
    control = b"!\xf9\x04\x08\0\0\0\0"
    head = b"GIF89a" + struct.pack("<HH", *screen) + b"\0\0\0"
    return head + before + control + b",\0\0\0\0" + struct.pack("<HH", *frame) + b"\0\x02\0;"


def apng(side):
    """An animated PNG of disposal 1 without pixels, declared."""

    def chunk(kind, content):
        packed = kind + content
        return struct.pack(">I", len(content)) + packed + struct.pack(">I", zlib.crc32(packed))

    control = struct.pack(">IIIIIHHBB", 0, side, side, 0, 0, 1, 1, 1, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
        + chunk(b"acTL", struct.pack(">II", 2, 0))
        + chunk(b"fcTL", control)
        + chunk(b"IDAT", b"")
    )


def clear(mode="RGBA"):
    return Image.new("RGBA", (4000, 4000), (1, 2, 3, 100)).convert(mode)


def four_colours():
    return clear("RGB").quantize(4)


# Names of pictures with how they are made and the most memory, in MB.
TAKEN = {
    "gif-screen": (lambda: gif((13_000, 13_000), (13_000, 13_000)), 10),
    "gif-frame": (lambda: gif((28, 28), (13_000, 13_000)), 10),
    "gif-netscape": (
        lambda: gif((28, 28), (13_000, 13_000), b"!\xff\x0bNETSCAPE2.0\0\0!\xf9\0\1\0\0"),
        10,
    ),
    "apng": (lambda: apng(13_000), 10),
    "tiff-tile": (lambda: tiff(28, 28, {322: 16384, 323: 16384}, bytes(2**28)), 10),
    "webp-rgba": (lambda: saved(clear(), "WEBP", lossless=True), 200),
    "webp-rgb": (lambda: saved(clear("RGB"), "WEBP"), 200),
    "avif": (lambda: saved(clear("RGB"), "AVIF", speed=10), 150),
    "png-rgba": (lambda: saved(clear()), 90),
    "png-la": (lambda: saved(clear("LA")), 90),
    "png-palette": (lambda: saved(four_colours(), transparency=0), 90),
    "gif": (lambda: saved(four_colours(), "GIF", transparency=0), 90),
    "cmyk": (lambda: saved(clear("RGB").convert("CMYK"), "TIFF", compression="tiff_lzw"), 90),
    "float": (lambda: saved(clear("RGB").convert("F"), "TIFF", compression="tiff_lzw"), 90),
    "png-16-bit": (lambda: saved(Image.new("I;16", (4000, 4000))), 90),
    "48-megapixel JPEG": (LARGE["48-megapixel JPEG"], 15),
    "48-megapixel JPEG, progressive": (LARGE["48-megapixel JPEG, progressive"], 150),
    "35-megapixel PNG with alpha": (LARGE["35-megapixel PNG with alpha"], 20),
    "24-megapixel AVIF": (LARGE["24-megapixel AVIF"], 195),
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_memory_that_a_picture_takes(name, tmp_path):
    make, most = TAKEN[name]
    assert peak(make(), tmp_path / "picture") < most


def peak(content, file):
    """The most memory that decoding takes, in MB."""
    file.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", PEAK, file], capture_output=True, check=True)
    return int(done.stdout)


PEAK = """
import re, sys
from pathlib import Path
from serve.decoding.decode import decode
from serve.imaging.errors import ImageError

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

content = Path(sys.argv[1]).read_bytes()
before = peak()
try:
    decode(content, max_pixels=64_000_000)
except ImageError:
    pass
print(peak() - before)
"""


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16", "F", "CMYK"])
def test_strips_give_the_picture_that_the_whole_gives(mode, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (1999, 1701, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 99)
    else:
        image = Image.fromarray(noise).convert(mode)
    content = saved(image, SUFFICIENT.get(mode, "PNG"))
    in_strips = decode(content, max_pixels=MAX)
    monkeypatch.setattr("serve.decoding.pixels._STRIP_PIXELS", 10**9)
    np.testing.assert_array_equal(in_strips, decode(content, max_pixels=MAX))


def filtered(depth, colour, extra=b"", after=b""):
    """A PNG of noise whose rows have filters of all kinds."""
    width, height, samples = 1001, 1999, {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    chance = np.random.default_rng(0)
    rows = chance.integers(0, 256, (height, 1 + width * samples * depth // 8), np.uint8)
    rows[:, 0] %= 5
    found = png(width, height, depth, colour, rows.tobytes(), extra)
    return found[:-12] + after + found[-12:]


TURNED = png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")


@pytest.mark.parametrize(
    "arguments",
    [
        *((depth, colour) for depth in (8, 16) for colour in (2, 4, 6)),
        (16, 0),
        (8, 2, png_chunk(b"tRNS", bytes(6)), TURNED),
    ],
)
def test_a_large_png_in_strips_is_the_picture_that_pillow_loads(arguments, monkeypatch):
    content = filtered(*arguments)
    whole = decode(content, max_pixels=MAX)
    monkeypatch.setattr("serve.decoding.decode.MAX_WHOLE_PIXELS", 10**6)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)  # it is not called
    np.testing.assert_array_equal(decode(content, max_pixels=MAX), whole)
    for part in (content[: len(content) // 2], content[:60], content.replace(b"IDAT", b"iDAT")):
        with pytest.raises(NotAnImageError, match="damaged"):
            decode(part, max_pixels=MAX)


def test_a_png_whose_text_unfolds():
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 30_000_000, zip=True)
    with pytest.raises(NotAnImageError):
        decode(saved(Image.new("L", (28, 28)), pnginfo=text), max_pixels=MAX)


@pytest.mark.parametrize("content", [b"", b"\0", b"hello", b"RIFF\0\0\0\0WAVE", b"\x89PN", b"BM"])
def test_what_is_no_image(content):
    with pytest.raises(NotAnImageError):
        decode(content, max_pixels=MAX)


@pytest.mark.parametrize(
    "content",
    [
        b"\0\0\0\x1cftypheic\0\0\0\0",
        b"%PDF-1.7",
        b'<svg xmlns="http://www.w3.org/2000/svg">',
        b'\xef\xbb\xbf\n<?xml version="1.0"?><svg/>',
        b"8BPS\0\1",
        b"\0\0\0\x0cjP  \r\n",
        b"P5 1 1 255 0",
    ],
)
def test_other_formats_are_named_with_those_that_work(content):
    with pytest.raises(UnsupportedImageError, match="PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF"):
        decode(content, max_pixels=MAX)


@pytest.mark.parametrize("file_format", [name.upper() for name in FORMATS])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_cut_off_files_are_refused(file_format, share):
    noise = np.random.default_rng(0).integers(0, 256, (50, 60), np.uint8)
    content = saved(noise, file_format)
    with pytest.raises(NotAnImageError):
        decode(content[: int(share * len(content))], max_pixels=MAX)


def seeds():
    colour = Image.fromarray(GREY).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    yield saved(GREY)
    yield saved(colour.convert("RGBA"), exif=exif)
    yield saved(colour.quantize(8))
    yield saved(colour, "JPEG", exif=exif)
    yield saved(colour, "JPEG", progressive=True)
    yield saved(colour, "WEBP", exif=exif)
    yield saved(GREY, "GIF")
    yield saved(GREY * 0, "GIF", save_all=True, append_images=[Image.fromarray(GREY)])
    yield saved(colour, "AVIF", exif=exif)
    yield saved(colour, "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "jpeg"):
        yield saved(colour, "TIFF", compression=compression)
    yield saved(GREY.astype(np.float32), "TIFF")


@settings(max_examples=400, deadline=None, database=None)
@given(st.data())
def test_damaged_files_raise_nothing_else(data):
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    keep = data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 5]))
    try:
        grey = decode(bytes(content[:keep]), max_pixels=10_000)
    except ImageError:
        return
    assert (grey.dtype, grey.ndim) == (np.uint8, 2)


SEEDS = list(seeds())


def test_remarks_of_pillow_stay_inside(capfd):
    content = bytearray(saved(Image.fromarray(GREY), "TIFF"))
    tags = struct.unpack("<H", content[8:10])[0]
    content[10 + 12 * (tags - 1) + 4 : 10 + 12 * tags] = b"\xff" * 8  # count and place of the last
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError):
            decode(bytes(content[:-20]), max_pixels=MAX)
    assert "PIL" not in capfd.readouterr().err


def test_warnings_of_others_are_left_alone():
    decode(saved(GREY), max_pixels=MAX)
    with pytest.warns(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (4000, 3), (65_500, 40)])
def test_extreme_shapes(size):
    grey = decode(saved(Image.new("RGB", size, "white")), max_pixels=MAX)
    assert min(grey.shape) >= 1
    assert max(grey.shape) < 1_700


def test_large_pictures_are_reduced():
    for mode in ("L", "RGB", "RGBA", "P", "1", "I;16"):
        content = saved(Image.new(mode, (4000, 3000)))
        assert decode(content, max_pixels=MAX).shape == (600, 800), mode
    content = saved(Image.new("RGB", (4000, 3000)), "JPEG")
    assert decode(content, max_pixels=MAX).shape == (750, 1000)
