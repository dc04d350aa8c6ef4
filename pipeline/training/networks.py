"""Networks: raw uint8 pixels in, logits out.

Scaling is their first layer, so that training and serving agree. The loss is more exact on logits
than on probabilities, and calibration needs logits.
"""

from collections.abc import Mapping
from typing import Any

import keras

from pipeline.config.schema import Model
from pipeline.training.dropout import Dropout
from serve.imaging.preparation import DIGIT, Preparation

# Mean and standard deviation of MNIST's training pixels. Standardised inputs leave run 1 with 1.9 %
# validation errors after 5 epochs, inputs of 0 to 1 with 2.1 % (three seeds each).
_DIGITS = 33.3, 78.6
_ANY = 127.5, 73.6  # of levels that are all as frequent: nothing is known of other pictures
# With Keras' 0.99 the statistics are half their initial values after the 60 steps that a few epochs
# of the 1,257 scanned digits have: a test loss of 0.040, with this 0.027.
_MOMENTUM = 0.9


def build(model: Model, preparation: Preparation, classes: int, *, training: bool) -> keras.Model:
    """Return an uncompiled model from prepared (n, h, w, channels) uint8 images to float32 logits.

    Only the model for training has dropout; all other layers have the same names in both.
    """
    inputs = keras.Input(preparation.shape, dtype="uint8", name="image")
    mean, deviation = _DIGITS if preparation.kind == DIGIT else _ANY
    scale = model.contrast / deviation
    x = keras.layers.Rescaling(scale, -mean * scale, name="scale")(inputs)
    x = keras.layers.Conv2D(model.filters, model.kernel, name="convolution")(x)
    # ReLU and maximum commute; after the pool it touches a quarter of the values.
    x = keras.layers.MaxPooling2D(model.pool, name="pool")(x)
    if model.blocks:
        x = keras.layers.BatchNormalization(momentum=_MOMENTUM, name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    for block in range(1, len(model.blocks) + 1):
        x = _block(x, model, block)
    if training and model.dropout:
        x = Dropout(model.dropout, name="dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    if model.dense:
        x = keras.layers.Dense(model.dense, activation="relu", name="dense")(x)
        if training and model.dense_dropout:
            x = Dropout(model.dense_dropout, name="dense_dropout")(x)
    # Logits stay in float32 whatever precision the other layers compute in.
    outputs = keras.layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="digits")


def of_bundle(description: Mapping[str, Any]) -> keras.Model:
    """Return the network, without its weights, of the bundle with this `model.json`."""
    model = Model(**description["settings"]["model"])
    return build(model, Preparation.of(description), len(description["classes"]), training=False)


def _block(x: keras.KerasTensor, model: Model, block: int) -> keras.KerasTensor:
    """Add the convolutions of a block, counted from 1, and its max-pool unless it is the last."""
    pooled, convolutions, before = block < len(model.blocks), model.blocks[block - 1], x
    for place, filters in enumerate(convolutions, 1):
        name = f"{block}_{place}"
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"block_{name}")(x)
        last = place == len(convolutions)
        if last and pooled:
            x = keras.layers.MaxPooling2D(2, name=f"pool_{block}")(x)
        x = keras.layers.BatchNormalization(momentum=_MOMENTUM, name=f"norm_{name}")(x)
        if last and model.residual:
            size = 2 if pooled else 1
            shortcut = keras.layers.AveragePooling2D(size, name=f"shortcut_pool_{block}")(before)
            shortcut = keras.layers.Conv2D(filters, 1, name=f"shortcut_{block}")(shortcut)
            x = keras.layers.Add(name=f"sum_{block}")([x, shortcut])
        x = keras.layers.ReLU(name=f"relu_{name}")(x)
    return x


def for_inference(
    trained: keras.Model, model: Model, preparation: Preparation, classes: int
) -> keras.Model:
    """Return the same weights without dropout, optimiser or reduced precision."""
    keras.config.set_dtype_policy("float32")
    final = build(model, preparation, classes, training=False)
    for layer in final.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    return final
