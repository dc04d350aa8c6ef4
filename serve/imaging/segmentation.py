"""Segmentation: find the digit in a grey picture, and return its ink alone.

Background removal, a threshold and connected components give the strokes. The picture is first
looked at small, then nearer and nearer around the digit. So the cost hardly grows with the
picture, and uneven light is removed where the digit is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.imaging.background import (
    MIN_SIDE_OF_PHOTO,
    TOP_HAT_EDGE,
    Field,
    Ink,
    quantile,
    remove_background,
)
from serve.imaging.connected_components import Components, Mask, connected_components
from serve.imaging.errors import NoDigitError
from serve.imaging.page import bare_page, is_tight
from serve.imaging.placement import BOX, FINE, INK_LEVEL, Box, Grey, bounding_box, crop
from serve.imaging.upscale import upscale

# Numbers without a source beside them date from the first version. What a change of one does is
# shown by `python -m bench.variants --split validation`.
PAGE_SIDE = 480  # longest side at which the page is looked for
VIEW_SIDE = 240  # longest side at which a picture is looked at: digits a tenth of it keep 24 pixels
MAX_LOOKS = 5  # each nearer than the last
MARGIN = 2  # pixels added around a small crop
TINY = 12  # longest side below which a digit is upscaled and sharpened first

MIN_CONTRAST = 10.0  # grey levels of 255: fainter marks are no ink
# In standard deviations of the background's noise.
MIN_PEAK_SIGMAS = 6.0  # of the strongest ink
INK_SIGMAS = 3.0  # of all ink

SPECK_SHARE = 0.04  # of the largest component's mass: smaller components are dirt
# Grain, not a dotted digit: the largest component has less than this share of the mass, and more
# than so many components run out of the picture.
MIN_MASS_SHARE, MAX_STRAY_PARTS = 0.2, 2
MAX_FADED = 0.2  # share of its strength that ink may keep three pixels beside it; more is a shadow
MAX_GAP = 0.4  # between the strokes of one digit, as a share of its longest side
BORDER_WEIGHT = 0.2  # of a component that runs out of the picture
MIN_SIDE_SHARE, MIN_SIDE = 1 / 50, 4  # longest side of a digit: share of the view, and pixels
COMPACT_FILL, COMPACT_SHARE = 0.5, 0.3  # of its box, and of the view, that a sheet may fill
SHEET_FILL = 0.85  # a component that fills more of its box is a sheet of paper, not a digit


@dataclass(frozen=True)
class _Found:
    """A digit in a view: its pixels among the ink, its bounding box and its score.

    `score`: the mass of its main component. `cut`: it runs out of the view. `crowded`: so does
    something that is no speck, or the border is of several levels.
    """

    ink: Ink
    mask: Mask
    box: Box
    score: float
    cut: bool
    crowded: bool


def segment_digit(grey: Grey) -> tuple[Grey, Box]:
    """Return the digit of a (height, width) uint8 picture: (h, w) uint8 ink on 0, and its box.

    The ink may be smaller or larger than its box, which is in the picture's pixels.

    Raises:
        NoDigitError: the picture is of one level, or holds nothing but noise and specks.
    """
    first = _look(grey)
    beside = first is None or first.crowded or _is_compact(first)
    if beside and not (first and is_tight(first.mask, first.box)):
        factor = -(-max(grey.shape) // PAGE_SIDE)
        bare = bare_page(_view(grey, factor))
        if bare is not None:
            page = np.rint(bare.clip(0, 255)).astype(np.uint8)
            ink, box = _segment(page, _look(page))
            return ink, _of_picture(box, factor, (0, 0), grey.shape)
    try:
        return _segment(grey, first)
    except NoDigitError:
        if max(grey.shape) >= MIN_SIDE_OF_PHOTO:
            raise
        return _in_wider_margin(grey)


def _in_wider_margin(grey: Grey) -> tuple[Grey, Box]:
    """Segment a small crop whose border is mostly ink; its corners are taken for paper."""
    corners = np.sort(grey[[0, 0, -1, -1], [0, -1, 0, -1]])
    wider = np.pad(grey, MARGIN, constant_values=corners[1 if corners[2] - corners[0] < 9 else 2])
    ink, box = _segment(wider, _look(wider))
    height, width = grey.shape
    top, left, bottom, right = (side - MARGIN for side in box)
    return ink, (max(0, top), max(0, left), min(height, bottom), min(width, right))


def _look(part: Grey) -> _Found | None:
    """Return the digit in a picture that is looked at as a whole."""
    return _find_digit(_view(part, -(-max(part.shape) // VIEW_SIDE)))


def _segment(grey: Grey, found: _Found | None) -> tuple[Grey, Box]:
    """Look nearer and nearer around what was found at first."""
    part, origin = grey, (0, 0)
    if found is None:
        raise NoDigitError("no digit found")
    for _ in range(MAX_LOOKS):
        factor = -(-max(part.shape) // VIEW_SIDE)
        sheet = _is_sheet(found)
        top, left, bottom, right = _around(part, found.box, factor, -0.05 if sheet else 0.5)
        nearer = part[top:bottom, left:right]
        if not sheet and (factor == 1 or max(nearer.shape) > 0.7 * max(part.shape)):
            break
        part, origin = nearer, (origin[0] + top, origin[1] + left)
        found = _look(part)
        if found is None:
            raise NoDigitError("no digit found")
    if _is_blurred(found):
        raise NoDigitError("no digit found")
    ink, box = _stretch(found)
    if max(ink.shape) < TINY:
        ink = crop(upscale(ink, FINE), INK_LEVEL)
    return ink, _of_picture(box, factor, origin, grey.shape)


def _view(part: Grey, factor: int) -> Field:
    if factor > 1:
        part = np.asarray(Image.fromarray(part).reduce(factor))
    return part.astype(np.float32)


def _is_sheet(found: _Found) -> bool:
    top, left, bottom, right = found.box
    height, width = bottom - top, right - left
    full = int(np.count_nonzero(found.mask)) > SHEET_FILL * height * width
    return full and min(height, width) > max(0.4 * max(height, width), 3 * MIN_SIDE)


def _is_compact(found: _Found) -> bool:
    """Whether it may be a sheet that lies askew: large, and fuller than a digit."""
    top, left, bottom, right = found.box
    least = max(COMPACT_SHARE * found.mask.size, COMPACT_FILL * (bottom - top) * (right - left))
    return int(np.count_nonzero(found.mask)) > least


def _is_blurred(found: _Found) -> bool:
    """Whether the ink fades slowly into the background: a fold or a shadow, not a stroke."""
    part = _beside(found, 4)
    mask, above = found.mask[part], found.ink.above[part]
    near = _dilate(_dilate(mask))
    around = _dilate(_dilate(near)) & ~near
    if not around.any():
        return False
    return quantile(above[around], 0.5) > MAX_FADED * quantile(above[mask], 0.5)


def _beside(found: _Found, margin: int) -> tuple[slice, slice]:
    """Return the part of the view that holds the digit and so many pixels beside it."""
    top, left, bottom, right = found.box
    return slice(max(0, top - margin), bottom + margin), slice(
        max(0, left - margin), right + margin
    )


def _around(part: Grey, box: Box, factor: int, margin: float) -> Box:
    """Return the part's pixels in a box of the view, with a margin.

    `margin`: a share of the box's longest side.
    """
    top, left, bottom, right = (factor * side for side in box)
    by = round(max(bottom - top, right - left) * margin)
    height, width = part.shape
    return max(0, top - by), max(0, left - by), min(height, bottom + by), min(width, right + by)


def _of_picture(box: Box, factor: int, origin: tuple[int, int], shape: tuple[int, ...]) -> Box:
    """Return the picture's pixels in a box of the view, whose first pixel is at `origin`."""
    top, left, bottom, right = (
        min(length, start + factor * side)
        for side, start, length in zip(box, origin * 2, shape * 2, strict=True)
    )
    return top, left, bottom, right


