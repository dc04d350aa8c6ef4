"""From a trained network to what is served: the LiteRT file, and proof that it answers alike."""

from __future__ import annotations

import logging
import tempfile

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.data.dataset import Images
from pipeline.training.determinism import quiet
from serve.models.predictor import LogitModel, softmax

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # largest difference of a probability


def to_litert(model: keras.Model) -> bytes:
    """The network as a LiteRT file, by way of a SavedModel: the same bytes each time.

    `TFLiteConverter.from_concrete_functions` loses the weights of a Keras 3 model without a word;
    `prove_parity` would notice.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        model.export(folder, format="tf_saved_model", verbose=False)
        content: bytes = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    return content


def prove_parity(model: keras.Model, content: bytes, images: Images) -> NDArray[np.float32]:
    """The exported file's logits for `images`, (n, 10), which are the network's own.

    Raises:
        PipelineError: some image gets another digit, or a probability that differs by
            `TOLERANCE` or more.
    """
    expected = np.asarray(model.predict(images[..., None], batch_size=500, verbose=0))
    logits = LogitModel(content)(images)
    difference = float(np.abs(softmax(logits) - softmax(expected)).max())
    changed = int((logits.argmax(1) != expected.argmax(1)).sum())
    if difference >= TOLERANCE or changed:
        raise PipelineError(
            f"the exported model is not the trained one: {changed} of {len(images)} images get "
            f"another digit, probabilities differ by up to {difference:.1e} (limit {TOLERANCE:g})"
        )
    logger.info("exported: equal to Keras within %.0e on %d images", difference, len(images))
    return logits
