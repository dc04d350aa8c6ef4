"""Distortions of training images that no affine map makes: of strokes, of paper and of cameras.

Each applies to a fixed share of a batch. Batches are shuffled, so those are random images.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.config.data_schema import Changes
from pipeline.config.schema import Augmentation

_GRID = 6  # points of the elastic map, in each direction: a bend is as wide as a stroke's
_LEVELS = 255.0
# The largest disturbances, of 255 levels or of pixels. They reach MNIST-C's severities, and a net
# that has seen them reads them (docs/MEASUREMENTS.md).
_GROUND, _NOISE, _IMPULSES = 110.0, 50.0, 0.12
_FAINTEST = 0.35  # share of the contrast
_BAR, _CUT = 2.0, 8
_OUTLINE = 1.5  # times the steps of grey at the edges, which are blurred
_RARE = 2 / 3  # of -1 .. 1: what is above it is a sixth


def distorted(
    images: tf.Tensor, limits: Augmentation, seed: tf.Tensor, *, black: bool = True
) -> tf.Tensor:
    """Return (b, h, w, channels) uint8 images, distorted up to the limits; `seed` is (2,) int.

    `black`: what is outside of the images; else it is as their edges.
    """
    if not any((limits.elastic, limits.stroke_width, limits.blurred, limits.disturbed)):
        return images
    count, outside = tf.shape(images)[0], "CONSTANT" if black else "SYMMETRIC"
    seeds = tf.random.experimental.stateless_split(seed, 4)
    x = tf.cast(images, tf.float32)
    if limits.elastic:
        x = _on(x, 0, count // 2, lambda part: _elastic(part, limits.elastic, seeds[0]))
    if limits.stroke_width:
        change = limits.stroke_width
        x = _on(x, count // 4, count // 2, lambda part: _rewidened(part, change, seeds[1], outside))
    if limits.blurred:
        number = _share(count, limits.blurred)
        x = _on(x, count - number, number, lambda part: _blurred(part, seeds[2], outside))
    if limits.disturbed:
        number = _share(count, limits.disturbed)
        x = _on(x, count // 8, number, lambda part: _disturbed(part, seeds[3], outside))
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
    height, width, channels = part.shape[1:]
    field = tf.image.resize(coarse, [height, width], "bicubic")
    rows, columns = (tf.range(side, dtype=tf.float32) for side in (height, width))
    place = tf.stack(tf.meshgrid(rows, columns, indexing="ij"), axis=-1) + field
    place = tf.clip_by_value(place, 0.0, [height - 1.001, width - 1.001])
    low = tf.floor(place)
    share = place - low
    corner = tf.cast(low, tf.int32)
    index = tf.reshape(corner[..., 0] * width + corner[..., 1], [count, -1])
    flat = tf.reshape(part, [count, height * width, channels])

    def at(offset: int) -> tf.Tensor:
        values = tf.gather(flat, index + offset, batch_dims=1)
        return tf.reshape(values, [count, height, width, channels])

    down, right = share[..., :1], share[..., 1:]
    top = at(0) * (1 - right) + at(1) * right
    bottom = at(width) * (1 - right) + at(width + 1) * right
    return top * (1 - down) + bottom * down


def _neighbourhood(
    part: tf.Tensor, join: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], outside: str
) -> tf.Tensor:
    """Return the join of each 3x3 pixels. Pools take five times as long.

    `outside`: a mode of `tf.pad`; what it adds is black if CONSTANT.
    """
    x = tf.pad(part, [[0, 0], [1, 1], [1, 1], [0, 0]], outside)
    x = join(join(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return join(join(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])


def _rewidened(part: tf.Tensor, change: float, seed: tf.Tensor, outside: str) -> tf.Tensor:
    """Widen or thin the strokes: blend with the largest or the smallest of 3x3 pixels."""
    (share,) = _uniform(part, 1, seed, lowest=-1.0)
    wide, thin = (_neighbourhood(part, join, outside) for join in (tf.maximum, tf.minimum))
    return part + change * tf.where(share > 0, share * (wide - part), -share * (thin - part))


def _blurred(part: tf.Tensor, seed: tf.Tensor, outside: str) -> tf.Tensor:
    (share,) = _uniform(part, 1, seed)
    blurred = _neighbourhood(part, tf.add, outside) / 9
    return part + share * (blurred - part)


def _axis(side: int) -> tf.Tensor:
    """Return the pixels' places from the middle, (side,)."""
    return tf.range(side, dtype=tf.float32) - (side - 1) / 2


