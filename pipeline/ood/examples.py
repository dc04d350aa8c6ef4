"""Out-of-distribution (OOD) examples: pictures of no digit, drawn from a seed, none downloaded.

All pass the service's normalisation. Letters and signs that look like digits are left out by name,
and so is whatever is as narrow as a 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np

from pipeline.config.terminal import Bar
from pipeline.data import pen_strokes
from pipeline.data.dataset import SIDE, Images, Labels, Split
from pipeline.data.pen_strokes import Grey
from pipeline.ood import drawings
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise

Draw = Callable[[np.random.Generator, Images], Grey]  # the images are digits to draw from

NOT_A_DIGIT = 10  # as a label
DIGITS = REDRAWN, PRINTED, PENNED = "redrawn digits", "printed digits", "pen-drawn digits"
_MAX_DIGITS = 12_000  # of the training split: with more the score is no better
# Examples for training of each kind, as a share of those digits.
_SHARES = {
    **{"letters": 0.13, "signs": 0.1, "scribbles": 0.09, "photographs": 0.04},
    **{"noise": 0.03, "scrambled digits": 0.07, "two digits": 0.07},
}
_DIGITS_SHARE = 0.09  # of each of the DIGITS
_REPORTED_SHARE = 0.1  # at most, of what users reported: anyone can, also to mislead
_EVALUATED = 300  # examples of each kind for evaluation

# A picture's first and last bright column are so far apart, or it would pass for a 1: 56 % of
# MNIST's 1s are narrower, and 1 % of its other digits.
_MIN_WIDTH, _BRIGHT = 8, 60

# Files of matplotlib's. Letters and signs are evaluated in other fonts than they are trained in.
_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif"),
    *("DejaVuSerif-Italic", "DejaVuSansMono", "cmr10", "cmss10", "cmmi10"),
)
_OTHER_FONTS = ("STIXGeneral", "STIXGeneralItalic", "cmtt10", "cmti10")
# Without B b D G g I i J j l O o Q q S s Y Z z, and others that look like digits.
_LETTERS = "ACEFHKLMNPRTUVWXYacdefhkmnprtuvwx"
_SIGNS = "αβγεζηκλμνξπτυφχψωΓΔΛΞΠΣΥΨΩ@#$%&?*+=≠≤≥±÷∑∏√∞∈⊕←→"
_SCRIPTS = "ДЖИЙЛФЦШЩЫЮЯжфыюяאגהחטכלמפצקשת"
_PICTOGRAMS = "☺☹♥♦♣♠★☆☀☁☂☎☕♔♕♖♘♛♞✂✈✉✌✍✎✓✗✚✦✿❀❄❤☯☮⚑⚓⚙⚡"


class Examples(NamedTuple):
    """Images as a model sees them, and their labels: a digit or NOT_A_DIGIT."""

    images: Images
    labels: Labels


def for_training(train: Split, reported: Images, seed: int) -> Examples:
    """Return digits of the split, digits drawn otherwise, and OOD examples of each trained kind.

    `reported`: (n, 28, 28) uint8, further OOD examples, which users reported.
    """
    random = np.random.default_rng((seed, 0))
    chosen = np.sort(random.permutation(len(train))[:_MAX_DIGITS])
    images, labels = train.images[chosen], train.labels[chosen]
    few = round(_DIGITS_SHARE * len(chosen))
    parts = [Examples(images, labels)]
    with Bar("pictures to train on", len(DIGITS) + len(_SHARES)) as bar:
        for make in (partial(redrawn, images, labels), printed, pen_drawn):
            parts.append(make(few, random))
            bar.step()
        for kind, share in _SHARES.items():
            found = draw(_TRAINED[kind], round(share * len(chosen)), images, random)
            parts.append(_none(found))
            bar.step()
    most = round(_REPORTED_SHARE * len(chosen))
    parts.append(_none(random.permutation(reported)[:most]))
    return Examples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _none(images: Images) -> Examples:
    return Examples(images, np.full(len(images), NOT_A_DIGIT, np.uint8))


def for_evaluation(digits: Split, seed: int) -> dict[str, Images]:
    """Return fresh images by kind: OOD examples, some of kinds not trained on, then DIGITS."""
    random = np.random.default_rng((seed, 1))
    images = {}
    with Bar("pictures to evaluate on", len(_FRESH)) as bar:
        for kind, each in _FRESH.items():
            images[kind] = draw(each, _EVALUATED, digits.images, random)
            bar.step()
    return images | {
        REDRAWN: redrawn(digits.images, digits.labels, _EVALUATED, random).images,
        PRINTED: printed(_EVALUATED, random).images,
        PENNED: pen_drawn(_EVALUATED, random).images,
    }


def draw(each: Draw, count: int, digits: Images, random: np.random.Generator) -> Images:
    """Return (count, 28, 28) normalised pictures; empty and narrow ones are drawn again."""
    images: list[Images] = []
    while len(images) < count:
        with suppress(NoDigitError):
            image = normalise(each(random, digits)).image
            columns = np.flatnonzero((image > _BRIGHT).any(axis=0))
            if len(columns) and columns[-1] - columns[0] >= _MIN_WIDTH:
                images.append(image)
    return np.array(images, np.uint8).reshape(count, SIDE, SIDE)


def redrawn(images: Images, labels: Labels, count: int, random: np.random.Generator) -> Examples:
    """Return digits of the data set in other lines; what comes out empty is drawn again.

    Users' feedback can hold pictures of anything.
    """
    found: list[Images] = []
    chosen: list[int] = []
    while len(found) < count:
        index = int(random.integers(len(images)))
        with suppress(NoDigitError):
            found.append(normalise(drawings.redrawn(random, images[index])).image)
            chosen.append(index)
    return Examples(np.stack(found), labels[chosen])


def printed(count: int, random: np.random.Generator) -> Examples:
    """Return digits in all fonts."""
    fonts = (*_FONTS, *_OTHER_FONTS)
    return _drawn_digits(count, random, lambda digit: drawings.glyph(random, str(digit), fonts))


def pen_drawn(count: int, random: np.random.Generator) -> Examples:
    """Return digits as they are drawn on the service's page."""
    return _drawn_digits(count, random, lambda digit: pen_strokes.digit(random, digit))


