"""Decode the bytes of an image file of any supported format into a greyscale array.

This is the one place that reads untrusted files. Sizes are checked before pixels are decoded, and
any fault of a file becomes an ImageError.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
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
from serve.decoding.picture import Picture, Reading
from serve.decoding.transparency import ground, matte
from serve.imaging.errors import NotAnImageError, UnsupportedImageError
from serve.imaging.normalise import normalise
from serve.imaging.placement import Grey

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

_STRIP_PIXELS = 2**18  # pixels per strip when a large image is converted in strips

_WIDTH, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 256, 278, 322, 323  # TIFF tags
_ALL_ROWS = 2**32 - 1  # in one strip

_one_at_a_time = threading.Lock()  # the memory of large pictures would add up
# The GNU C library keeps freed memory for each thread; this gives it back.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

# Formats whose frames come by `seek`. A TIFF's pages are pictures of their own.
_ANIMATED = ("GIF", "PNG", "AVIF")
_BLANK = 8  # grey levels by which a frame without any ink may vary
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def read_file(content: bytes, *, max_pixels: int) -> Reading:
    """Decode and normalise an image file, or raise an ImageError."""
    picture = decode(content, max_pixels=max_pixels)
    normalised = normalise(picture.grey)
    return Reading(picture.grey, normalised, picture.unreduced(normalised.box))


def normalise_file(content: bytes, *, max_pixels: int) -> Grey:
    """Return the models' input, (28, 28) uint8, of an image file, or raise an ImageError."""
    return read_file(content, max_pixels=max_pixels).normalised.image


def decode(content: bytes, *, max_pixels: int) -> Picture:
    """Return the first frame with anything on it, upright, not inverted.

    A transparent image is laid on a ground that contrasts with its ink. An image of more than
    8 bits is stretched to its own range. Colours become the grey, or the channel, with the most
    contrast. Sides over 2 * DETAIL are reduced by a whole factor.

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
            return _decoded(content, image, max_pixels)
        with _one_at_a_time:
            picture = _decoded(content, image, max_pixels)
            if _trim and pixels > MAX_WHOLE_PIXELS:
                _trim(0)
        return picture


def _decoded(content: bytes, image: ImageFile.ImageFile, max_pixels: int) -> Picture:
    if image.format == "JPEG":
        size = image.size
        _draft(image)
        image.load()
        return Picture(_grey(image), size).upright(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_pieces(image, max_pixels)
    if image.format == "WEBP" or getattr(image, "is_animated", False):
        for frame in _frames(image, min(max_pixels, MAX_WHOLE_PIXELS)):
            grey = _grey(frame)
            if np.ptp(grey) > _BLANK:
                break
        return Picture(grey, frame.size).upright(image)
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
    return Picture(_grey(picture), picture.size).upright(picture)


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


def _grey(image: Image.Image) -> Grey:
    if image.mode[0] in "IF":  # I, I;16, I;16B, F: more than 8 bits
        return _stretched(np.asarray(_reduced(image, "F")))
    if image.mode in _ALPHA or "transparency" in image.info:
        return _of_colours(_on_ground(image))
    if image.mode in ("L", "1"):
        return np.asarray(_reduced(image, "L"))
    if image.mode == "LAB":
        return np.asarray(_reduced(image.getchannel("L"), "L"))
    return _of_colours(_reduced(image, "RGB"))


def _reduced(
    image: Image.Image, *modes: str, alphas: NDArray[np.int64] | None = None
) -> Image.Image:
    """Convert the image to one mode after another and reduce it, in strips to save memory.

    `alphas`, (256,), counts each pixel by its alpha.
    """
    factor = max(image.size) // DETAIL
    if factor < 2:
        return _counted(_converted(image, modes), alphas)
    size = -(-image.width // factor), -(-image.height // factor)
    reduced = Image.new(modes[-1], size)
    for top, strip in _strips(image, factor):
        converted = _counted(_converted(strip, modes), alphas)
        reduced.paste(converted.reduce(factor), (0, top // factor))
    return reduced


def _strips(image: Image.Image, factor: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield each strip's top row and the strip; `factor` divides all heights but the last."""
    rows = factor * max(1, _STRIP_PIXELS // (factor * image.width))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _converted(image: Image.Image, modes: Sequence[str]) -> Image.Image:
    for mode in modes:
        image = image if image.mode == mode else image.convert(mode)
    return image


def _counted(image: Image.Image, alphas: NDArray[np.int64] | None) -> Image.Image:
    if alphas is not None:
        alphas += image.getchannel("A").histogram()
    return image


def _stretched(deep: NDArray[np.float32]) -> Grey:
    """Stretch (height, width) float32 from its minimum and maximum to uint8 0 to 255."""
    values = deep.astype(np.float64)  # differences of float32 values may overflow float32
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = values[finite].min() if finite.any() else 0
    low = values.min()
    span = values.max() - low
    return np.rint((values - low) * (255 / span) if span > 0 else values * 0).astype(np.uint8)


def _of_colours(image: Image.Image) -> Grey:
    """Return the luminance of an RGB image, or a channel with more than twice its contrast.

    Red ink on green of the same brightness is invisible in the luminance.
    """
    small = image.reduce(max(1, max(image.size) // 64))
    channels = np.asarray(small).reshape(-1, 3)
    contrasts = channels.max(0).astype(int) - channels.min(0)
    if contrasts.max() > 2 * int(np.ptp(np.asarray(small.convert("L")))):
        return np.asarray(image.getchannel(int(contrasts.argmax())))
    return np.asarray(image.convert("L"))


def _on_ground(image: Image.Image) -> Image.Image:
    """Lay a transparent image on a ground that contrasts with its ink; return reduced RGB."""
    counts = np.zeros(256, np.int64)
    reduced = _reduced(image, "RGBA", alphas=counts)
    levels = np.flatnonzero(counts)
    if len(levels) == 1 and levels[0] != 0:
        # The reduced picture is the plain one if nothing in it is transparent.
        return reduced.convert("RGB") if levels[0] == 255 else _reduced(image, "RGBA", "RGB")
    image = reduced
    pixels = np.asarray(image)
    alpha = pixels[..., 3]
    solid = alpha >= alpha.max() * 0.97
    cut = matte(pixels, solid) if len(levels) == 2 and levels[0] == 0 else None
    under = Image.new("RGBA", image.size, (*(cut or ground(pixels[solid])), 255))
    return Image.alpha_composite(under, image).convert("RGB")
