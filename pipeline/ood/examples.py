"""Out-of-distribution (OOD) examples: pictures of no digit, drawn from a seed, none downloaded.

All pass the service's normalisation. Letters and signs that look like digits are left out by name,
and so is whatever is as narrow as a 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from pipeline.config.terminal import Bar
from pipeline.data.dataset import SIDE, Images, Labels, Split
from pipeline.data.pen_strokes import Grey
from pipeline.ood import drawings
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise
from serve.imaging.placement import crop, place_digit
from serve.imaging.stroke_width import normalise_stroke_width

NOT_A_DIGIT = 10  # as a label
DIGITS = REDRAWN, PRINTED, PENNED, BITMAPS, PENNED_BITMAPS = (
    *("redrawn digits", "printed digits", "pen-drawn digits"),
    *("digits as bitmaps", "pen-drawn digits as bitmaps"),
)
_MAX_DIGITS = 20_000  # of the training split
# Examples for training of each kind, as a share of those digits.
_SHARES = {
    **{"letters": 0.05, "signs": 0.05, "pen-drawn letters": 0.18, "pen-drawn signs": 0.27},
    **{"strokes": 0.08, "scribbles": 0.04, "photographs": 0.02, "noise": 0.02},
    **{"scrambled digits": 0.035, "two digits": 0.035, "turned digits": 0.06},
}
_DIGITS_SHARES = {REDRAWN: 0.06, PRINTED: 0.04, PENNED: 0.16, BITMAPS: 0.08, PENNED_BITMAPS: 0.26}
# Of each digit that the pen draws. People write 1 and 7 in the most ways, and MNIST has the fewest.
_PEN_SHARES = (0.06, 0.26, 0.06, 0.06, 0.12, 0.06, 0.06, 0.2, 0.06, 0.06)
_PENNED_KINDS = ("pen-drawn letters", "pen-drawn signs", "strokes", "scribbles")
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


Draw = Callable[[np.random.Generator, Examples], Grey]  # the examples are digits to draw from


def for_training(train: Split, reported: Images, seed: int) -> Examples:
    """Return digits of the split, digits drawn otherwise, and OOD examples of each trained kind.

    `reported`: (n, 28, 28) uint8, further OOD examples, which users reported.
    """
    random = np.random.default_rng((seed, 0))
    chosen = np.sort(random.permutation(len(train))[:_MAX_DIGITS])
    images, labels = train.images[chosen], train.labels[chosen]
    digits = Examples(images, labels)
    parts = [digits]
    with Bar("pictures to train on", len(DIGITS) + len(_SHARES)) as bar:
        for kind, share in _DIGITS_SHARES.items():
            parts.append(_digits(kind, digits, round(share * len(chosen)), random))
            bar.step()
        for kind, share in _SHARES.items():
            count = round(share * len(chosen))
            found = draw(_TRAINED[kind], count, digits, random, penned=kind in _PENNED_KINDS)
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
    images, some = {}, Examples(digits.images, digits.labels)
    with Bar("pictures to evaluate on", len(_FRESH)) as bar:
        for kind, each in _FRESH.items():
            images[kind] = draw(each, _EVALUATED, some, random)
            bar.step()
    return images | {kind: _digits(kind, some, _EVALUATED, random).images for kind in DIGITS}


def draw(
    each: Draw, count: int, digits: Examples, random: np.random.Generator, *, penned: bool = False
) -> Images:
    """Return (count, 28, 28) normalised pictures; empty and narrow ones are drawn again."""
    images: list[Images] = []
    while len(images) < count:
        with suppress(NoDigitError):
            picture = each(random, digits)
            image = placed(picture) if penned else normalise(picture).image
            columns = np.flatnonzero((image > _BRIGHT).any(axis=0))
            if len(columns) and columns[-1] - columns[0] >= _MIN_WIDTH:
                images.append(image)
    return np.array(images, np.uint8).reshape(count, SIDE, SIDE)


def placed(picture: Grey) -> Grey:
    """Return (28, 28) of what a pen drew on black, as the service normalises it.

    The whole picture is ink, so the search for it is left out: that takes two thirds of the time.
    """
    return place_digit(normalise_stroke_width(crop(picture)))


def _digits(kind: str, digits: Examples, count: int, random: np.random.Generator) -> Examples:
    """Return digits of one of the kinds DIGITS."""
    if kind == PRINTED:
        return printed(count, random)
    if kind in (PENNED, PENNED_BITMAPS):
        return pen_drawn(count, random, bitmaps=kind == PENNED_BITMAPS)
    return redrawn(digits, count, random, drawings.bitmap if kind == BITMAPS else drawings.redrawn)


def redrawn(
    digits: Examples,
    count: int,
    random: np.random.Generator,
    change: Callable[[np.random.Generator, Grey], Grey],
) -> Examples:
    """Return digits of the data set in other lines; what comes out empty is drawn again.

    Users' feedback can hold pictures of anything.
    """
    found: list[Images] = []
    chosen: list[int] = []
    while len(found) < count:
        index = int(random.integers(len(digits.images)))
        with suppress(NoDigitError):
            found.append(normalise(change(random, digits.images[index])).image)
            chosen.append(index)
    return Examples(np.stack(found), digits.labels[chosen])


def printed(count: int, random: np.random.Generator) -> Examples:
    """Return digits in all fonts."""
    fonts = (*_FONTS, *_OTHER_FONTS)
    labels = random.integers(10, size=count).astype(np.uint8)
    pictures = (drawings.glyph(random, str(digit), fonts) for digit in labels)
    return Examples(np.stack([normalise(picture).image for picture in pictures]), labels)


def pen_drawn(count: int, random: np.random.Generator, *, bitmaps: bool = False) -> Examples:
    """Return digits as they are drawn on the service's page, or as small bitmaps of those."""
    labels = random.choice(10, count, p=_PEN_SHARES).astype(np.uint8)
    images: list[Images] = []
    while len(images) < count:
        thin = bitmaps and random.random() < 0.6
        picture = drawings.pen_digit(random, int(labels[len(images)]), thin=thin)
        with suppress(NoDigitError):
            images.append(placed(drawings.bitmap(random, picture) if bitmaps else picture))
    return Examples(np.stack(images), labels)


def _characters(characters: str, fonts: Sequence[str]) -> Draw:
    def each(random: np.random.Generator, _: Examples) -> Grey:
        return drawings.glyph(random, characters[int(random.integers(len(characters)))], fonts)

    return each


_NAMES = tuple(drawings.pen_letters())
_LATIN = tuple(name for name in _NAMES if len(name) == 1 and name.isascii())
_OTHERS = tuple(name for name in _NAMES if name not in _LATIN)
_TRAINED: dict[str, Draw] = {
    "letters": _characters(_LETTERS, _FONTS),
    "signs": _characters(_SIGNS, ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")),
    "pen-drawn letters": lambda random, _: drawings.letter(random, _LATIN),
    "pen-drawn signs": lambda random, _: drawings.letter(random, _OTHERS),
    "strokes": lambda random, _: drawings.strokes(random),
    "scribbles": lambda random, _: drawings.scribble(random),
    "photographs": lambda random, _: drawings.patch(random, "china.jpg"),
    "noise": lambda random, _: drawings.noise(random),
    "scrambled digits": lambda random, digits: drawings.scrambled(random, digits.images),
    "two digits": lambda random, digits: drawings.two_digits(random, digits.images),
    "turned digits": lambda random, digits: drawings.turned(random, *digits),
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
