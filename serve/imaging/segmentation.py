"""Where the digit is in a grey picture, and its ink: bright on black, cropped, without the rest.

The picture is looked at small, then again nearer and nearer around what was found, so that the
cost hardly grows with the picture and the light is evened out where the digit is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.imaging.background import Field, Ink, quantile, remove_background
from serve.imaging.connected_components import Components, Mask, connected_components
from serve.imaging.errors import NoDigitError
from serve.imaging.placement import BOX, Grey, crop
from serve.imaging.upscale import upscale

_TINY = 12  # longest side below which a digit must be made sharp
_FINE = 80  # to this
_DARK = 25  # grey levels above which ink belongs to the box of a digit

Box = tuple[int, int, int, int]  # top, left, bottom, right, the last two outside

_VIEW = 240  # longest side at which a picture is looked at
_LOOKS = 5

_FAINTEST = 10.0  # grey levels of 255: what differs less from its ground is no ink
# In standard deviations of the noise on the ground.
_VISIBLE = 6.0  # the strongest ink
_INK = 3.0  # all ink

_SPECK = 0.04  # share of the largest part's mass below which a part is dirt
# Grain, and no dotted digit: the largest part has less than this share of the mass of all, and more
# than so many run out of the picture.
_SHARE, _STRAY = 0.2, 2
_FADED = 0.2  # share of its strength that ink has at most, three pixels beside it
_NEAR = 0.4  # gap between parts of a digit, as a share of its longest side
_AT_BORDER = 0.2  # how much less a part counts that runs out of the picture
_SMALLEST = 1 / 50  # of the view: longest side of a digit
_LEGIBLE = 4  # the same in pixels
_SHEET = 0.85  # share of its box that a digit as wide as high never fills


@dataclass(frozen=True)
class _Found:
    """The digit in a view: its pixels among the ink, its box, how much it counts.

    `cut`: it runs out of the view.
    """

    ink: Ink
    mask: Mask
    box: Box
    score: float
    cut: bool


def segment_digit(grey: Grey) -> Grey:
    """(h, w) uint8, the ink of the digit in a (height, width) picture: bright on 0, cropped.

    Raises:
        NoDigitError: the picture is of one level, or holds nothing but noise and specks.
    """
    part = grey
    for _ in range(_LOOKS):
        factor = -(-max(part.shape) // _VIEW)
        found = _digit(_view(part, factor))
        sheet = _is_sheet(found)
        nearer = _around(part, found.box, factor, -0.05 if sheet else 0.5)
        if not sheet and (factor == 1 or max(nearer.shape) > 0.7 * max(part.shape)):
            break
        part = nearer
    if _is_vague(found):
        raise NoDigitError("no digit found")
    ink = _stretched(found)
    return crop(upscale(ink, _FINE), _DARK) if max(ink.shape) < _TINY else ink


def _view(part: Grey, factor: int) -> Field:
    if factor > 1:
        part = np.asarray(Image.fromarray(part).reduce(factor))
    return part.astype(np.float32)


def _is_sheet(found: _Found) -> bool:
    top, left, bottom, right = found.box
    height, width = bottom - top, right - left
    full = int(np.count_nonzero(found.mask)) > _SHEET * height * width
    return full and min(height, width) > max(0.4 * max(height, width), 3 * _LEGIBLE)


def _is_vague(found: _Found) -> bool:
    """Whether the ink fades slowly into the ground: a fold, a shadow, not a stroke."""
    near = _wider(_wider(found.mask))
    around = _wider(_wider(near)) & ~near
    above = found.ink.above
    if not around.any():
        return False
    return quantile(above[around], 0.5) > _FADED * quantile(above[found.mask], 0.5)


def _around(part: Grey, box: Box, factor: int, margin: float) -> Grey:
    """What a box of the view shows, with a margin that is a share of its longest side."""
    top, left, bottom, right = (factor * side for side in box)
    by = round(max(bottom - top, right - left) * margin)
    return part[max(0, top - by) : bottom + by, max(0, left - by) : right + by]


def _digit(view: Field) -> _Found:
    inks = remove_background(view)
    strongest = max(float(ink.above.max()) for ink in inks)
    both = [found for ink in inks if (found := _found(ink, strongest))]
    if not both:
        raise NoDigitError("no digit found")
    return both[0] if len(both) == 1 else _likelier(*both)


def _likelier(one: _Found, other: _Found) -> _Found:
    """The one around the other, which is then its hole; else the heavier."""
    for outer, inner in ((one, other), (other, one)):
        around = [outer.box[side] <= inner.box[side] for side in (0, 1)]
        around += [outer.box[side] >= inner.box[side] for side in (2, 3)]
        if all(around) and not outer.cut:
            return outer
    return max(one, other, key=lambda found: found.score)


def _found(ink: Ink, strongest: float) -> _Found | None:
    """The digit, if it is brighter than the ground; `strongest`: of what is brighter or darker."""
    above, peak = ink.above, float(ink.above.max())
    if peak < max(_FAINTEST, _VISIBLE * ink.noise, strongest / 2):
        return None
    parts = connected_components(
        above > min(max(_INK * ink.noise, ink.edge * peak), peak / 2), above
    )
    cut = _at_border(parts.boxes, above.shape)
    score = parts.mass * np.where(cut, _AT_BORDER, 1)
    main = int(score.argmax())
    if _longest(parts.boxes[main]) < max(_LEGIBLE, _SMALLEST * max(above.shape)):
        return None
    whole = ~cut | cut[main]
    if parts.mass[main] < _SHARE * parts.mass[whole].sum() and np.count_nonzero(cut) > _STRAY:
        return None
    members = _group(parts, main, whole)
    top, left, bottom, right = _around_all(parts.boxes[members]).tolist()
    mask = np.isin(parts.labels, members + 1)
    box = (top, left, bottom, right)
    return _Found(ink, mask, box, float(score[main]), bool(cut[main]))


def _at_border(boxes: NDArray[np.int64], shape: tuple[int, ...]) -> Mask:
    at_border: Mask = (boxes[:, :2] == 0).any(1) | (boxes[:, 2:] == shape).any(1)
    return at_border


def _around_all(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _longest(box: NDArray[np.int64]) -> int:
    return int((box[2:] - box[:2]).max())


def _group(parts: Components, main: int, whole: Mask) -> NDArray[np.intp]:
    """The main part, and the whole ones near it that are no specks: strokes break."""
    candidates = np.flatnonzero(whole & (parts.mass >= _SPECK * parts.mass[main]))
    box, members = parts.boxes[main], np.array([main])
    reach = _NEAR * _longest(box)
    while True:
        boxes = parts.boxes[candidates]
        gaps = np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:]).max(1)
        near: NDArray[np.intp] = candidates[gaps <= reach]
        if len(near) == len(members):
            return near
        members = near
        box = _around_all(parts.boxes[near])


def _stretched(found: _Found) -> Grey:
    """The ink of the digit alone, cropped and stretched to 255."""
    above, noise = found.ink.above, found.ink.noise
    strengths = above[found.mask]
    low = 2 * noise
    high = strengths.max() if noise < 0.5 else quantile(strengths, 0.9)
    ink = np.clip((above - low) * (255 / (high - low)), 0, 255) * _wider(_wider(found.mask))
    ink = np.rint(ink).astype(np.uint8)
    whole = crop(ink)
    return whole if max(whole.shape) <= BOX else crop(ink, _DARK)


def _wider(mask: Mask) -> Mask:
    """By one pixel on each side, corners too."""
    tall = mask.copy()
    tall[1:] |= mask[:-1]
    tall[:-1] |= mask[1:]
    wide = tall.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide
