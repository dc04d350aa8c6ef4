"""Pictures of digits, normalised as the service normalises what it receives."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import SIDE, Images
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise


def normalised(images: Sequence[Images] | Images) -> tuple[Images, NDArray[np.bool_]]:
    """Normalise each image as the service does; also return in which a digit was found, (n,).

    The others become black.
    """
    prepared, found = np.zeros((len(images), SIDE, SIDE), np.uint8), np.ones(len(images), bool)
    for place, image in enumerate(images):
        try:
            prepared[place] = normalise(image).image
        except NoDigitError:
            found[place] = False
    return prepared, found
