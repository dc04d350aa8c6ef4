"""The stream of training batches: every epoch shuffled anew, each image moved a little.

Order and moves depend on the seed and the epoch alone, so training can stop after any epoch and
go on in another process as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.config import Augmentation
from pipeline.data.dataset import SIDE, Split

_ORDER, _MOVES = 0, 1  # keeps the two uses of random numbers apart


def steps(images: int, batch_size: int) -> int:
    """Batches of one epoch; the images that fill no batch are others in each epoch."""
    return max(1, images // batch_size)


def stream(
    split: Split, batch_size: int, augmentation: Augmentation, seed: int
) -> Callable[[int], tf.data.Dataset]:
    """A function from an epoch to its batches: (b, 28, 28, 1) uint8 images, (b,) uint8 labels."""
    images, labels = tf.constant(split.images[..., None]), tf.constant(split.labels)
    count = len(split)

    def batch(index: tf.Tensor, move: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _moved(tf.gather(images, index), move, augmentation), tf.gather(labels, index)

    def epoch_batches(epoch: int) -> tf.data.Dataset:
        shuffled = tf.random.experimental.stateless_shuffle(
            tf.range(count), seed=_key(seed, epoch, _ORDER)
        )
        moves = tf.random.stateless_uniform(
            [count, 6], seed=_key(seed, epoch, _MOVES), minval=-1.0, maxval=1.0
        )
        return (
            tf.data.Dataset.from_tensor_slices((shuffled, moves))
            .batch(min(batch_size, count), drop_remainder=True)
            .map(batch)
            .prefetch(8)
        )

    return epoch_batches


def _key(seed: int, epoch: int, use: int) -> list[int]:
    return [seed, epoch * 2 + use]


def _moved(images: tf.Tensor, moves: tf.Tensor, limits: Augmentation) -> tf.Tensor:
    """The images under random affine maps, bilinear, black outside.

    `moves`: (b, 6) in -1 .. 1, what share of each limit is used: rotation, zoom, shear,
    shift in x and y; the sixth zooms the second axis.
    """
    if not any((limits.rotation, limits.shift, limits.zoom, limits.shear)):
        return images
    angle = moves[:, 0] * (limits.rotation * math.pi / 180)
    width, height = 1 + moves[:, 1] * limits.zoom, 1 + moves[:, 5] * limits.zoom
    slant = moves[:, 2] * limits.shear
    cos, sin = tf.cos(angle), tf.sin(angle)
    # Rotation x shear x scale, about the centre of the image.
    a, b = cos * width, (cos * slant - sin) * height
    c, d = sin * width, (sin * slant + cos) * height
    centre = (SIDE - 1) / 2
    x = centre - a * centre - b * centre + moves[:, 3] * limits.shift
    y = centre - c * centre - d * centre + moves[:, 4] * limits.shift
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, x, c, d, y, zero, zero], axis=1),
        output_shape=[SIDE, SIDE],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
