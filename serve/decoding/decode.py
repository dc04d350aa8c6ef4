"""Decode the bytes of an image file of any supported format into a greyscale array.

This is the one place that reads untrusted files. Sizes are checked before pixels are decoded, and
any fault of a file becomes an ImageError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, WebPImagePlugin

from serve.decoding.headers import check_size, count_scans, format_of, image_errors, open_image
from serve.imaging.errors import NotAnImageError, UnsupportedImageError
from serve.imaging.normalise import normalise
from serve.imaging.placement import Grey

FORMATS = ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF")

# A large picture is reduced to a longer side of DETAIL to 2 * DETAIL pixels. That is enough for a
# digit of a fortieth of the picture.
DETAIL = 800

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
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"}  # brands of ISO base media files; HEIC has many more

# Each scan of a progressive JPEG costs a pass over all pixels, and may have just a few bytes. Real
# files have about ten scans, and a thumbnail or two inside.
_MAX_SCANS = 50

_STRIP_PIXELS = 2**18  # pixels per strip when a large image is converted in strips

_TILE_WIDTH, _TILE_HEIGHT, _ROWS = 322, 323, 278  # TIFF tags
_ALL_ROWS = 2**32 - 1  # in one strip

_ORIENTATION = 0x0112  # EXIF tag
_TURNS: dict[int, Callable[[Grey], Grey]] = {
    2: np.fliplr,
    3: lambda grey: grey[::-1, ::-1],
    4: np.flipud,
    5: np.transpose,
    6: lambda grey: np.rot90(grey, -1),
    7: lambda grey: grey[::-1, ::-1].T,
    8: np.rot90,
}

_SAME = 48  # grey levels by which the brightness of paper, or of ink, may vary
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def normalise_file(content: bytes, *, max_pixels: int) -> Grey:
    """Return the models' input, (28, 28) uint8, of an image file, or raise an ImageError."""
    return normalise(decode(content, max_pixels=max_pixels))


def decode(content: bytes, *, max_pixels: int) -> Grey:
    """Return the first frame as (height, width) uint8, upright, not inverted.

    A transparent image is laid on a ground that contrasts with its ink. An image of more than
    8 bits is stretched to its own range. Colours become the grey, or the channel, with the most
    contrast. Sides over 2 * DETAIL are reduced by a whole factor.

    Raises:
        NotAnImageError: no image, or a corrupt one.
        UnsupportedImageError: a format not in FORMATS.
        TooManyPixelsError: it declares more than `max_pixels`.
    """
    file_format = _format(content)
    with (
        image_errors(file_format, max_pixels),
        open_image(content, file_format, max_pixels) as image,
    ):
        if isinstance(image, WebPImagePlugin.WebPImageFile):
            return _upright(_grey(_webp(image)), image)
        if file_format == "JPEG":
            if count_scans(content) > _MAX_SCANS:
                raise NotAnImageError(f"the JPEG image has more than {_MAX_SCANS} scans")
            _draft(image)
        elif isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_pieces(image, max_pixels)
        image.load()
        return _upright(_grey(image), image)


def _format(content: bytes) -> str:
    """Return Pillow's name of the format, by the first bytes."""
    if name := format_of(content):
        return name
    start = content[:32].removeprefix(b"\xef\xbb\xbf").lstrip()
    other = next((name for prefix, name in _OTHERS if start.startswith(prefix)), "")
    if content[4:8] == b"ftyp":
        other = _BRANDS.get(content[8:12], "HEIC")
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
        check_size((image.width, rows), max_pixels)


def _webp(image: WebPImagePlugin.WebPImageFile) -> Image.Image:
    """Return the first frame, and drop the decoder: it holds two more copies of the picture."""
    pixels, _ = image._decoder.get_next()
    image._decoder = None
    return Image.frombuffer(image.rawmode, image.size, pixels, "raw", image.rawmode, 0, 1)


def _draft(image: Image.Image) -> None:
    """Let the JPEG decoder skip detail of a large image that would be reduced away."""
    excess = max(image.size) / DETAIL
    if excess > 2:
        image.draft(None, (int(image.width / excess), int(image.height / excess)))


def _upright(grey: Grey, image: Image.Image) -> Grey:
    """Apply the EXIF orientation; Pillow has already applied and removed it for TIFF files."""
    if not image.info:
        return grey
    with contextlib.suppress(Exception):  # corrupt metadata must not reject a sound picture
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
        return turn(grey) if turn else grey
    return grey


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


def _reduced(image: Image.Image, *modes: str) -> Image.Image:
    """Convert the image to one mode after another and reduce it, in strips to save memory."""
    factor = max(image.size) // DETAIL
    if factor < 2:
        return _converted(image, modes)
    size = -(-image.width // factor), -(-image.height // factor)
    reduced = Image.new(modes[-1], size)
    for top, strip in _strips(image, factor):
        reduced.paste(_converted(strip, modes).reduce(factor), (0, top // factor))
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
    extrema = [strip.convert("RGBA").getchannel("A").getextrema() for _, strip in _strips(image, 1)]
    if extrema[0][0] != 0 and len({level for both in extrema for level in both}) == 1:
        return _reduced(image, "RGBA", "RGB")
    image = _reduced(image, "RGBA")
    pixels = np.asarray(image)
    alpha = pixels[..., 3]
    ground = Image.new("RGBA", image.size, (*_ground(pixels[alpha >= alpha.max() * 0.97]), 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _ground(solid: NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the ground: black or white under ink alone, else the paper's colour.

    `solid`: (n, 4), the opaque pixels, without the half-transparent edges of strokes.
    """
    colours = solid[:, :3]
    brightness = colours.sum(axis=1, dtype=np.int16) // 3
    paper = np.median(colours, axis=0)
    others = np.abs(brightness - paper.sum() / 3) > _SAME
    if 0.01 < others.mean() < 0.5:
        return tuple(int(channel) for channel in paper)
    return (255,) * 3 if brightness.mean() < 128 else (0,) * 3
