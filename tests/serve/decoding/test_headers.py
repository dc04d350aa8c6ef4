"""The size in a header, beside the size that Pillow finds."""

import io

import numpy as np
import pytest
from PIL import Image
from support.bundles import picture

from serve.decoding.headers import declared_pixels

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]


def saved(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (28, 30), (301, 7), (500, 499)])
def test_each_format(file_format, size):
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    assert declared_pixels(saved(image, file_format)) == size[0] * size[1]


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (40, 30), "red")]}),
        ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (40, 30), "red")]}),
        ("JPEG", {"progressive": True, "comment": b"\xff\xc0" * 9}),
        ("TIFF", {"big_tiff": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_each_kind_of_a_format(file_format, options):
    assert declared_pixels(saved(Image.new("RGB", (40, 30)), file_format, **options)) == 1200


def test_a_tiff_of_the_other_order():
    content = saved(Image.new("I;16B", (40, 30)), "TIFF")
    assert content.startswith(b"MM")
    assert declared_pixels(content) == 1200


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_cut_off_declares_nothing(file_format):
    whole = picture(64, file_format)
    for part in range(20):
        assert declared_pixels(whole[:part]) in (0, 64 * 64)
    assert declared_pixels(b"no image") == 0
