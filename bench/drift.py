"""What the drift job sees and what it does not: `python -m bench.drift`.

Windows are drawn from a split of MNIST, as it is and changed, and compared with the champion's
reference. Limits are chosen on `--split validation`, without the images of the reference; the
test set, whose writers are others, is for the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from rich.table import Table

from bench.shown import show
from monitoring.drift.drift_tests import kolmogorov_smirnov, stability
from pipeline.config import paths
from pipeline.data import dataset
from pipeline.data.dataset import Split
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise
from serve.models import drift_reference
from serve.models.drift_reference import Reference
from serve.models.predictor import Predictor

COMMAND = "python -m bench.drift"
SIZES = (10, 25, 50, 100, 200, 500, 1_000)
ALARMS_AT = (100, 200, 500, 1_000)
SHARES = (1, 2, 5, 10, 20, 50, 100)  # percent of a window of 1,000
SEEN = 0.95  # of the windows that drift, for it to count as seen
SYMBOLS = "ABCDEFGHKLMNPRTUVWXYabdefghkmnpqrtwxy"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSerif-Italic")

Change = Callable[[Split, np.random.Generator], np.ndarray]


def noisy(split: Split, chance: np.random.Generator, by: float) -> np.ndarray:
    noise = chance.normal(0, by, split.images.shape)
    return np.clip(split.images + noise, 0, 255).astype(np.uint8)


def blurred(split: Split, chance: np.random.Generator) -> np.ndarray:
    by = ImageFilter.GaussianBlur(1)
    return np.stack([np.asarray(Image.fromarray(each).filter(by)) for each in split.images])


def rotated(split: Split, chance: np.random.Generator) -> np.ndarray:
    turned = (Image.fromarray(each).rotate(20, Image.Resampling.BICUBIC) for each in split.images)
    return np.stack([np.asarray(each) for each in turned])


def symbols(split: Split, chance: np.random.Generator) -> np.ndarray:
    """Letters in matplotlib's own fonts, as large as digits are."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"{name}.ttf", 25) for name in FONTS]
    found = np.zeros((len(split), 28, 28), np.uint8)
    for image in found:
        picture = Image.new("L", (28, 28), 0)
        font, letter = fonts[chance.integers(len(fonts))], SYMBOLS[chance.integers(len(SYMBOLS))]
        ImageDraw.Draw(picture).text((14, 14), letter, 255, font, anchor="mm")
        image[:] = np.asarray(picture)
    return found


CHANGES: dict[str, Change] = {
    "inverted": lambda split, chance: 255 - split.images,
    "noise, deviation 20 of 255": lambda split, chance: noisy(split, chance, 20),
    "noise, deviation 40 of 255": lambda split, chance: noisy(split, chance, 40),
    "blurred by 1 pixel": blurred,
    "rotated by 20°": rotated,
    "only 1 and 7": lambda split, chance: split.images[np.isin(split.labels, (1, 7))],
    "letters in print": symbols,
}


def sent(images: np.ndarray) -> np.ndarray:
    """What the model sees of them once the service has normalised them."""
    return np.stack(list(_normalised(images)))


def _normalised(images: np.ndarray) -> Iterator[np.ndarray]:
    for image in images:
        try:
            yield normalise(image)
        except NoDigitError:
            continue


def answered(predictor: Predictor, images: np.ndarray) -> Reference:
    return Reference(predictor.probabilities(images), drift_reference.features(images))


def drawn(sample: Reference, size: int, chance: np.random.Generator) -> Reference:
    """Some of them, none twice if there are enough."""
    n = len(sample.probabilities)
    index = chance.choice(n, size, replace=size > n)
    return Reference(sample.probabilities[index], sample.features[index])


def drifts(window: Reference, expected: Reference) -> bool:
    """As `check`, also of windows that are too small for it."""
    return any(
        found.drift
        for compared in (stability, kolmogorov_smirnov)  # the quicker first
        for found in compared(window, expected).values()
    )


def share_seen(
    sample: Reference, size: int, expected: Reference, draws: int, chance: np.random.Generator
) -> float:
    """The share of windows of that size that are said to drift."""
    return float(np.mean([drifts(drawn(sample, size, chance), expected) for _ in range(draws)]))


def smallest(
    sample: Reference, expected: Reference, draws: int, chance: np.random.Generator
) -> str:
    """The smallest size from which on all windows are seen to drift, or nearly."""
    found = "not seen"
    for size in reversed(SIZES):
        if share_seen(sample, size, expected, draws, chance) < SEEN:
            break
        found = f"{size:,}"
    return found


def least_share(
    plain: Reference,
    sample: Reference,
    expected: Reference,
    draws: int,
    chance: np.random.Generator,
) -> str:
    """The smallest share of changed images for which windows of the largest size are seen."""
    found, size = "not seen", SIZES[-1]
    for percent in reversed(SHARES):
        many = size * percent // 100
        windows = (
            _together(drawn(sample, many, chance), drawn(plain, size - many, chance))
            for _ in range(draws)
        )
        if np.mean([drifts(window, expected) for window in windows]) < SEEN:
            break
        found = f"{percent} %"
    return found


def _together(one: Reference, other: Reference) -> Reference:
    return Reference(*(np.concatenate(parts) for parts in zip(one, other, strict=True)))


def loaded(data: Path, name: str) -> Split:
    """A split, without the images of the reference."""
    split = dataset.load(data, name)
    if name == "validation":
        kept = np.setdiff1d(np.arange(len(split)), drift_reference.sample_indices(len(split)))
        split = Split(split.images[kept], split.labels[kept], split.index[kept])
    return split


def main() -> None:
    """Prints two tables: false alarms, and what is seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=paths.CHAMPION)
    parser.add_argument("--data", type=Path, default=paths.processed("mnist"))
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--draws", type=int, default=1_000, help="windows for false alarms")
    parser.add_argument("--changed", type=int, default=100, help="windows for each change and size")
    parser.add_argument("--record", action="store_true", help="for the docs too")
    chosen = parser.parse_args()
    split, predictor = loaded(chosen.data, chosen.split), Predictor(chosen.bundle)
    expected = drift_reference.read((chosen.bundle / drift_reference.FILE).read_bytes())
    plain, chance = answered(predictor, split.images), np.random.default_rng(0)

    alarms = Table("images in the window", "false alarms %")
    for size in ALARMS_AT:
        rate = share_seen(plain, size, expected, chosen.draws, chance)
        alarms.add_row(f"{size:,}", f"{100 * rate:.1f}")
    seen = Table(
        "what comes in",
        "as the model sees it",
        "share of 1,000",
        "sent to the service",
        "share of 1,000",
    )
    some = chance.permutation(len(split))[:2_000]
    few = Split(split.images[some], split.labels[some], split.index[some])
    for name, change in CHANGES.items():
        images = change(few, chance)
        cells = []
        for each in (images, sent(images)):
            sample = answered(predictor, each)
            cells.append(smallest(sample, expected, chosen.changed, chance))
            cells.append(least_share(plain, sample, expected, chosen.changed, chance))
        seen.add_row(name, *cells)
    print(f"{chosen.split}: {len(split):,} images, {chosen.draws:,} windows of each size")
    show(alarms, "drift-alarms", COMMAND, width=100)
    print(f"The smallest window of which {SEEN:.0%} are seen to drift")
    show(seen, "drift-seen", COMMAND, width=100)


if __name__ == "__main__":
    main()
