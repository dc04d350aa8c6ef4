"""Pictures of what is no digit, drawn from a seed: nothing is downloaded.

All go through the service's normalisation. What then looks like a digit is left out where that can
be known: letters and signs by name, and whatever is as narrow as a 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.dataset import SIDE, Images, Labels, Split
from pipeline.ood import pen_strokes
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise

Grey = NDArray[np.uint8]  # (height, width), before it is normalised
Draw = Callable[[np.random.Generator, Images], Grey]  # from digits, where it is made of them

NOT_A_DIGIT = 10  # as a label
DIGITS = REDRAWN, PRINTED, PENNED = "redrawn digits", "printed digits", "pen-drawn digits"
_MOST = 12_000  # digits of the training split that are used: more are no better
# As shares of those digits.
_SHARES = {
    **{"letters": 0.13, "signs": 0.1, "scribbles": 0.09, "photographs": 0.04},
    **{"noise": 0.03, "scrambled digits": 0.07, "two digits": 0.07},
}
_DIGITS_SHARE = 0.09  # of the redrawn, of the printed, and of the pen-drawn
_FRESH = 300  # of each kind, to judge with

_CANVAS, _TYPE = 72, 48  # pixels of a side, and of a letter
_NARROW = 8  # columns: 1s are narrower

_FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif"),
    *("DejaVuSerif-Italic", "DejaVuSansMono", "cmr10", "cmss10", "cmmi10"),
)
_OTHER_FACES = ("STIXGeneral", "STIXGeneralItalic", "cmtt10", "cmti10")
# Without B b D G g I i J j l O o Q q S s y Z z, and others that are digits to the eye.
_LETTERS = "ACEFHKLMNPRTUVWXYacdefhkmnprtuvwx"
_SIGNS = "αβγεζηκλμνξπτυφχψωΓΔΛΞΠΣΥΨΩ@#$%&?*+=≠≤≥±÷∑∏√∞∈⊕←→"
_SCRIPTS = "ДЖИЙЛФЦШЩЫЮЯжфыюяאגהחטכלמפצקשת"
_PICTOGRAMS = "☺☹♥♦♣♠★☆☀☁☂☎☕♔♕♖♘♛♞✂✈✉✌✍✎✓✗✚✦✿❀❄❤☯☮⚑⚓⚙⚡"


class Drawn(NamedTuple):
    """Images as a model sees them, and what each shows: a digit or NOT_A_DIGIT."""

    images: Images
    labels: Labels


def to_fit(train: Split, seed: int) -> Drawn:
    """Digits as they are and of each other kind, and each kind of non-digit that is fitted to."""
    random = np.random.default_rng((seed, 0))
    chosen = np.sort(random.permutation(len(train))[:_MOST])
    images, labels = train.images[chosen], train.labels[chosen]
    few = round(_DIGITS_SHARE * len(chosen))
    drawn = [Drawn(images, labels), redrawn(images, labels, few, random)]
    drawn += [printed(few, random), pen_drawn(few, random)]
    for kind, share in _SHARES.items():
        found = draw(_FITTED[kind], round(share * len(chosen)), images, random)
        drawn.append(Drawn(found, np.full(len(found), NOT_A_DIGIT, np.uint8)))
    return Drawn(*(np.concatenate(arrays) for arrays in zip(*drawn, strict=True)))


def to_judge(digits: Split, seed: int) -> dict[str, Images]:
    """Fresh images of each kind, and of kinds that none is fitted to; then of the digits' kinds.

    Letters and signs are of other fonts than those fitted to, photographs of another photograph.
    """
    random = np.random.default_rng((seed, 1))
    fresh = {kind: draw(each, _FRESH, digits.images, random) for kind, each in _FRESHLY.items()}
    return fresh | {
        REDRAWN: redrawn(digits.images, digits.labels, _FRESH, random).images,
        PRINTED: printed(_FRESH, random).images,
        PENNED: pen_drawn(_FRESH, random).images,
    }


def draw(each: Draw, count: int, digits: Images, random: np.random.Generator) -> Images:
    """(count, 28, 28), normalised; what is empty or narrow then is drawn again."""
    images = np.empty((count, SIDE, SIDE), np.uint8)
    place = 0
    while place < count:
        try:
            image = normalise(each(random, digits))
        except NoDigitError:
            continue
        columns = np.flatnonzero((image > 60).any(axis=0))
        if len(columns) and columns[-1] - columns[0] >= _NARROW:
            images[place] = image
            place += 1
    return images


def redrawn(images: Images, labels: Labels, count: int, random: np.random.Generator) -> Drawn:
    """Digits in other lines: large, distorted, mostly without greys, as on a screen.

    What shows nothing then is drawn again: users' feedback can hold pictures of anything.
    """
    found: list[Images] = []
    chosen: list[int] = []
    while len(found) < count:
        place = int(random.integers(len(images)))
        with suppress(NoDigitError):
            found.append(normalise(_redrawn(random, images[place])))
            chosen.append(place)
    return Drawn(np.stack(found), labels[chosen])


def printed(count: int, random: np.random.Generator) -> Drawn:
    """Digits of all fonts."""
    labels = random.integers(10, size=count).astype(np.uint8)
    faces = (*_FACES, *_OTHER_FACES)
    return Drawn(
        np.stack([normalise(_glyph(random, str(digit), faces)) for digit in labels]), labels
    )


def pen_drawn(count: int, random: np.random.Generator) -> Drawn:
    """Digits as they are drawn on the service's page."""
    labels = random.integers(10, size=count).astype(np.uint8)
    return Drawn(
        np.stack([normalise(pen_strokes.digit(random, int(digit))) for digit in labels]),
        labels,
    )


