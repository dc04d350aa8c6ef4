"""The page a digit is written on: without rules, and without what lies beside the page.

Bands along the edges, a table around a sheet, a neighbour that the edge cuts, and printed lines are
painted over as if they were bare paper. Numbers without a source beside them are of the first
version; `python -m bench.scenes --split validation` shows what a change of one does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serve.imaging.background import Field, dilate, fine_noise, light
from serve.imaging.connected_components import Components, Mask, connected_components

MIN_SIDE = 40  # of a page, in pixels; less is a crop of a digit
STEP, STEP_SIGMAS = 7.0, 5.0  # grey levels, or the noise's, between neighbours: an edge
MIN_PAGE = 0.15  # of the picture
SHEET_FILL, SHEET_SHARE = 0.65, 0.3  # of its box, by a sheet that lies askew; of the picture
OTHER_LEVEL = 15.0  # grey levels by which a sheet differs from its table
NEAR_EDGE = 3  # pixels
MIN_COVER = 0.85  # of an edge of the picture, by a band or a table

# A tight crop: most space beside the digit, as a share of the longest side; more ink is a sheet;
# ends of strokes along one side, and along all, counted twice: ruled paper has more.
TIGHT_MARGIN, TIGHT_FILL, MAX_ENDS_OF_A_SIDE, MAX_ENDS = 1 / 16, 0.6, 3, 11

RULE = 5.0  # grey levels by which a rule differs from the rows beside it
MAX_RULE = 1 / 40  # thickness, as a share of the picture's side
END = 0.3  # of a row: a rule is seen in it at one end, and in most of the row


def bare_page(view: Field) -> Field | None:
    """Return the (height, width) view with bare paper in place of rules and the page's outside.

    None: there is nothing to paint over, or no page that could be told from it.
    """
    if min(view.shape) < MIN_SIDE:
        return None
    unruled = _without_rules(_without_rules(view).T).T
    cleared = _without_outside(unruled)
    if cleared is None and not np.array_equal(unruled, view):
        return unruled
    return cleared


def is_tight(ink: Mask, box: tuple[int, int, int, int]) -> bool:
    """Whether the (height, width) ink is a digit that its picture is cropped to.

    It is near all sides, but no band, no sheet and no rules. `box`: as in `placement`.
    """
    if min(ink.shape) <= NEAR_EDGE:
        return False
    sides = [line for at in (0, NEAR_EDGE, -1, -1 - NEAR_EDGE) for line in (ink[at], ink[:, at])]
    ends = [int(side[0]) + np.count_nonzero(side[1:] > side[:-1]) for side in sides]
    if max(ends) > MAX_ENDS_OF_A_SIDE or sum(ends) > MAX_ENDS:
        return False
    if max(map(np.mean, sides)) >= MIN_COVER or ink.mean() >= TIGHT_FILL:
        return False
    away = max(box[:2]), max(np.subtract(ink.shape, box[2:]))
    return bool(max(away) <= max(NEAR_EDGE, TIGHT_MARGIN * max(ink.shape)))


def _without_rules(view: Field) -> Field:
    """Close the rows of rules, dark or bright, from above and below; strokes across them stay."""
    for sign in (1, -1):
        signed = sign * view
        width = signed.shape[1]
        thickest = max(3, round(MAX_RULE * max(view.shape)))
        part = round(END * width)
        whole, left, right = (
            _narrow(np.median(signed[:, columns], axis=1), thickest + 1)
            for columns in (slice(None), slice(0, part), slice(width - part, width))
        )
        rows = np.flatnonzero(whole & (left | right))
        groups = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        groups = [group for group in groups if _inside(group, len(signed))]
        if not groups:
            continue
        rows, longest = np.concatenate(groups), max(map(len, groups))
        closed = _closed(signed, longest + 3)
        near = np.unique(np.clip(rows[:, None] + [-1, 0, 1], 0, len(signed) - 1))
        signed = signed.copy()
        signed[near] = closed[near]
        view = sign * signed
    return view


def _inside(rows: NDArray[np.intp], height: int) -> bool:
    """Whether there are rows, and they are no band along an edge."""
    return bool(len(rows)) and rows[0] >= NEAR_EDGE and rows[-1] < height - NEAR_EDGE


def _narrow(profile: NDArray[np.float32], window: int) -> Mask:
    """Return which values of a line are darker than those on both sides of them."""
    dark: Mask = _closed(profile[:, None], window)[:, 0] - profile > RULE
    return dark


def _closed(rows: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Return the grey closing down the columns; the edges are continued."""
    half = window // 2
    bright = _extreme(np.pad(rows, ((2 * half, 2 * half), (0, 0)), mode="edge"), half, np.maximum)
    return _extreme(bright, half, np.minimum)


def _extreme(rows: NDArray[np.float32], half: int, of: np.ufunc) -> NDArray[np.float32]:
    reach, window = 1, 2 * half + 1
    while reach < window:  # twice as far each time
        step = min(reach, window - reach)
        rows = of(rows[:-step], rows[step:])
        reach += step
    return rows


def _without_outside(view: Field) -> Field | None:
    noise = fine_noise(view)
    edge = max(STEP, STEP_SIGMAS * noise)
    smooth = np.ones(view.shape, bool)
    across, down = np.abs(np.diff(view, axis=1)) > edge, np.abs(np.diff(view, axis=0)) > edge
    smooth[:, 1:] &= ~across
    smooth[:, :-1] &= ~across
    smooth[1:] &= ~down
    smooth[:-1] &= ~down
    parts = connected_components(smooth, np.ones(view.shape, np.float32))
    page = _page(parts, view)
    if page is None:
        return None
    surface = light(view, page).clip(view[page].min(), view[page].max())
    page |= smooth & (np.abs(view - surface) <= max(STEP, STEP_SIGMAS * noise))
    rest = connected_components(~page, np.ones(view.shape, np.float32))
    outside = np.isin(rest.labels, _along_edges(rest.labels))
    if not outside.any():
        return None
    near = dilate(outside.astype(np.float32), 5) > 0
    cleared: Field = np.where(near, surface, view).astype(np.float32)
    return cleared


def _along_edges(labels: NDArray[np.int32]) -> list[int]:
    """Return the components that cover nearly all of one of the picture's edges."""
    found = []
    edges = [
        line
        for place in (0, NEAR_EDGE, -1, -1 - NEAR_EDGE)
        for line in (labels[place], labels[:, place])
    ]
    for edge in edges:
        counts = np.bincount(edge)
        counts[0] = 0
        if counts.max() >= MIN_COVER * len(edge):
            found.append(int(counts.argmax()))
    return found


def _page(parts: Components, view: Field) -> Mask | None:
    """Return the largest smooth part, or the sheet that lies on it."""
    order = np.argsort(parts.mass)[::-1][:4]
    large = [place for place in order if parts.mass[place] > MIN_PAGE * view.size]
    if not large:
        return None
    page: Mask = parts.labels == large[0] + 1
    level = np.median(view[page])
    for place in large[1:]:
        top, left, bottom, right = parts.boxes[place]
        inside = top > 0 and left > 0 and bottom < view.shape[0] and right < view.shape[1]
        least = max(SHEET_SHARE * view.size, SHEET_FILL * (bottom - top) * (right - left))
        sheet: Mask = parts.labels == place + 1
        contrast = abs(float(np.median(view[sheet]) - level))
        if inside and parts.mass[place] > least and contrast > OTHER_LEVEL:
            return sheet
    return page
