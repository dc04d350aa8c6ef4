"""Benchmark of image preprocessing, as ratios to plain Pillow: `python -m bench.image`.

Both run in turn, and one thread's processor time is measured, because the machine is shared.
"""

import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from bench.variants import file, read_as_served
from docs.tools.recorded import show


def digit(side: int) -> np.ndarray:
    """Draw a 5, black on white, half as high as the picture."""
    image = Image.new("L", (side, side), 255)
    font = ImageFont.load_default(side * 0.7)
    ImageDraw.Draw(image).text((side / 2, side / 2), "5", 0, font, anchor="mm")
    return np.asarray(image)


def photo(height: int = 3000, width: int = 4000) -> np.ndarray:
    """Draw grainy paper in uneven light, with a 5 of a tenth of its height."""
    light = 140 + np.add.outer(np.linspace(0, 70, height), np.linspace(20, 0, width))
    paper = light + np.random.default_rng(0).normal(0, 4, (height, width))
    paper[1700:2300, 900:1500] *= 0.3 + 0.7 / 255 * digit(600)
    grey = np.clip(paper, 0, 255).astype(np.uint8)
    return np.dstack([grey, grey, grey // 8 * 7])


def plain(content: bytes) -> np.ndarray:
    """Preprocess with plain Pillow: the baseline."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L").resize((28, 28)))


def milliseconds(work: Callable[[bytes], np.ndarray], content: bytes) -> float:
    started = time.thread_time_ns()
    work(content)
    return (time.thread_time_ns() - started) / 1e6


def pictures() -> dict[str, tuple[bytes, str]]:
    """Return a file of each kind and the limit of its time, by the name of the kind."""
    mnist = read_as_served(file(digit(280)))
    noisy = np.clip(255 - mnist + np.random.default_rng(0).normal(-20, 6, mnist.shape), 0, 255)
    thumbnail = Image.fromarray(digit(200)[40:160, 40:160]).resize((8, 8))
    large = photo()
    return {
        "28x28 PNG as in MNIST": (file(mnist), "0.15 ms"),
        "the same inverted": (file(255 - mnist), "0.15 ms"),
        "28x28 PNG, noisy": (file(noisy.astype(np.uint8)), ""),
        "8x8 PNG": (file(thumbnail), ""),
        "280x280 PNG of a canvas": (file(digit(280)), ""),
        "280x280 PNG, RGBA": (file(Image.fromarray(digit(280)).convert("RGBA")), ""),
        "1000x1000 PNG": (file(digit(1000)), ""),
        "12-megapixel JPEG photo": (file(large, "JPEG"), "150 ms"),
        "12-megapixel WebP photo": (file(large, "WEBP"), ""),
        "12-megapixel PNG photo": (file(large), ""),
    }


def main() -> None:
    """Measure each kind of picture and print one table."""
    table = Table("what", "bytes", "min", "median", "plain Pillow, min", "ratio", "limit")
    for name, (content, limit) in pictures().items():
        rounds = 5 if len(content) > 500_000 else 300
        works = plain, read_as_served
        times = [[milliseconds(work, content) for work in works] for _ in range(rounds)]
        (base, best), (_, median) = np.min(times, axis=0), np.median(times, axis=0)
        cells = f"{best:.3f} ms", f"{median:.3f} ms", f"{base:.3f} ms", f"{best / base:.2f}"
        table.add_row(name, f"{len(content):,}", *cells, limit)
    show(table, "images", "python -m bench.image", width=120)


if __name__ == "__main__":
    main()