def _redrawn(random: np.random.Generator, digit: Grey) -> Grey:
    large = Image.fromarray(digit).resize((4 * SIDE, 4 * SIDE), Image.Resampling.BICUBIC)
    moved = _wavy(random, _turned(random, large, degrees=6, slant=0.1), pixels=1.5)
    if random.random() < 0.8:
        moved = np.where(moved > random.uniform(60, 180), 255, 0).astype(np.uint8)
    return np.asarray(Image.fromarray(moved).reduce(2)) if random.random() < 0.5 else moved


def _characters(characters: str, faces: Sequence[str]) -> Draw:
    def each(random: np.random.Generator, _: Images) -> Grey:
        return _glyph(random, characters[int(random.integers(len(characters)))], faces)

    return each


def _glyph(random: np.random.Generator, character: str, faces: Sequence[str]) -> Grey:
    """A character that a hand or a bad scan could have made."""
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    ImageDraw.Draw(canvas).text(
        (_CANVAS / 2, _CANVAS / 2),
        character,
        255,
        _font(faces[int(random.integers(len(faces)))]),
        anchor="mm",
        stroke_width=int(random.integers(0, 3)),
    )
    return _wavy(random, _turned(random, canvas, degrees=12, slant=0.25), pixels=2.2)


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / f"{face}.ttf", _TYPE)


