import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.dataset import Split, Splits
from pipeline.reports import sample_sheet

DIGITS = range(10)


@pytest.fixture(scope="module")
def part():
    """Twenty images of each digit, all unlike each other."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 20)
    images = random.integers(0, 256, (200, 28, 28), np.uint8)
    return Split(images, labels, np.arange(200, dtype=np.int32))


def sheet(train, validation, test, seed=1):
    content = sample_sheet.sample_sheet(Splits(train, validation, test), "mnist", seed)
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("above", [-1, 9], ids=["all digits", "no images"])
def test_the_sheet_is_a_png_of_one_size_whatever_a_split_lacks(part, above):
    with sheet(part, part.where(part.labels.astype(int) > above), part) as image:
        assert image.format == "PNG"
        assert image.size == (sample_sheet.WIDTH, sample_sheet.HEIGHT)
        assert "Software" not in image.info


def test_the_seed_chooses_the_samples(part):
    def tiles(seed):
        with sheet(part, part, part, seed) as image:
            return image.crop((72, 120, sample_sheet.WIDTH, sample_sheet.HEIGHT)).tobytes()

    assert tiles(1) == tiles(1)
    assert tiles(1) != tiles(2)


def test_each_digit_has_a_row(part):
    """Images of digit d are grey 20 d + 30, so each row of tiles is of one grey."""
    images = np.broadcast_to((20 * part.labels + 30)[:, None, None], (200, 28, 28))
    grey = Split(images, part.labels, part.index)
    with sheet(grey, grey, grey) as image:
        greys = np.asarray(image.convert("L"))
    for digit in DIGITS:
        row = greys[120 + 60 * digit + 28]  # through the middle of its tiles
        assert (row == 20 * digit + 30).sum() == 20 * 56
        assert (row == 20 * ((digit + 1) % 10) + 30).sum() < 56