def _find_digit(view: Field) -> _Found | None:
    inks = remove_background(view)
    strongest = max(float(ink.above.max()) for ink in inks)
    both = [found for ink in inks if (found := _find(ink, strongest))]
    if not both:
        return None
    return both[0] if len(both) == 1 else _choose(*both)


def _choose(one: _Found, other: _Found) -> _Found:
    """Return the outer one if it encloses the other, which is its hole; else the heavier."""
    for outer, inner in ((one, other), (other, one)):
        around = [outer.box[side] <= inner.box[side] for side in (0, 1)]
        around += [outer.box[side] >= inner.box[side] for side in (2, 3)]
        if all(around) and not outer.cut:
            return outer
    return max(one, other, key=lambda found: found.score)


def _find(ink: Ink, strongest: float) -> _Found | None:
    """Return the digit in one polarity of ink; `strongest`: the peak of both polarities."""
    above, peak = ink.above, float(ink.above.max())
    if peak < max(MIN_CONTRAST, MIN_PEAK_SIGMAS * ink.noise, strongest / 2):
        return None
    parts = connected_components(
        above > min(max(INK_SIGMAS * ink.noise, ink.edge * peak), peak / 2), above
    )
    cut = _at_border(parts.boxes, above.shape)
    score = parts.mass * np.where(cut, BORDER_WEIGHT, 1)
    main = int(score.argmax())
    if _longest(parts.boxes[main]) < max(MIN_SIDE, MIN_SIDE_SHARE * max(above.shape)):
        return None
    whole = ~cut | cut[main]
    if (
        parts.mass[main] < MIN_MASS_SHARE * parts.mass[whole].sum()
        and np.count_nonzero(cut) > MAX_STRAY_PARTS
    ):
        return None
    members = _group(parts, main, whole)
    top, left, bottom, right = _union(parts.boxes[members]).tolist()
    chosen = np.zeros(len(parts.mass) + 1, bool)
    chosen[members + 1] = True
    mask = chosen[parts.labels]
    box = (top, left, bottom, right)
    crowded = ink.edge == TOP_HAT_EDGE or bool(
        (cut & (parts.mass >= SPECK_SHARE * parts.mass[main])).any()
    )
    return _Found(ink, mask, box, float(score[main]), bool(cut[main]), crowded)


