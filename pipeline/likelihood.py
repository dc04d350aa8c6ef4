"""Fit the OOD score (likelihood of a digit) and its threshold: `python -m pipeline.likelihood`.

Runs after `pipeline.preprocess`; the bundles of all runs share the result.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, paths, stage
from pipeline.data import as_served, dataset
from pipeline.ood import examples
from pipeline.storage import files
from pipeline.training import determinism
from serve.models.predictor import Likelihood

logger = logging.getLogger(__name__)

BELOW_THRESHOLD = 0.01  # share of the validation digits


def main(cfg: Config) -> None:
    """Fit the score on the training split and find its threshold on the validation split."""
    source, folder = paths.processed(cfg.data.name), paths.LIKELIHOOD
    validation = as_served.load(source, "validation")
    reported = dataset.load_nondigits(source)
    training = examples.for_training(dataset.load(source, "train"), reported, cfg.seed)
    evaluation = examples.for_evaluation(validation, cfg.seed)
    determinism.start(cfg.seed, cfg.threads)
    # These import TensorFlow, which must find seed and threads set.
    from pipeline.ood import score_network
    from pipeline.training import litert_export

    content = litert_export.to_litert(score_network.fit(training))
    threshold = threshold_of(Likelihood(content, 0)(validation.images))

    with files.replacing(folder / "likelihood.tflite") as temporary:
        temporary.write_bytes(content)
    digest = files.sha256(folder / "likelihood.tflite")
    description = {"data": cfg.data.name, "sha256": digest, "threshold": threshold}
    files.write_json(folder / "likelihood.json", description)
    files.write_arrays(paths.ood_examples(cfg.data.name), **evaluation)
    logger.info("%.0f %% of the validation digits are below %.3f", 100 * BELOW_THRESHOLD, threshold)


def threshold_of(scores: NDArray[np.float32]) -> float:
    """Return the score that all but BELOW_THRESHOLD of the digits reach, at most one half.

    What is more surely a digit than none is not flagged, however alike few validation digits are.
    """
    return round(min(float(np.quantile(scores, BELOW_THRESHOLD)), 0.5), 6)


if __name__ == "__main__":
    stage(main)()
