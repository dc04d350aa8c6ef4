"""How well the champion reads digits that were changed: `python -m bench.variants`.

Each MNIST digit is changed to resemble users' pictures, saved as a file, and read by the service's
own code. Use `--split validation` for experiments; the test set is for a report.
"""

import argparse
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from rich.table import Table

from docs.tools.recorded import show
from pipeline.config import paths
from pipeline.data import dataset
from pipeline.data.dataset import Split
from serve.decoding.decode import normalise_file
from serve.imaging.errors import NoDigitError
from serve.models.predictor import Predictor

Picture = np.ndarray | bytes  # an array to save as a PNG, or a file
Change = Callable[[np.ndarray, np.random.Generator], Picture]
FEW = 500  # digits for slow variants


def file(picture: np.ndarray | Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def resized(image: np.ndarray, side: int, by: str = "BICUBIC") -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling[by]))


def placed(image: np.ndarray, height: int, width: int, top: int, left: int) -> np.ndarray:
    picture = np.zeros((height, width), np.uint8)
    picture[top : top + image.shape[0], left : left + image.shape[1]] = image
    return picture


def anywhere(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return placed(image, 300, 400, int(chance.integers(0, 272)), int(chance.integers(0, 372)))


def moved(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Shift the digit within 28x28, as far as there is room."""
    rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
    digit = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, left = (chance.integers(0, 29 - side) for side in digit.shape)
    return placed(digit, 28, 28, top, left)


def coloured(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Draw the digit in colour on noisy paper, 28x28."""
    inks = [(20, 20, 120), (150, 20, 20), (30, 30, 30), (20, 90, 30)]
    ink = np.array(inks[chance.integers(0, 4)])
    cover = image[..., None] / 255
    noise = chance.normal(0, 8, (28, 28, 1)) + chance.normal(0, 3, (28, 28, 3))
    return np.clip((235, 228, 210) * (1 - cover) + ink * cover + noise, 0, 255).astype(np.uint8)


def turned(image: np.ndarray, chance: np.random.Generator) -> bytes:
    """Turn the picture in its pixels, and back again in its EXIF."""
    picture, orientation = Image.fromarray(resized(image, 280)), int(chance.integers(1, 9))
    exif = picture.getexif()
    exif[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)  # the inverse
    picture = ImageOps.exif_transpose(picture)
    exif[0x0112] = orientation
    return file(picture, "JPEG", exif=exif, quality=90)


def on_nothing(image: np.ndarray, ink: int) -> np.ndarray:
    colour = np.full_like(image, ink)
    return np.dstack([colour, colour, colour, image])


def sharp(image: np.ndarray, side: int) -> np.ndarray:
    """Enlarge to ink coverage from 0 to 1, with a pen's sharp edges."""
    return np.clip((resized(image, side) / 255 - 0.25) * 2, 0, 1)


def photo(image: np.ndarray, chance: np.random.Generator, shadow: float = 1.0) -> bytes:
    """Place the digit on paper in uneven light, with a shadow over a part."""
    height, width, side = 900, 1200, int(chance.integers(120, 500))
    ink = np.zeros((height, width))
    top, left = chance.integers(0, height - side), chance.integers(0, width - side)
    ink[top : top + side, left : left + side] = sharp(image, side)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slope = chance.uniform(-0.25, 0.25, 2)
    light = 0.75 + slope[0] * x + slope[1] * y - chance.uniform(0, 0.15) * (x * x + y * y)
    angle = chance.uniform(0, 2 * np.pi)
    distance = x * np.cos(angle) + y * np.sin(angle) - chance.uniform(-0.3, 0.3)
    light *= shadow + (1 - shadow) / (1 + np.exp(-distance * 40))
    grey = light * (230 - 170 * ink) + chance.normal(0, 5, ink.shape)
    return file(np.clip(grey[..., None] * (1, 0.97, 0.9), 0, 255).astype(np.uint8), "JPEG")


def on_squares(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    paper = np.full((600, 600, 3), (250, 248, 240), np.uint8)
    paper[::30] = paper[:, ::30] = (170, 190, 225)
    top, left = chance.integers(100, 200, 2)
    place = paper[top : top + 300, left : left + 300]
    cover = resized(image, 300)[..., None] / 255
    place[:] = place * (1 - cover) + (30, 30, 90) * cover
    return paper


def on_a_table(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    grey = chance.normal(50, 6, (600, 800))
    grey[80:520, 150:650] += 180
    top, left = chance.integers(120, 280), chance.integers(200, 400)
    grey[top : top + 200, left : left + 200] -= 190 * sharp(image, 200)
    return np.clip(grey, 0, 255).astype(np.uint8)


def specked(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    top, left = chance.integers(0, 160, 2)
    picture = 255 - placed(resized(image, 140), 300, 300, top, left)
    for _ in range(12):
        top, left, size = *chance.integers(0, 297, 2), chance.integers(1, 4)
        picture[top : top + size, left : left + size] = chance.integers(0, 120)
    return picture


def tiny(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Draw the digit at a fortieth to a twentieth of a large white picture."""
    side = int(chance.integers(60, 140))
    top, left = (int(chance.integers(0, length - side)) for length in (1500, 2000))
    return 255 - placed(resized(image, side, "BOX"), 1500, 2000, top, left)


def thicker(image: np.ndarray, by: int) -> np.ndarray:
    """Make strokes wider, or thinner, by pixels of a picture of 280."""
    picture = Image.fromarray((resized(image, 280) > 127).astype(np.uint8) * 255)
    grow = ImageFilter.MaxFilter(3) if by > 0 else ImageFilter.MinFilter(3)
    for _ in range(abs(by) // 2):
        picture = picture.filter(grow)
    return np.asarray(picture)


QUICK: dict[str, Change] = {
    "as it is": lambda image, chance: image,
    "inverted": lambda image, chance: 255 - image,
    "moved within 28x28": moved,
    "in a corner of 400x300": lambda image, chance: placed(image, 300, 400, 272, 372),
    "the same, inverted": lambda image, chance: 255 - placed(image, 300, 400, 272, 372),
    "anywhere in 400x300": anywhere,
    "cropped to its box": lambda image, chance: image[np.ix_(image.any(1), image.any(0))],
    "colour on noisy paper": coloured,
    "black ink with alpha": lambda image, chance: on_nothing(image, 0),
    "white ink with alpha": lambda image, chance: on_nothing(image, 255),
    "16 bits": lambda image, chance: image.astype(np.uint16) * 257,
    "low contrast": lambda image, chance: (100 + image * (40 / 255)).astype(np.uint8),
    "turned by EXIF, JPEG": turned,
    "8x8 thumbnail": lambda image, chance: resized(image, 8, "BOX"),
    "14x14 thumbnail": lambda image, chance: resized(image, 14, "BOX"),
    "56x56, inverted": lambda image, chance: 255 - resized(image, 56, "BILINEAR"),
    "JPEG of quality 30": lambda image, chance: file(resized(image, 280), "JPEG", quality=30),
    "specks around": specked,
}
SLOW: dict[str, Change] = {
    "1000x1000, smooth": lambda image, chance: resized(image, 1000),
    "1000x1000, blocks": lambda image, chance: resized(image, 1000, "NEAREST"),
    "tiny in 2000x1500": tiny,
    "photo of paper": photo,
    "with a shadow": lambda image, chance: photo(image, chance, shadow=0.6),
    "squared paper": on_squares,
    "sheet on a dark table": on_a_table,
    "strokes 16 px thicker": lambda image, chance: thicker(image, 16),
    "strokes 32 px thicker": lambda image, chance: thicker(image, 32),
    "strokes 8 px thinner": lambda image, chance: thicker(image, -8),
}


def read_as_served(content: bytes) -> np.ndarray:
    """Return what the service's code makes of a file: (28, 28) uint8."""
    return normalise_file(content, max_pixels=16_000_000)


def read(images: np.ndarray, change: Change) -> tuple[np.ndarray, np.ndarray]:
    """Return the models' input for the changed digits, and where the service found no digit."""
    chance = np.random.default_rng(0)
    seen, missing = np.zeros_like(images), np.zeros(len(images), bool)
    for place, image in enumerate(images):
        picture = change(image, chance)
        try:
            seen[place] = read_as_served(picture if isinstance(picture, bytes) else file(picture))
        except NoDigitError:
            missing[place] = True
    return seen, missing


def chosen(about: str | None) -> Split:
    """Return the split that the command line names; `about` describes the command."""
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--record", action="store_true", help="keep the table for the docs")
    return dataset.load(paths.processed("mnist"), parser.parse_args().split)


def main() -> None:
    """Predict the digits of a split in every variant; print one table."""
    split = chosen(__doc__)
    predictor = Predictor(paths.CHAMPION)
    plain = predictor.probabilities(split.images).argmax(1) == split.labels
    table = Table("variant", "digits", "accuracy %", "less than plain", "no digit")
    for name, change in (QUICK | SLOW).items():
        count = FEW if name in SLOW else len(split)
        images, missing = read(split.images[:count], change)
        right = predictor.probabilities(images).argmax(1) == split.labels[:count]
        share = (right & ~missing).mean()
        loss = plain[:count].mean() - share
        cells = f"{count:,}", f"{100 * share:.2f}", f"{100 * loss:+.2f}", f"{missing.sum()}"
        table.add_row(name, *cells)
    show(table, "variants", "python -m bench.variants", width=100)


if __name__ == "__main__":
    main()