def _turned(
    random: np.random.Generator, canvas: Image.Image, degrees: float, slant: float
) -> Image.Image:
    """Turned, slanted and stretched about its centre."""
    angle = np.radians(random.uniform(-degrees, degrees))
    width, height = 1 + random.uniform(-0.15, 0.15, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moves = turn @ np.array([[width, random.uniform(-slant, slant)], [0, height]])
    centre = np.array(canvas.size) / 2
    rows = np.column_stack([moves, centre - moves @ centre])
    return canvas.transform(
        canvas.size, Image.Transform.AFFINE, tuple(rows.ravel()), Image.Resampling.BICUBIC
    )


def _wavy(random: np.random.Generator, canvas: Image.Image, pixels: float) -> Grey:
    """Each part of it moved a little, so that no line stays straight."""
    ink = np.asarray(canvas)
    height, width = ink.shape
    across, down = (
        np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        for coarse in random.normal(0, pixels, (2, 4, 4)).astype(np.float32)
    )
    rows, columns = np.mgrid[:height, :width]
    moved: Grey = ink[
        np.clip(np.rint(rows + down), 0, height - 1).astype(int),
        np.clip(np.rint(columns + across), 0, width - 1).astype(int),
    ]
    return moved


def _scribble(random: np.random.Generator, _: Images) -> Grey:
    """A smooth line to and fro, in the pen of the pen-drawn digits."""
    points = random.uniform(8, _CANVAS - 8, (int(random.integers(6, 13)), 2))
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    pen_strokes.draw(canvas, pen_strokes.smooth(points), random.uniform(3, 9))
    return np.asarray(canvas)


def _patches(name: str) -> Draw:
    def each(random: np.random.Generator, _: Images) -> Grey:
        whole = _photograph(name)
        side = int(random.integers(SIDE, 97))
        top, left = (int(random.integers(0, length - side)) for length in whole.shape)
        return whole[top : top + side, left : left + side]

    return each


@cache
def _photograph(name: str) -> Grey:
    from sklearn.datasets import load_sample_image  # takes 1.5 s to import

    return np.asarray(Image.fromarray(load_sample_image(name)).convert("L"))


def _noise(random: np.random.Generator, _: Images) -> Grey:
    """Pixels, specks, blots or tiles."""
    side, form = int(random.integers(20, 41)), random.integers(4)
    if form == 0:
        return random.integers(0, 256, (side, side), np.uint8)
    if form == 1:
        return np.where(random.random((side, side)) < random.uniform(0.02, 0.3), 255, 0).astype(
            np.uint8
        )
    few = int(random.integers(4, 12))
    coarse = Image.fromarray(random.integers(0, 256, (few, few), np.uint8))
    form_of = Image.Resampling.BICUBIC if form == 2 else Image.Resampling.NEAREST
    return np.asarray(coarse.resize((side, side), form_of))


def _scrambled(random: np.random.Generator, digits: Images) -> Grey:
    """A digit whose quarters have changed places, three of them or all."""
    middle = digits[random.integers(len(digits)), 4:24, 4:24]
    quarters = middle.reshape(2, 10, 2, 10).swapaxes(1, 2).reshape(4, 10, 10)
    order = random.permutation(4)
    while (order != range(4)).sum() < 3:
        order = random.permutation(4)
    mixed = quarters[order].reshape(2, 2, 10, 10).swapaxes(1, 2).reshape(20, 20)
    large = Image.fromarray(np.ascontiguousarray(mixed)).resize((60, 60), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(large), 6)


def _two(random: np.random.Generator, digits: Images) -> Grey:
    """Two digits side by side, so close that the service takes them for one."""
    first, second = (
        digit[:, digit.any(axis=0)] for digit in digits[random.integers(len(digits), size=2)]
    )
    edge, gap = np.zeros((SIDE, 4), np.uint8), np.zeros((SIDE, int(random.integers(3))), np.uint8)
    both = Image.fromarray(np.hstack([edge, first, gap, second, edge]))
    return np.asarray(both.resize((2 * both.width, 2 * both.height), Image.Resampling.BICUBIC))


_FITTED: dict[str, Draw] = {
    "letters": _characters(_LETTERS, _FACES),
    "signs": _characters(_SIGNS, ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")),
    "scribbles": _scribble,
    "photographs": _patches("china.jpg"),
    "noise": _noise,
    "scrambled digits": _scrambled,
    "two digits": _two,
}
_FRESHLY: dict[str, Draw] = _FITTED | {
    "letters": _characters(_LETTERS, _OTHER_FACES),
    "signs": _characters(_SIGNS, ("STIXGeneral",)),
    "photographs": _patches("flower.jpg"),
    "other scripts": _characters(_SCRIPTS, ("DejaVuSans", "DejaVuSans-Bold")),
    "pictograms": _characters(_PICTOGRAMS, ("DejaVuSans",)),
}
KINDS = tuple(_FRESHLY)
# By the fit.
UNSEEN = tuple(kind for kind in KINDS if kind not in _FITTED)
