"""Benchmark of the data drift tests: false alarms, and what they detect (`python -m bench.drift`).

Windows are drawn from a split of MNIST, unchanged and changed, and compared with the champion's
reference. Choose limits on `--split validation`, which leaves out the images of the reference. The
test set, whose digits other people wrote, is for the report.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from rich.table import Table

from docs.tools.recorded import show
from monitoring.drift.drift_tests import kolmogorov_smirnov, stability
from pipeline.config import paths
from pipeline.data import as_served, dataset
from pipeline.data.dataset import Split
from serve.models import drift_reference
from serve.models.drift_reference import Reference
from serve.models.predictor import Predictor

COMMAND = "python -m bench.drift"
SIZES = (10, 25, 50, 100, 200, 500, 1_000)
ALARMS_AT, ALARM_WINDOWS = (100, 200, 500, 1_000), 1_000
CHANGED_WINDOWS = 100  # for each change and size
DETECTED = 0.95  # share of the windows in which drift must be found
SYMBOLS = "ABCDEFGHKLMNPRTUVWXYabdefghkmnpqrtwxy"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSerif-Italic")

Change = Callable[[Split, np.random.Generator], np.ndarray]


def noisy(split: Split, chance: np.random.Generator, deviation: float) -> np.ndarray:
    """Add Gaussian noise."""
    noise = chance.normal(0, deviation, split.images.shape)
    return np.clip(split.images + noise, 0, 255).astype(np.uint8)


def pillow(split: Split, chance: np.random.Generator, by: Callable[..., Image.Image]) -> np.ndarray:
    """Change each image by a function of Pillow."""
    return np.stack([np.asarray(by(Image.fromarray(image))) for image in split.images])


def symbols(split: Split, chance: np.random.Generator) -> np.ndarray:
    """Draw letters in matplotlib's own fonts, as large as digits, as many as the split has."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"{name}.ttf", 25) for name in FONTS]
    letters = []
    for _ in range(len(split)):
        image = Image.new("L", (28, 28), 0)
        font, letter = fonts[chance.integers(len(fonts))], SYMBOLS[chance.integers(len(SYMBOLS))]
        ImageDraw.Draw(image).text((14, 14), letter, 255, font, anchor="mm")
        letters.append(np.asarray(image))
    return np.stack(letters)


CHANGES: dict[str, Change] = {
    "inverted": lambda split, chance: 255 - split.images,
    "noise, deviation 20 of 255": partial(noisy, deviation=20),
    "noise, deviation 40 of 255": partial(noisy, deviation=40),
    "blurred by 1 pixel": partial(pillow, by=lambda i: i.filter(ImageFilter.GaussianBlur(1))),
    "rotated by 20°": partial(pillow, by=lambda i: i.rotate(20, Image.Resampling.BICUBIC)),
    "only 1 and 7": lambda split, chance: split.images[np.isin(split.labels, (1, 7))],
    "letters in print": symbols,
}


def predicted(predictor: Predictor, images: np.ndarray) -> Reference:
    """Return probabilities and features of the images."""
    return Reference(predictor.probabilities(images), drift_reference.features(images))


def drawn(sample: Reference, size: int, chance: np.random.Generator) -> Reference:
    """Draw a window, without replacement if the sample is large enough."""
    n = len(sample.probabilities)
    index = chance.choice(n, size, replace=size > n)
    return Reference(sample.probabilities[index], sample.features[index])


def detected(draw: Callable[[], Reference], reference: Reference, draws: int) -> float:
    """Return the share of drawn windows in which drift is found, also in too small ones."""

    def drifts(window: Reference) -> bool:
        tests = stability, kolmogorov_smirnov  # the faster one first
        return any(found.drift for test in tests for found in test(window, reference).values())

    return sum(drifts(draw()) for _ in range(draws)) / draws


def smallest(sample: Reference, reference: Reference) -> str:
    """Return the smallest window from which on drift is detected nearly always."""
    chance, found = np.random.default_rng(0), "not seen"
    for size in reversed(SIZES):
        draw = partial(drawn, sample, size, chance)
        if detected(draw, reference, CHANGED_WINDOWS) < DETECTED:
            break
        found = f"{size:,}"
    return found


def loaded(data: Path, name: str) -> Split:
    """Load a split, without the images of the reference."""
    split = dataset.load(data, name)
    if name == "validation":
        kept = np.setdiff1d(np.arange(len(split)), drift_reference.sample_indices(len(split)))
        split = Split(split.images[kept], split.labels[kept], split.index[kept])
    return split


def main() -> None:
    """Print two tables: false alarms, and the sizes from which drift is detected."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, allow_abbrev=False)
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--record", action="store_true", help="keep the tables for the docs")
    name: str = parser.parse_args().split
    split, predictor = loaded(paths.processed("mnist"), name), Predictor(paths.CHAMPION)
    reference = drift_reference.read((paths.CHAMPION / drift_reference.FILE).read_bytes())
    plain, chance = predicted(predictor, split.images), np.random.default_rng(0)

    alarms = Table("images in the window", "false alarms %")
    for size in ALARMS_AT:
        rate = detected(partial(drawn, plain, size, chance), reference, ALARM_WINDOWS)
        alarms.add_row(f"{size:,}", f"{100 * rate:.1f}")
    seen = Table("what comes in", "as the model sees it", "sent to the service")
    few = chance.permutation(len(split))[:2_000]
    part = Split(split.images[few], split.labels[few], split.index[few])
    for change, changed in CHANGES.items():
        images = changed(part, chance)
        sent, found = as_served.normalised(images)
        samples = (predicted(predictor, each) for each in (images, sent[found]))
        seen.add_row(change, *(smallest(sample, reference) for sample in samples))
    print(f"{name}: {len(split):,} images, {ALARM_WINDOWS:,} windows of each size")
    show(alarms, "drift-alarms", COMMAND, width=100)
    print(f"The smallest window in which drift is found {DETECTED:.0%} of the time")
    show(seen, "drift-seen", COMMAND, width=100)


if __name__ == "__main__":
    main()
