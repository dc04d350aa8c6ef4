"""Where in the picture, as it is seen, the digit is."""

import numpy as np
import pytest
from PIL import Image
from support.large_pictures import saved

from serve.decoding.decode import read_file

TURNS = {1: None, 3: "ROTATE_180", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
WIDTH, HEIGHT = 3301, 1999  # a JPEG is drafted at half, a PNG reduced by 4


def stroke(left, top, width, height):
    pixels = np.full((HEIGHT, WIDTH), 230, np.uint8)
    pixels[top : top + height, left : left + width] = 20
    return Image.fromarray(pixels)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_the_box_is_in_the_pixels_of_the_picture_as_it_is_seen(orientation, file_format):
    box = (2600, 300, 130, 900)
    image, turn = stroke(*box), TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(
        image.transpose(Image.Transpose[turn]) if turn else image, file_format, exif=exif
    )
    assert read_file(content, max_pixels=16_000_000).box == pytest.approx(box, abs=12)


def test_a_box_ends_with_the_picture():
    """1999 = 499 * 4 + 3: the last row of the reduced picture stands for fewer."""
    box = (WIDTH - 130, HEIGHT - 900, 130, 900)
    left, top, width, height = read_file(saved(stroke(*box)), max_pixels=16_000_000).box
    assert (left, top) == pytest.approx(box[:2], abs=12)
    assert (left + width, top + height) == (WIDTH, HEIGHT)
