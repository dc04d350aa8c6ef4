"""The Keras model of a run as an MLflow model, to inspect or to train further.

The service does not use it: it serves the LiteRT bundle.
"""

from pathlib import Path
from typing import Any

import keras
import mlflow.tensorflow
import numpy as np
import tensorflow as tf
from mlflow.models import infer_signature

from pipeline.training import networks
from serve.imaging.preparation import Preparation


def log(folder: Path, description: dict[str, Any]) -> None:
    """Log the model in `folder` to the active MLflow run, with signature and input example."""
    prepared, classes = Preparation.of(description), len(description["classes"])
    model = networks.of_bundle(description)
    model.load_weights(folder / "model.weights.h5")
    keras.config.disable_interactive_logging()
    images, answers = np.zeros((1, *prepared.shape), np.uint8), np.zeros((1, classes), np.float32)
    # `mlflow.keras.log_model` fails on an input example; this one saves the same Keras 3 archive.
    mlflow.tensorflow.log_model(
        model,
        name="keras",
        signature=infer_signature(images, answers),
        input_example=images,
        # Given here, because MLflow would load the model in another process for 13 s to infer them.
        pip_requirements=[f"{lib.__name__}=={lib.__version__}" for lib in (keras, np, tf)],
    )
