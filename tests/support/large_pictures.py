"""Files of many megapixels that are made fast, by their names in docs/MEASUREMENTS.md."""

import io

import numpy as np
from PIL import Image


def saved(image, file_format="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    with io.BytesIO() as file:
        image.save(file, file_format, **options)
        return file.getvalue()


def photo(width, height):
    """A large 1 on grainy paper."""
    grain = np.random.default_rng(0).normal(200, 4, (1000, 1000, 3)).astype(np.uint8)
    pixels = np.tile(grain, (height // 1000 + 1, width // 1000 + 1, 1))[:height, :width]
    pixels[height // 4 : -height // 4, width // 2 - 300 : width // 2 + 300] //= 4
    return Image.fromarray(pixels)


def page(mode):
    """A4 at 600 dots per inch: the same on clean paper, which a PNG packs into few bytes."""
    clean = Image.new("RGB", (4960, 7016), "white")
    clean.paste(photo(700, 2400), (2100, 2300))
    return clean.convert(mode)


LARGE = {
    "48-megapixel JPEG": lambda: saved(photo(8000, 6000), "JPEG"),
    "48-megapixel JPEG, progressive": lambda: saved(photo(8000, 6000), "JPEG", progressive=True),
    "35-megapixel PNG": lambda: saved(page("RGB"), compress_level=1),
    "35-megapixel PNG with alpha": lambda: saved(page("RGBA"), compress_level=1),
    "24-megapixel AVIF": lambda: saved(photo(6000, 4000), "AVIF", speed=10),
    "16-megapixel WebP": lambda: saved(photo(4000, 4000), "WEBP", method=0),
}
