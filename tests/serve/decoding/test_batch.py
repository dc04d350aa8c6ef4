"""The files of a batch are read as each alone would be."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from support.hostile_inputs import png, png_chunk

from serve.decoding import batch, digit_png
from serve.decoding.batch import read_batch, within_limit
from serve.decoding.decode import read_file
from serve.decoding.digit_png import decode_digits
from serve.imaging.errors import ImageError, TooManyPixelsError
from serve.imaging.placement import centre_digit
from serve.imaging.preparation import Preparation

MAX = 16_000_000
NOISE = np.random.default_rng(5).integers(0, 256, (28, 28), np.uint8)


def saved(image, file_format="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, file_format)
    return file.getvalue()


def digits(count):
    """Normalised images, as MNIST has them, of random strokes."""
    random = np.random.default_rng(1)
    found = []
    while len(found) < count:
        strokes = np.zeros((40, 40), np.uint8)
        for top, left in random.integers(2, 30, (6, 2)):
            strokes[top : top + 8, left : left + 3] = random.integers(100, 256)
        found.append(centre_digit(strokes))
    return found


def alone(content):
    try:
        reading = read_file(content, max_pixels=MAX)
    except ImageError as error:
        return type(error), str(error)
    return reading.normalised.image.tolist(), reading.box


def together(contents):
    return [
        (type(each), str(each)) if isinstance(each, Exception) else (each[0].tolist(), each[1])
        for each in read_batch(contents, max_pixels=MAX, preparation=DIGITS)
    ]


DIGIT = saved(digits(1)[0])
DIGITS = Preparation("digit", 28, 28, 1)
FILTERED = b"".join(bytes([row % 5]) + NOISE[row].tobytes() for row in range(28))
FAULTY = {
    "of another filter": png(28, 28, data=b"\5" + FILTERED[1:]),
    "cut": DIGIT[:-30],
    "of too few rows": png(28, 28, data=FILTERED[:-29]),
    "of too many rows": png(28, 28, data=FILTERED + FILTERED[:29]),
    "with a wrong checksum": DIGIT[:60] + bytes([DIGIT[60] ^ 1]) + DIGIT[61:],
    "with an ancillary chunk": png(28, 28, data=FILTERED, extra=png_chunk(b"tRNS", b"\0\0")),
    "with more behind its end": DIGIT + b"more",
    "of 16 bits": png(28, 28, depth=16, data=(b"\0" + bytes(56)) * 28),
    "interlaced": DIGIT[:28] + b"\1" + DIGIT[29:],
    "of data behind its data": DIGIT[:33]
    + png_chunk(b"IDAT", zlib.compress(FILTERED) + b"more")
    + png_chunk(b"IEND", b""),
    "empty": b"",
    "no picture": b"picture",
    "a header alone": DIGIT[:33],
}


@pytest.mark.parametrize("kind", FAULTY)
def test_what_is_odd_gets_the_answer_that_it_gets_alone(kind):
    contents = [DIGIT, FAULTY[kind], DIGIT]
    assert together(contents) == [alone(content) for content in contents]


def test_small_pngs_are_decoded_to_the_same_pixels():
    pictures = [*digits(70), NOISE, 255 - NOISE, np.zeros((28, 28), np.uint8)]
    contents = [saved(picture) for picture in pictures]
    contents[3:3] = [ValueError(), saved(NOISE, "BMP"), saved(NOISE[:27])]
    pictures[3:3] = [None] * 3
    places, images = decode_digits(contents)
    assert places == [place for place, picture in enumerate(pictures) if picture is not None]
    np.testing.assert_array_equal(images, np.stack([pictures[place] for place in places]))


def test_every_filter_is_undone_as_pillow_does():
    content = png(28, 28, data=FILTERED)
    _, images = decode_digits([content, DIGIT, content])
    expected = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(images[[0, 2]], [expected, expected])


def test_normalised_images_are_never_opened_alone(monkeypatch):
    contents = [saved(each) for image in digits(9) for each in (image, 255 - image)]
    expected = [alone(content) for content in contents]
    monkeypatch.setattr(batch, "read_file", None)
    assert together(contents) == expected


def test_all_other_pictures_and_errors_come_in_their_places():
    shifted = np.roll(digits(1)[0], 4, axis=1)
    large = np.full((90, 120, 3), 240, np.uint8)
    large[20:70, 50:60] = 10
    pictures = [shifted, large, NOISE, np.full((28, 28), 9, np.uint8), digits(2)[1]]
    contents = [saved(picture) for picture in pictures]
    wrong = ValueError("not base64")
    found = together([*contents, wrong])
    assert found == [*map(alone, contents), (ValueError, "not base64")]


def test_the_limit_on_pixels_holds_for_small_pngs(monkeypatch):
    monkeypatch.setattr(digit_png, "decode_digits", None)
    (found,) = read_batch([DIGIT], max_pixels=28 * 28 - 1, preparation=DIGITS)
    assert isinstance(found, TooManyPixelsError)


def test_a_batch_has_the_pixels_of_one_picture():
    capped, pixels = within_limit([DIGIT, DIGIT, b"none", DIGIT, DIGIT], 3 * 28 * 28)
    assert pixels == 3 * 28 * 28
    assert isinstance(capped.pop(), TooManyPixelsError)
    assert capped == [DIGIT, DIGIT, b"none", DIGIT]
