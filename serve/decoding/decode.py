"""Decode the bytes of an image file of any supported format into an array of pixels.

This is the one place that reads untrusted files. Sizes are checked before pixels are decoded, and
any fault of a file becomes an ImageError.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Iterator

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile, TiffImagePlugin, WebPImagePlugin

from serve.decoding import png
from serve.decoding.headers import format_of, image_errors, open_image
from serve.decoding.jpeg import count_scans
from serve.decoding.limits import (
    DETAIL,
    LARGE_PIXELS,
    MAX_WHOLE_PIXELS,
    check_size,
    format_limit,
)
from serve.decoding.picture import Picture, Pixels, Reading
from serve.decoding.pixels import convert
from serve.imaging.errors import NotAnImageError, UnsupportedImageError
from serve.imaging.placement import SIDE
from serve.imaging.preparation import DIGIT, Preparation

FORMATS = ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF")

# Formats that people send but that are not decoded here, by their first bytes.
_OTHERS = (
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    *((b"P%d" % kind + space, "Netpbm") for kind in range(1, 8) for space in (b"\n", b" ")),
)
# Each scan of a progressive JPEG costs a pass over all pixels, and may have just a few bytes. Real
# files have about ten scans, and a thumbnail or two inside.
_MAX_SCANS = 50

_WIDTH, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 256, 278, 322, 323  # TIFF tags
_ALL_ROWS = 2**32 - 1  # in one strip

_one_at_a_time = threading.Lock()  # the memory of large pictures would add up
# The GNU C library keeps freed memory for each thread; this gives it back.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

# Formats whose frames come by `seek`. A TIFF's pages are pictures of their own.
_ANIMATED = ("GIF", "PNG", "AVIF")
_DIGITS = Preparation(DIGIT, SIDE, SIDE, 1)
_BLANK = 8  # levels by which a frame without any ink may vary


def read_file(content: bytes, *, max_pixels: int, preparation: Preparation = _DIGITS) -> Reading:
    """Decode an image file and prepare it for a model, or raise an ImageError."""
    picture = decode(content, max_pixels=max_pixels, channels=preparation.channels)
    prepared = preparation(picture.pixels)
    return Reading(picture.pixels, prepared, picture.unreduced(prepared.box))


def normalise_file(
    content: bytes, *, max_pixels: int, preparation: Preparation = _DIGITS
) -> Pixels:
    """Return the model's input of an image file, or raise an ImageError."""
    return read_file(content, max_pixels=max_pixels, preparation=preparation).normalised.image


def decode(content: bytes, *, max_pixels: int, channels: int = 1) -> Picture:
    """Return the first frame with anything on it, upright, not inverted.

    A transparent image is laid on a ground that contrasts with its ink. A grey image of more than
    8 bits is stretched to its own range. Sides over 2 * DETAIL are reduced by a whole factor.
    `channels`: 3 for red, green and blue. With 1, colours become the grey, or the channel, with the
    most contrast.

    Raises:
        NotAnImageError: no image, or a corrupt one.
        UnsupportedImageError: a format not in FORMATS.
        TooManyPixelsError: it declares more than `max_pixels`.
    """
    file_format = _format(content)
    max_pixels = format_limit(file_format, max_pixels)
    with (
        image_errors(file_format, max_pixels),
        open_image(content, file_format, max_pixels) as image,
    ):
        if file_format == "JPEG" and count_scans(content) > _MAX_SCANS:
            raise NotAnImageError(f"the JPEG image has more than {_MAX_SCANS} scans")
        pixels = math.prod(image.size)
        if pixels <= LARGE_PIXELS:
            return _decoded(content, image, max_pixels, channels)
        with _one_at_a_time:
            picture = _decoded(content, image, max_pixels, channels)
            if _trim and pixels > MAX_WHOLE_PIXELS:
                _trim(0)
        return picture


def _decoded(content: bytes, image: ImageFile.ImageFile, max_pixels: int, channels: int) -> Picture:
    if image.format == "JPEG":
        size = image.size
        _draft(image)
        image.load()
        return Picture(convert(image, channels), size).upright(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_pieces(image, max_pixels)
    if image.format == "WEBP" or getattr(image, "is_animated", False):
        for frame in _frames(image, min(max_pixels, MAX_WHOLE_PIXELS)):
            pixels = convert(frame, channels)
            if np.ptp(pixels, axis=(0, 1)).max() > _BLANK:
                break
        return Picture(pixels, frame.size).upright(image)
    picture: Image.Image = image
    if isinstance(image, AvifImagePlugin.AvifImageFile):
        picture = _still(image)
    elif (
        image.format == "PNG"
        and image.mode in png.MODES
        and math.prod(image.size) > MAX_WHOLE_PIXELS
    ):
        picture = png.StripedPng(content, image)
    else:
        image.load()
    return Picture(convert(picture, channels), picture.size).upright(picture)


def _still(image: AvifImagePlugin.AvifImageFile) -> Image.Image:
    """Return the picture of an AVIF; unlike `load`, with no more than two copies at once."""
    decoder, image._decoder = image._decoder, None
    pixels = decoder.get_frame(0)[0]
    del decoder  # it holds the picture's planes
    found = Image.frombuffer(image.mode, image.size, pixels, "raw", image.mode, 0, 1)
    found.info = image.info
    return found


def _format(content: bytes) -> str:
    """Return Pillow's name of the format, by the first bytes."""
    if name := format_of(content):
        return name
    start = content[:32].removeprefix(b"\xef\xbb\xbf").lstrip()
    other = next((name for prefix, name in _OTHERS if start.startswith(prefix)), "")
    if content[4:8] == b"ftyp":
        other = "HEIC"
    if other:
        raise UnsupportedImageError(f"{other} is not supported: send {', '.join(FORMATS)}")
    raise NotAnImageError("the bytes are not an image")


def _check_pieces(image: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    """Refuse a TIFF whose tiles or strips have more than `max_pixels`."""
    tags = image.tag_v2
    width, height = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
    check_size((width, height), max_pixels)
    rows = tags.get(_ROWS, _ALL_ROWS)
    if rows != _ALL_ROWS:
        # Not `image.width`: Pillow has turned that by the EXIF orientation, the strips it has not.
        check_size((tags[_WIDTH], rows), max_pixels)


def _frames(image: ImageFile.ImageFile, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the frames of an animation, those that `max_pixels` allow together; at least one."""
    if isinstance(image, WebPImagePlugin.WebPImageFile):
        decoder, image._decoder = image._decoder, None
        for left in reversed(range(image.n_frames)):
            pixels, _ = decoder.get_next()
            if not left:
                del decoder  # it holds two more copies of the picture
            yield Image.frombuffer(image.rawmode, image.size, pixels, "raw", image.rawmode, 0, 1)
        return
    most = max(1, max_pixels // math.prod(image.size)) if image.format in _ANIMATED else 1
    for number in range(most):
        try:
            image.seek(number)
        except EOFError:
            return
        check_size(image.size, max_pixels)  # a GIF's frame may be larger than those before
        image.load()
        yield image


def _draft(image: Image.Image) -> None:
    """Let the JPEG decoder skip detail of a large image that would be reduced away."""
    excess = max(image.size) / DETAIL
    if excess > 2:
        image.draft(None, (int(image.width / excess), int(image.height / excess)))
