"""The networks: raw uint8 pixels in, logits out.

Scaling is their first layer, so that training and serving agree; the loss is more exact on logits
than on probabilities, and calibration needs them.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from pipeline.config import Model
from pipeline.data.dataset import CLASSES, SIDE

# Of MNIST's training pixels. Inputs of mean 0 and deviation 1, rather than of 0 to 1, leave run 1
# 1.9 % validation errors after 5 epochs, not 2.1 % (three seeds each).
_MEAN, _DEVIATION = 33.3, 78.6


def build(model: Model, *, training: bool) -> keras.Model:
    """An uncompiled model from (n, 28, 28, 1) uint8 images to (n, 10) float32 logits.

    Only the model for training has dropout; all other layers have the same names in both.
    """
    inputs = keras.Input((SIDE, SIDE, 1), dtype="uint8", name="image")
    scale = model.contrast / _DEVIATION
    x = keras.layers.Rescaling(scale, -_MEAN * scale, name="scale")(inputs)
    x = keras.layers.Conv2D(model.filters, model.kernel, name="convolution")(x)
    # ReLU and maximum commute; after the pool it touches a quarter of the values.
    x = keras.layers.MaxPooling2D(model.pool, name="pool")(x)
    x = keras.layers.ReLU(name="relu")(x)
    if training and model.dropout:
        x = Dropout(model.dropout, name="dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    if model.dense:
        x = keras.layers.Dense(model.dense, activation="relu", name="dense")(x)
        if training and model.dense_dropout:
            x = Dropout(model.dense_dropout, name="dense_dropout")(x)
    # Logits stay in float32 whatever precision the other layers compute in.
    outputs = keras.layers.Dense(CLASSES, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="digits")


def for_inference(trained: keras.Model, model: Model) -> keras.Model:
    """The same weights without dropout, optimiser or reduced precision."""
    keras.config.set_dtype_policy("float32")
    final = build(model, training=False)
    for layer in final.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    return final


class Dropout(keras.layers.Layer):  # type: ignore[misc]
    """Dropout (Srivastava et al., JMLR 2014) whose rate is a multiple of 1/256.

    Its random state is in a checkpoint, which that of `keras.layers.Dropout` is not. And a random
    byte per value decides, not a random float, so that a training step of run 2 takes nine tenths
    of the time (`make bench`).
    """

    def __init__(self, rate: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.dropped = round(rate * 256)

    def build(self, _: object) -> None:
        """Makes the random state: a weight, because a `SeedGenerator` is not in a checkpoint."""
        self.state = self.add_weight(
            name="state",
            shape=(2,),
            dtype="int32",
            initializer=lambda shape, dtype: keras.random.randint(shape, 0, 2**30, dtype),
            trainable=False,
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`inputs` with values set to zero and the others scaled up by the same share."""
        if not training:
            return inputs
        count = tf.size(inputs)
        words = tf.random.stateless_uniform(
            [(count + 3) // 4], self.state.value, minval=None, maxval=None, dtype=tf.uint32
        )
        self.state.assign_add([0, 1])
        noise = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:count]
        kept = tf.reshape(noise, tf.shape(inputs)) >= self.dropped
        return inputs * tf.cast(kept, inputs.dtype) * (256 / (256 - self.dropped))
