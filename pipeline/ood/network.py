"""The network that tells digits from what is none: eleven classes, of which the last is the rest.

With the digits apart it knows better what one is than with two classes: on kinds of non-digits
that it was not fitted to its errors are fewer (docs/ML_PIPELINE.md has the comparison).
"""

from __future__ import annotations

import keras

from pipeline.data.dataset import SIDE
from pipeline.ood.examples import NOT_A_DIGIT, Drawn

_STEPS, _BATCH = 1400, 128
_RATE = 2e-3  # at first; down to nothing along a cosine


def fitted(drawn: Drawn) -> keras.Model:
    """A model from (n, 28, 28, 1) uint8 images to (n, 1) likelihoods of being a digit, 0 to 1."""
    image = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(12, 5, strides=2, activation="relu")(x)
    x = keras.layers.Conv2D(24, 3, strides=2, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.2)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    logits = keras.layers.Dense(NOT_A_DIGIT + 1)(x)
    network = keras.Model(image, logits)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_RATE, _STEPS)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    epochs = max(1, round(_STEPS * _BATCH / len(drawn.labels)))
    network.fit(drawn.images[..., None], drawn.labels, batch_size=_BATCH, epochs=epochs, verbose=0)
    shares = keras.layers.Softmax()(logits)
    return keras.Model(image, 1 - shares[:, NOT_A_DIGIT:])
