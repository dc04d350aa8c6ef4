"""Baseline of `make bench`: train the three models one after another in plain Keras."""

import os
import sys
import time
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
test = (
    read("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1) / np.float32(255),
    read("t10k-labels-idx1-ubyte", 8),
)


def baseline() -> list[keras.Layer]:
    """Return the layers of run 1."""
    return [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]


def enhanced() -> list[keras.Layer]:
    """Return the layers of runs 2 and 3."""
    return [
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.5),
    ]


for body, rate, batch in ((baseline, 1e-3, 128), (enhanced, 1e-3, 128), (enhanced, 5e-4, 64)):
    model = keras.Sequential(
        [layers.Input((28, 28, 1)), *body(), layers.Dense(10, activation="softmax")]
    )
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    started = time.monotonic()
    model.fit(
        images[:54000],
        labels[:54000],
        batch_size=batch,
        epochs=5,
        validation_data=(images[54000:], labels[54000:]),
        verbose=2,
    )
    seconds = time.monotonic() - started
    print(model.evaluate(*test, verbose=0))
print(f"{seconds:.1f}")  # training time of run 3's recipe, without start-up and test
