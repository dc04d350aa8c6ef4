"""Convert a decoded image of any mode to pixels of grey, or of red, green and blue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.decoding.limits import DETAIL
from serve.decoding.picture import Pixels
from serve.decoding.transparency import ground, matte
from serve.imaging.placement import Grey

_STRIP_PIXELS = 2**18  # pixels per strip when a large image is converted in strips
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def convert(image: Image.Image, channels: int) -> Pixels:
    """Return the image as uint8, reduced: (height, width) for 1 channel, or (height, width, 3)."""
    return _grey(image) if channels == 1 else _coloured(image)


def _coloured(image: Image.Image) -> Pixels:
    if image.mode[0] in "IF" or image.mode == "LAB":  # of which Pillow converts the lightness
        return np.repeat(_grey(image)[:, :, None], 3, axis=2)
    if _is_transparent(image):
        return np.asarray(_on_ground(image))
    return np.asarray(_reduced(image, "RGB"))


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in _ALPHA or "transparency" in image.info


def _grey(image: Image.Image) -> Grey:
    if image.mode[0] in "IF":  # I, I;16, I;16B, F: more than 8 bits
        return _stretched(np.asarray(_reduced(image, "F")))
    if _is_transparent(image):
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
