"""Distortions of training images that no affine map makes: of strokes, of paper and of cameras.

Each applies to a fixed share of a batch. Batches are shuffled, so those are random images.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.config.schema import Augmentation
from pipeline.data.dataset import SIDE

_GRID = 6  # points of the elastic map, in each direction: a bend is as wide as a stroke's
_LEVELS = 255.0
# The largest disturbances, of 255 levels or of pixels. They reach MNIST-C's severities, and a net
# that has seen them reads them (docs/MEASUREMENTS.md).
_GROUND, _NOISE, _IMPULSES = 110.0, 50.0, 0.12
_FAINTEST = 0.35  # share of the contrast
_BAR, _CUT = 2.0, 8
_OUTLINE = 1.5  # times the steps of grey at the edges, which are blurred
_RARE = 2 / 3  # of -1 .. 1: what is above it is a sixth


def distorted(images: tf.Tensor, limits: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Return (b, 28, 28, 1) uint8 images, distorted up to the limits; `seed` is (2,) int."""
    if not any((limits.elastic, limits.stroke_width, limits.blurred, limits.disturbed)):
        return images
    count = tf.shape(images)[0]
    seeds = tf.random.experimental.stateless_split(seed, 4)
    x = tf.cast(images, tf.float32)
    if limits.elastic:
        x = _on(x, 0, count // 2, lambda part: _elastic(part, limits.elastic, seeds[0]))
    if limits.stroke_width:
        change = limits.stroke_width
        x = _on(x, count // 4, count // 2, lambda part: _rewidened(part, change, seeds[1]))
    if limits.blurred:
        number = _share(count, limits.blurred)
        x = _on(x, count - number, number, lambda part: _blurred(part, seeds[2]))
    if limits.disturbed:
        number = _share(count, limits.disturbed)
        x = _on(x, count // 8, number, lambda part: _disturbed(part, seeds[3]))
    return tf.cast(tf.round(tf.clip_by_value(x, 0.0, _LEVELS)), tf.uint8)


def _share(count: tf.Tensor, share: float) -> tf.Tensor:
    return tf.cast(tf.cast(count, tf.float32) * share, tf.int32)


def _on(
    x: tf.Tensor, start: tf.Tensor, number: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Change `number` images from `start` on, and on from the first after the last."""
    rolled = tf.roll(x, -start, axis=0)
    changed = tf.concat([change(rolled[:number]), rolled[number:]], axis=0)
    return tf.roll(changed, start, axis=0)


def _uniform(
    part: tf.Tensor, numbers: int, seed: tf.Tensor, lowest: float = 0.0
) -> list[tf.Tensor]:
    """Return `numbers` tensors (b, 1, 1, 1), uniform from `lowest` to 1."""
    shape = [numbers, tf.shape(part)[0], 1, 1, 1]
    values = tf.random.stateless_uniform(shape, seed, minval=lowest)
    return [values[place] for place in range(numbers)]


def _elastic(part: tf.Tensor, pixels: float, seed: tf.Tensor) -> tf.Tensor:
    """Move the pixels by a smooth random field (Simard et al., ICDAR 2003), bilinear."""
    count = tf.shape(part)[0]
    coarse = tf.random.stateless_uniform([count, _GRID, _GRID, 2], seed, -pixels, pixels)
    field = tf.image.resize(coarse, [SIDE, SIDE], "bicubic")
    axis = tf.range(SIDE, dtype=tf.float32)
    place = tf.stack(tf.meshgrid(axis, axis, indexing="ij"), axis=-1) + field
    place = tf.clip_by_value(place, 0.0, SIDE - 1.001)
    low = tf.floor(place)
    share = place - low
    corner = tf.cast(low, tf.int32)
    index = tf.reshape(corner[..., 0] * SIDE + corner[..., 1], [count, -1])
    flat = tf.reshape(part, [count, SIDE * SIDE])

    def at(offset: int) -> tf.Tensor:
        values = tf.gather(flat, index + offset, batch_dims=1)
        return tf.reshape(values, [count, SIDE, SIDE, 1])

    down, right = share[..., :1], share[..., 1:]
    top = at(0) * (1 - right) + at(1) * right
    bottom = at(SIDE) * (1 - right) + at(SIDE + 1) * right
    return top * (1 - down) + bottom * down


def _neighbourhood(part: tf.Tensor, join: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Return the join of each 3x3 pixels; outside is black. Pools take five times as long."""
    x = tf.pad(part, [[0, 0], [1, 1], [1, 1], [0, 0]])
    x = join(join(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return join(join(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])


def _rewidened(part: tf.Tensor, change: float, seed: tf.Tensor) -> tf.Tensor:
    """Widen or thin the strokes: blend with the largest or the smallest of 3x3 pixels."""
    (share,) = _uniform(part, 1, seed, lowest=-1.0)
    wide, thin = _neighbourhood(part, tf.maximum), _neighbourhood(part, tf.minimum)
    return part + change * tf.where(share > 0, share * (wide - part), -share * (thin - part))


def _blurred(part: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    (share,) = _uniform(part, 1, seed)
    blurred = _neighbourhood(part, tf.add) / 9
    return part + share * (blurred - part)


def _disturbed(part: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Hollow a sixth of the strokes; add each of the other disturbances to half of the images.

    These are a bar, a cut-out, a ground with faint ink, noise, dots, and for a sixth a negative
    band.
    """
    seeds = tf.random.experimental.stateless_split(seed, 4)
    on = _uniform(part, 7, seeds[0], lowest=-1.0)
    bar, cut, faint, noise, impulses = (tf.nn.relu(each) for each in on[:5])  # 0 for half of them
    outlines = _OUTLINE * (_neighbourhood(part, tf.maximum) - part)
    part = tf.where(on[5] > _RARE, outlines, part)
    angle, place, width, level, y, x, ground = _uniform(part, 7, seeds[1])
    axis = tf.range(SIDE, dtype=tf.float32) - (SIDE - 1) / 2
    rows, columns = tf.reshape(axis, [1, SIDE, 1, 1]), tf.reshape(axis, [1, 1, SIDE, 1])
    turn = angle * math.pi
    off = tf.abs(rows * tf.cos(turn) + columns * tf.sin(turn) - (place - 0.5) * SIDE)
    drawn = tf.clip_by_value(width * _BAR + 0.5 - off, 0.0, 1.0) * _LEVELS * (0.4 + 0.6 * level)
    part = tf.where(bar > 0, tf.maximum(part, drawn), part)
    centre_y, centre_x = (y - 0.5) * SIDE, (x - 0.5) * SIDE
    inside = tf.maximum(tf.abs(rows - centre_y), tf.abs(columns - centre_x)) < cut * _CUT / 2
    part = tf.where(inside, 0.0, part)
    part = tf.where((on[6] > _RARE) & (off < SIDE * (0.15 + 0.2 * width)), _LEVELS - part, part)
    contrast = 1 - faint * (1 - _FAINTEST)
    part = part * contrast + ground * tf.cast(faint > 0, tf.float32) * _GROUND
    shape = tf.shape(part)
    part += noise * _NOISE * tf.random.stateless_normal(shape, seeds[2])
    hit = tf.random.stateless_uniform(shape, seeds[3])
    rare = impulses * _IMPULSES / 2
    part = tf.where(hit < rare, 0.0, part)
    return tf.where(hit > 1 - rare, _LEVELS, part)
