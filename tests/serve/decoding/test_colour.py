"""Pictures decoded in colour, for models of three channels."""

import numpy as np
import pytest
from PIL import Image
from support.large_pictures import saved

from serve.decoding.decode import FORMATS, decode

MAX = 16_000_000
RED, GREEN, BLUE, PAPER = (200, 30, 40), (20, 150, 60), (30, 60, 190), (250, 240, 220)


def blocks(height=30, width=20):
    """Blocks of colours, of which every turn is another."""
    picture = np.full((height, width, 3), PAPER, np.uint8)
    picture[:10, :10], picture[:10, 10:], picture[-8:, :6] = RED, GREEN, BLUE
    return picture


COLOURS = blocks()


def colours(content, max_pixels=MAX):
    return decode(content, max_pixels=max_pixels, channels=3).pixels


@pytest.mark.parametrize("file_format", FORMATS)
def test_any_format(file_format):
    options = {"lossless": True} if file_format == "WebP" else {"quality": 95}
    found = colours(saved(COLOURS, file_format.upper(), **options)).astype(int)
    assert found.shape == COLOURS.shape
    assert np.abs(found - COLOURS).mean() < 12


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_any_mode_of_colours(mode):
    image = Image.fromarray(COLOURS)
    image = image.quantize() if mode == "P" else image.convert(mode)
    found = colours(saved(image, "TIFF" if mode == "CMYK" else "PNG")).astype(int)
    assert found.shape == COLOURS.shape
    assert np.abs(found - COLOURS).max() < 30


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16", "I", "F"])
def test_grey_has_three_equal_channels(mode):
    grey = np.zeros((30, 20), np.uint8)
    grey[5:20, 6:12] = 255
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else None
    image = image or Image.fromarray(grey).convert(mode)
    found = colours(saved(image, "TIFF" if mode in ("I", "F") else "PNG"))
    np.testing.assert_array_equal(found, np.stack([grey] * 3, axis=2))


TURNS = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"]
TURNS += ["TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(("orientation", "turn"), list(enumerate(TURNS, 2)))
def test_turned_by_exif(orientation, turn, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(COLOURS).transpose(Image.Transpose[turn])
    found = colours(saved(image, file_format, exif=exif))
    assert found.shape == COLOURS.shape
    assert np.abs(found.astype(int) - COLOURS).mean() < 12


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), RED])
def test_ink_on_nothing_is_seen_in_its_colour(ink):
    pixels = np.zeros((30, 20, 4), np.uint8)
    pixels[5:20, 6:12] = (*ink, 255)
    found = colours(saved(pixels)).astype(int)
    assert tuple(found[10, 8]) == ink
    assert np.abs(found[10, 8] - found[0, 0]).max() > 100


def test_of_an_animation_the_first_frame_that_is_not_blank():
    blank = Image.new("RGB", (20, 30), RED)
    frames = [Image.fromarray(COLOURS), Image.new("RGB", (20, 30), BLUE)]
    content = saved(blank, "WEBP", save_all=True, append_images=frames, lossless=True)
    np.testing.assert_array_equal(colours(content), COLOURS)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_large_pictures_are_reduced_as_in_grey(file_format):
    large = Image.fromarray(COLOURS).resize((2400, 3600), Image.Resampling.NEAREST)
    content = saved(large, file_format)
    found = colours(content)
    assert found.shape == (*decode(content, max_pixels=MAX).pixels.shape, 3)
    small = np.asarray(Image.fromarray(found).resize((20, 30), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - COLOURS).max() < 12


def test_a_large_png_in_strips_keeps_its_colours():
    large = Image.fromarray(COLOURS).resize((4000, 6000), Image.Resampling.NEAREST)
    found = colours(saved(large, "PNG"), max_pixels=64_000_000)
    small = np.asarray(Image.fromarray(found).resize((20, 30), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - COLOURS).max() < 12