def _disturbed(part: tf.Tensor, seed: tf.Tensor, outside: str) -> tf.Tensor:
    """Hollow a sixth of the strokes; add each of the other disturbances to half of the images.

    These are a bar, a cut-out, a ground with faint ink, noise, dots, and for a sixth a negative
    band.
    """
    seeds = tf.random.experimental.stateless_split(seed, 4)
    on = _uniform(part, 7, seeds[0], lowest=-1.0)
    bar, cut, faint, noise, impulses = (tf.nn.relu(each) for each in on[:5])  # 0 for half of them
    outlines = _OUTLINE * (_neighbourhood(part, tf.maximum, outside) - part)
    part = tf.where(on[5] > _RARE, outlines, part)
    angle, place, width, level, y, x, ground = _uniform(part, 7, seeds[1])
    len_y, len_x = part.shape[1:3]
    size = max(len_y, len_x)
    rows, columns = tf.reshape(_axis(len_y), [1, -1, 1, 1]), tf.reshape(_axis(len_x), [1, 1, -1, 1])
    turn = angle * math.pi
    off = tf.abs(rows * tf.cos(turn) + columns * tf.sin(turn) - (place - 0.5) * size)
    drawn = tf.clip_by_value(width * _BAR + 0.5 - off, 0.0, 1.0) * _LEVELS * (0.4 + 0.6 * level)
    part = tf.where(bar > 0, tf.maximum(part, drawn), part)
    centre_y, centre_x = (y - 0.5) * len_y, (x - 0.5) * len_x
    inside = tf.maximum(tf.abs(rows - centre_y), tf.abs(columns - centre_x)) < cut * _CUT / 2
    part = tf.where(inside, 0.0, part)
    part = tf.where((on[6] > _RARE) & (off < size * (0.15 + 0.2 * width)), _LEVELS - part, part)
    contrast = 1 - faint * (1 - _FAINTEST)
    part = part * contrast + ground * tf.cast(faint > 0, tf.float32) * _GROUND
    shape = tf.shape(part)
    part += noise * _NOISE * tf.random.stateless_normal(shape, seeds[2])
    hit = tf.random.stateless_uniform(shape, seeds[3])
    rare = impulses * _IMPULSES / 2
    part = tf.where(hit < rare, 0.0, part)
    return tf.where(hit > 1 - rare, _LEVELS, part)


def recoloured(images: tf.Tensor, changes: Changes, seed: tf.Tensor) -> tf.Tensor:
    """Mirror a share of the (b, h, w, channels) uint8 images, and change their colours."""
    if not changes.flip and not changes.colour:
        return images
    seeds = tf.random.experimental.stateless_split(seed, 5)[3:]  # the first are of `distorted`
    x = tf.cast(images, tf.float32)
    if changes.flip:
        (draw,) = _uniform(x, 1, seeds[0])
        x = tf.where(draw < changes.flip, x[:, :, ::-1], x)
    if changes.colour:
        light, contrast, strength = (
            1 + changes.colour * share for share in _uniform(x, 3, seeds[1], lowest=-1.0)
        )
        mean = tf.reduce_mean(x, [1, 2, 3], keepdims=True)
        grey = tf.reduce_mean(x, 3, keepdims=True)
        x = mean * light + contrast * (grey + strength * (x - grey) - mean)
    return tf.cast(tf.round(tf.clip_by_value(x, 0.0, _LEVELS)), tf.uint8)
