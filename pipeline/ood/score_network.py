"""The network behind the OOD score: ten digits and an eleventh class for all that is none.

Ten classes of digits instead of one: errors are fewer on kinds of examples that are not in the
training set (docs/MEASUREMENTS.md has the comparison).
"""

from __future__ import annotations

import keras

from pipeline.config.terminal import Bar
from pipeline.data.dataset import SIDE
from pipeline.ood.examples import NOT_A_DIGIT, Examples

_STEPS, _BATCH = 2200, 128
_LEARNING_RATE = 3e-3  # at the first step; cosine decay to 0 at the last


def fit(examples: Examples) -> keras.Model:
    """Return a model from (n, 28, 28, 1) uint8 images to (n, 1) OOD scores: 1 is surely a digit."""
    image = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    for filters, size, stride in ((16, 5, 2), (32, 3, 2), (48, 3, 1)):
        x = keras.layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    logits = keras.layers.Dense(NOT_A_DIGIT + 1)(x)
    network = keras.Model(image, logits)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, _STEPS)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = examples.images[..., None], examples.labels
    epochs = max(1, round(_STEPS * _BATCH / len(labels)))
    with Bar("OOD score", epochs * -(-len(labels) // _BATCH)) as bar:
        stepped = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: bar.step())
        network.fit(
            images, labels, batch_size=_BATCH, epochs=epochs, verbose=0, callbacks=[stepped]
        )
    probabilities = keras.layers.Softmax()(logits)
    return keras.Model(image, 1 - probabilities[:, NOT_A_DIGIT:])