def _drawn_digits(
    count: int, random: np.random.Generator, picture: Callable[[int], Grey]
) -> Examples:
    labels = random.integers(10, size=count).astype(np.uint8)
    return Examples(np.stack([normalise(picture(int(digit))).image for digit in labels]), labels)


def _characters(characters: str, fonts: Sequence[str]) -> Draw:
    def each(random: np.random.Generator, _: Images) -> Grey:
        return drawings.glyph(random, characters[int(random.integers(len(characters)))], fonts)

    return each


_TRAINED: dict[str, Draw] = {
    "letters": _characters(_LETTERS, _FONTS),
    "signs": _characters(_SIGNS, ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")),
    "scribbles": lambda random, _: drawings.scribble(random),
    "photographs": lambda random, _: drawings.patch(random, "china.jpg"),
    "noise": lambda random, _: drawings.noise(random),
    "scrambled digits": drawings.scrambled,
    "two digits": drawings.two_digits,
}
_FRESH: dict[str, Draw] = _TRAINED | {
    "letters": _characters(_LETTERS, _OTHER_FONTS),
    "signs": _characters(_SIGNS, ("STIXGeneral",)),
    "photographs": lambda random, _: drawings.patch(random, "flower.jpg"),
    "other scripts": _characters(_SCRIPTS, ("DejaVuSans", "DejaVuSans-Bold")),
    "pictograms": _characters(_PICTOGRAMS, ("DejaVuSans",)),
}
KINDS = tuple(_FRESH)
UNSEEN = tuple(kind for kind in KINDS if kind not in _TRAINED)  # not trained on