def _at_border(boxes: NDArray[np.int64], shape: tuple[int, ...]) -> Mask:
    at_border: Mask = (boxes[:, :2] == 0).any(1) | (boxes[:, 2:] == shape).any(1)
    return at_border


def _union(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _longest(box: NDArray[np.int64]) -> int:
    return int((box[2:] - box[:2]).max())


def _group(parts: Components, main: int, whole: Mask) -> NDArray[np.intp]:
    """Return the main component and the larger ones near it: broken strokes of one digit."""
    candidates = np.flatnonzero(whole & (parts.mass >= SPECK_SHARE * parts.mass[main]))
    box, members = parts.boxes[main], np.array([main])
    reach = MAX_GAP * _longest(box)
    while True:
        boxes = parts.boxes[candidates]
        gaps = np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:]).max(1)
        near: NDArray[np.intp] = candidates[gaps <= reach]
        if len(near) == len(members):
            return near
        members = near
        box = _union(parts.boxes[near])


def _stretch(found: _Found) -> tuple[Grey, Box]:
    """Return the ink of the digit alone, its contrast stretched to 255, and its box in the view."""
    part = _beside(found, 2)
    above, mask, noise = found.ink.above[part], found.mask[part], found.ink.noise
    strengths = above[mask]
    low = 2 * noise
    high = strengths.max() if noise < 0.5 else quantile(strengths, 0.9)
    ink = np.clip((above - low) * (255 / (high - low)), 0, 255) * _dilate(_dilate(mask))
    ink = np.rint(ink).astype(np.uint8)
    box = bounding_box(ink)
    if _longest(np.array(box)) > BOX:
        box = bounding_box(ink, INK_LEVEL)
    top, left, bottom, right = box
    down, across = part[0].start, part[1].start
    of_view = (top + down, left + across, bottom + down, right + across)
    return ink[top:bottom, left:right], of_view


def _dilate(mask: Mask) -> Mask:
    """Return the mask wider by one pixel on each side, corners too."""
    tall = mask.copy()
    tall[1:] |= mask[:-1]
    tall[:-1] |= mask[1:]
    wide = tall.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide
