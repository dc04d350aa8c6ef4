"""OOD examples for any data set: pictures that are of none of its classes, for evaluation alone."""

import numpy as np

from pipeline.data.dataset import Images, with_channels
from serve.imaging.errors import NoDigitError
from serve.imaging.preparation import Preparation

PHOTOGRAPH = "china.jpg"  # of scikit-learn
_EXAMPLES = 300  # of each kind
_NOISE_CELLS = 7  # of coarse noise, along a side


def for_evaluation(images: Images, prepared: Preparation, seed: int) -> dict[str, Images]:
    """Return images by kind, prepared as the data set's are; `images` are some of it."""
    random = np.random.default_rng((seed, 1))
    photograph = _photograph(prepared)
    shape = prepared.shape if prepared.channels == 3 else prepared.shape[:2]
    some = images[np.arange(_EXAMPLES) % len(images)]
    return {
        "noise": random.integers(0, 256, (_EXAMPLES, *shape), np.uint8),
        "coarse noise": np.stack([_coarse(random, prepared) for _ in range(_EXAMPLES)]),
        "photographs": np.stack([_part(photograph, prepared, random) for _ in range(_EXAMPLES)]),
        "scrambled images": np.stack([_scrambled(image, random) for image in some]),
    }


def _photograph(prepared: Preparation) -> Images:
    from sklearn.datasets import load_sample_image  # takes 1.5 s to import

    colours: Images = load_sample_image(PHOTOGRAPH)
    grey = (colours @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    return colours if prepared.channels == 3 else grey


def _part(photograph: Images, prepared: Preparation, random: np.random.Generator) -> Images:
    side = int(random.integers(40, min(photograph.shape[:2])))
    top, left = (int(random.integers(0, length - side + 1)) for length in photograph.shape[:2])
    return _prepared(photograph[top : top + side, left : left + side], prepared)


def _coarse(random: np.random.Generator, prepared: Preparation) -> Images:
    cells = random.integers(0, 256, (_NOISE_CELLS, _NOISE_CELLS, prepared.channels), np.uint8)
    return _prepared(cells if prepared.channels == 3 else cells[..., 0], prepared)


def _prepared(picture: Images, prepared: Preparation) -> Images:
    """Return the model's image of a picture; black if nothing is found in it."""
    try:
        image: Images = prepared(picture).image
    except NoDigitError:
        return np.zeros(prepared.shape[:2], np.uint8)
    return image


def _scrambled(image: Images, random: np.random.Generator) -> Images:
    """Return the 16 parts of the image in another order; what does not divide by 4 stays."""
    whole = with_channels(image[None])[0]
    height, width = (side // 4 for side in whole.shape[:2])
    parts = whole[: 4 * height, : 4 * width].reshape(4, height, 4, width, -1).swapaxes(1, 2)
    mixed = random.permutation(parts.reshape(16, height, width, -1)).reshape(parts.shape)
    scrambled = whole.copy()
    scrambled[: 4 * height, : 4 * width] = mixed.swapaxes(1, 2).reshape(4 * height, 4 * width, -1)
    found: Images = scrambled.reshape(image.shape)
    return found
