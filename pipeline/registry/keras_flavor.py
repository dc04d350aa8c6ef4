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

from pipeline.config.schema import Model
from pipeline.data.dataset import CLASSES, SIDE
from pipeline.training import networks


def log(folder: Path, description: dict[str, Any]) -> None:
    """Log the model in `folder` to the active MLflow run, with signature and input example."""
    model = networks.build(Model(**description["settings"]["model"]), training=False)
    model.load_weights(folder / "model.weights.h5")
    keras.config.disable_interactive_logging()
    images, answers = np.zeros((1, SIDE, SIDE, 1), np.uint8), np.zeros((1, CLASSES), np.float32)
    # `mlflow.keras.log_model` fails on an input example; this one saves the same Keras 3 archive.
    mlflow.tensorflow.log_model(
        model,
        name="keras",
        signature=infer_signature(images, answers),
        input_example=images,
        # Given here, because MLflow would load the model in another process for 13 s to infer them.
        pip_requirements=[f"{lib.__name__}=={lib.__version__}" for lib in (keras, np, tf)],
    )
