import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.dataset import Split, Splits
from pipeline.reports.sample_sheet import MARGIN, sample_sheet, tiles

TILE = 28 + MARGIN


@pytest.fixture(scope="module")
def part():
    """Twenty images of each digit d, all of the grey 20 d + 30."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), 20)
    images = np.broadcast_to((20 * labels + 30)[:, None, None], (200, 28, 28))
    return Split(images, labels, np.arange(200, dtype=np.int32))


@pytest.mark.parametrize("above", [-1, 9], ids=["all digits", "no images"])
def test_the_sheet_is_a_png_of_one_size_whatever_a_split_lacks(part, above, configured):
    data = configured(1).data
    few = part.where(part.labels.astype(int) > above)
    content = sample_sheet(Splits(part, few, part), data, 1)
    assert content == sample_sheet(Splits(part, few, part), data, 1)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", (1200, 650))
        assert "Software" not in image.info


def test_each_digit_has_a_row_and_the_seed_chooses_its_images(part):
    sheet = tiles(part, 10, 5, np.random.default_rng(1))
    for digit in range(10):
        assert set(sheet[digit * TILE]) == {20 * digit + 30, 255}
    numbers = np.broadcast_to(part.index.astype(np.uint8)[:, None, None], (200, 28, 28))
    numbered = Split(numbers, part.labels, part.index)
    first, second = (tiles(numbered, 10, 5, np.random.default_rng(seed)) for seed in (1, 2))
    assert (first != second).any()


def test_classes_have_their_names_and_colours_stay(configured):
    data = configured(
        1,
        "data.classes=[a,b]",
        "data.input.channels=3",
        "data.input.height=16",
        "data.preparation=fit",
    ).data
    images = np.zeros((4, 16, 28, 3), np.uint8)
    images[..., 0] = 200
    split = Split(images, np.array([0, 0, 1, 1], np.uint8), np.arange(4, dtype=np.int32))
    sheet = tiles(split, 2, 5, np.random.default_rng(1))
    assert sheet.shape == (36, 150, 3)
    assert sheet[0, 0].tolist() == [200, 0, 0]
    with Image.open(io.BytesIO(sample_sheet(Splits(split, split, split), data, 1))) as image:
        assert image.size == (1200, 210)


def test_large_images_are_shown_with_fewer_pixels():
    images = np.full((2, 200, 100), 7, np.uint8)
    split = Split(images, np.array([0, 1], np.uint8), np.arange(2, dtype=np.int32))
    sheet = tiles(split, 2, 3, np.random.default_rng(1))
    assert sheet.shape == (2 * (50 + MARGIN), 3 * (25 + MARGIN))
    assert (sheet == 7).sum() == 2 * 50 * 25
