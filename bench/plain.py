"""Baseline of `make bench`: train three small models one after another in plain Keras."""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
from keras import layers

folder = Path(sys.argv[1])


def read(name: str, header: int) -> np.ndarray:
    """Read the data of an IDX file."""
    return np.frombuffer((folder / name).read_bytes(), np.uint8, offset=header)


images = read("train-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1) / np.float32(255)
labels = read("train-labels-idx1-ubyte", 8)
test_images = read("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1) / np.float32(255)
test_labels = read("t10k-labels-idx1-ubyte", 8)


def network(filters: int, dense: int) -> list[keras.Layer]:
    """Return the layers of run 1, or with a dense layer those of run 2."""
    found = [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    if not dense:
        return [*found, layers.Flatten()]
    found += [layers.Dropout(0.25), layers.Flatten(), layers.Dense(dense, activation="relu")]
    return [*found, layers.Dropout(0.5)]


for filters, dense, rate, batch in ((32, 0, 1e-3, 128), (64, 128, 1e-3, 128), (64, 128, 5e-4, 64)):
    body = network(filters, dense)
    model = keras.Sequential(
        [layers.Input((28, 28, 1)), *body, layers.Dense(10, activation="softmax")]
    )
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    held_out = images[54000:], labels[54000:]
    model.fit(images[:54000], labels[:54000], batch, 5, verbose=2, validation_data=held_out)
    print(model.evaluate(test_images, test_labels, verbose=0))
