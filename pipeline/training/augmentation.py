"""Data augmentation: training batches, shuffled anew each epoch, each image under an affine map.

Order and maps depend on seed and epoch alone, so training can stop after any epoch and resume in
another process with the same result.
"""

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from pipeline.config.schema import Augmentation
from pipeline.data.dataset import SIDE, Split
from pipeline.training.distortions import distorted

# Independent streams of random numbers; the last is folded with the step.
_SHUFFLE, _TRANSFORM, _DISTORT = 0, 1, 2


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of full batches; the images left over differ in each epoch."""
    return max(1, images // batch_size)


def batches(
    split: Split, batch_size: int, limits: Augmentation, seed: int
) -> Callable[[int], tf.data.Dataset]:
    """Return a function from an epoch to its batches.

    A batch is (b, 28, 28, 1) uint8 images and (b,) uint8 labels.
    """
    images, labels = tf.constant(split.images[..., None]), tf.constant(split.labels)
    count = len(split)

    def batch(
        start: tf.Tensor, step: tf.Tensor, taken: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        index, shares = taken
        moved = augmented(tf.gather(images, index), shares, limits)
        key = tf.random.experimental.stateless_fold_in(start, step)
        return distorted(moved, limits, key), tf.gather(labels, index)

    traced = tf.function(batch)  # once, not in each epoch: that takes most of a second

    def epoch_batches(epoch: int) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), seed=[seed, epoch * 2 + _SHUFFLE]
        )
        shares = tf.random.stateless_uniform(
            [count, 6], seed=[seed, epoch * 2 + _TRANSFORM], minval=-1.0, maxval=1.0
        )
        start = tf.constant([seed, epoch * 2 + _DISTORT])
        return (
            tf.data.Dataset.from_tensor_slices((order, shares))
            .batch(min(batch_size, count), drop_remainder=True)
            .enumerate()
            .map(partial(traced, start))
            .prefetch(8)
        )

    return epoch_batches


def augmented(images: tf.Tensor, shares: tf.Tensor, limits: Augmentation) -> tf.Tensor:
    """Return the images under random affine maps, bilinear, black outside.

    `shares`: (b, 6) in -1 .. 1, the share of each limit that is used: rotation, zoom of the first
    axis, shear, shift in x and y, zoom of the second axis.
    """
    if not any((limits.rotation, limits.shift, limits.zoom, limits.shear)):
        return images
    angle = shares[:, 0] * (limits.rotation * math.pi / 180)
    width, height = 1 + shares[:, 1] * limits.zoom, 1 + shares[:, 5] * limits.zoom
    slant = shares[:, 2] * limits.shear
    cos, sin = tf.cos(angle), tf.sin(angle)
    # Rotation x shear x scale, about the centre of the image.
    a, b = cos * width, (cos * slant - sin) * height
    c, d = sin * width, (sin * slant + cos) * height
    centre = (SIDE - 1) / 2
    x = centre - a * centre - b * centre + shares[:, 3] * limits.shift
    y = centre - c * centre - d * centre + shares[:, 4] * limits.shift
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, x, c, d, y, zero, zero], axis=1),
        output_shape=[SIDE, SIDE],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
