"""From a picture of a digit to the 28x28 image that the models know.

The one normalisation of every path, made as MNIST was: ink bright on black, its box scaled to 20
pixels keeping the aspect ratio, its centre of mass at the centre (LeCun et al., "Gradient-Based
Learning Applied to Document Recognition", 1998, section III.A).
"""

from __future__ import annotations

from serve.imaging.placement import SIDE, Grey, is_placed, placed
from serve.imaging.segmentation import digit_ink
from serve.imaging.stroke_width import usual_stroke


def normalise_grey(grey: Grey) -> Grey:
    """(28, 28) uint8 of a (height, width) picture, dark on light or light on dark.

    What is normalised already comes back bit for bit, or inverted.

    Raises:
        NoDigitError: the picture is empty.
    """
    if grey.shape == (SIDE, SIDE):
        bright = grey if grey[0, 0] < 128 else 255 - grey
        if is_placed(bright):
            return bright
    return placed(usual_stroke(digit_ink(grey)))
