"""Export to LiteRT, and a parity check of the exported file against the Keras model."""

import logging
import tempfile

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.data.dataset import Images, with_channels
from serve.models.predictor import LogitModel, quiet, softmax

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # largest difference of a probability
# Few images show the ranges of the activations: after any 50 to 1,000, the int8 file of a network
# with 527,370 weights misreads 45 to 48 of the validation images, its float32 file 48.
RANGE_IMAGES = 300


def to_litert(model: keras.Model, ranges: Images | None = None) -> bytes:
    """Return the network as a LiteRT file, by way of a SavedModel: the same bytes each time.

    With `ranges`, uint8 images, weights and activations are int8, and what
    these images do to each activation sets its scale. Pixels stay uint8, logits float32.
    `TFLiteConverter.from_concrete_functions` silently loses the weights of a Keras 3 model;
    `check_parity` would notice.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        model.export(folder, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if ranges is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: (
                [image[None]] for image in with_channels(ranges)
            )
        content: bytes = converter.convert()
    return content


def range_images(training: Images, seed: int) -> Images:
    """Return `RANGE_IMAGES` of the images, or all if they are fewer."""
    return np.random.default_rng(seed).permutation(training)[:RANGE_IMAGES]


def check_parity(model: keras.Model, content: bytes, images: Images) -> NDArray[np.float32]:
    """Return the exported file's (n, classes) logits, which agree with those of the network.

    It is a PipelineError if an image gets another class, or a probability differs by `TOLERANCE`.
    """
    expected = np.asarray(model.predict(with_channels(images), batch_size=500, verbose=0))
    logits = LogitModel(content)(images)
    difference = float(np.abs(softmax(logits) - softmax(expected)).max())
    changed = int((logits.argmax(1) != expected.argmax(1)).sum())
    if difference >= TOLERANCE or changed:
        raise PipelineError(
            f"the exported model differs from the trained one: {changed} of {len(images)} images "
            f"get another class, probabilities differ by {difference:.1e} (limit {TOLERANCE:g})"
        )
    logger.info("exported: equal to Keras within %.0e on %d images", difference, len(images))
    return logits
