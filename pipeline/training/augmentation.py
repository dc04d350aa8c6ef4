"""Data augmentation: training batches, shuffled anew each epoch, each image changed at random.

Order and changes depend on seed and epoch alone, so training can stop after any epoch and resume in
another process with the same result.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import tensorflow as tf

from pipeline.config import Config
from pipeline.config.data_schema import Changes
from pipeline.config.schema import Augmentation
from pipeline.data.dataset import Split, with_channels
from pipeline.training.distortions import distorted, recoloured

# Independent streams of random numbers; the last is folded with the step.
_SHUFFLE, _TRANSFORM, _DISTORT = 0, 1, 2


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of full batches; the images left over differ in each epoch."""
    return max(1, images // batch_size)


def limits_of(cfg: Config) -> Augmentation:
    """Return the run's augmentation without what the data set's pictures do not have.

    Pens that draw wide and thin on lined paper make no colour pictures.
    """
    grey = cfg.data.input.channels == 1
    return cfg.augmentation if grey else replace(cfg.augmentation, stroke_width=0.0, disturbed=0.0)


def batches(
    split: Split,
    batch_size: int,
    limits: Augmentation,
    seed: int,
    changes: Changes | None = None,
    *,
    black: bool = True,
) -> Callable[[int], tf.data.Dataset]:
    """Return a function from an epoch to its batches.

    A batch is (b, h, w, channels) uint8 images and (b,) uint8 labels. `changes`: further ones,
    which the data set allows. `black`: what is outside of an image; else it is as its edges.
    """
    images, labels = tf.constant(with_channels(split.images)), tf.constant(split.labels)
    count, shown = len(split), len(split) * ((changes and changes.repeat) or 1)

    def batch(
        start: tf.Tensor, step: tf.Tensor, taken: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        index, shares = taken
        moved = augmented(tf.gather(images, index), shares, limits, black=black)
        key = tf.random.experimental.stateless_fold_in(start, step)
        changed = distorted(moved, limits, key, black=black)
        recolour = changes or Changes()
        return recoloured(changed, recolour, key), tf.gather(labels, index)

    traced = tf.function(batch)  # once, not in each epoch: that takes most of a second

    def epoch_batches(epoch: int) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(shown) % count, seed=[seed, epoch * 2 + _SHUFFLE]
        )
        shares = tf.random.stateless_uniform(
            [shown, 6], seed=[seed, epoch * 2 + _TRANSFORM], minval=-1.0, maxval=1.0
        )
        start = tf.constant([seed, epoch * 2 + _DISTORT])
        return (
            tf.data.Dataset.from_tensor_slices((order, shares))
            .batch(min(batch_size, shown), drop_remainder=True)
            .enumerate()
            .map(partial(traced, start))
            .prefetch(8)
        )

    return epoch_batches


def augmented(
    images: tf.Tensor, shares: tf.Tensor, limits: Augmentation, *, black: bool = True
) -> tf.Tensor:
    """Return the images under random affine maps, bilinear.

    `black`: what is outside of them; else it is as their edges. `shares`: (b, 6) in -1 .. 1, the
    share of each limit that is used: rotation, zoom of the first axis, shear, shift in x and y,
    zoom of the second axis.
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
    middle_y, middle_x = ((side - 1) / 2 for side in images.shape[1:3])
    x = middle_x - a * middle_x - b * middle_y + shares[:, 3] * limits.shift
    y = middle_y - c * middle_x - d * middle_y + shares[:, 4] * limits.shift
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, x, c, d, y, zero, zero], axis=1),
        output_shape=images.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT" if black else "NEAREST",
    )
