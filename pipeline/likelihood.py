"""Fits what tells digits from what is none, for the bundles of all runs: `pipeline.likelihood`.

`python -m pipeline.likelihood`, after `pipeline.preprocess`; it needs no trained run.
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

FALSE_REFUSALS = 0.01  # share of the validation digits below the threshold


def main(cfg: Config) -> None:
    """Fits the likelihood on the training split, and finds its threshold on validation."""
    source, folder = paths.processed(cfg.data.name), paths.LIKELIHOOD
    validation = as_served.load(source, "validation")
    drawn = examples.to_fit(dataset.load(source, "train"), cfg.seed)
    fresh = examples.to_judge(validation, cfg.seed)
    determinism.start(cfg.seed, cfg.threads)
    # TensorFlow comes with these, and must find seed and threads set.
    from pipeline.ood import network
    from pipeline.training import litert_export

    content = litert_export.to_litert(network.fitted(drawn))
    threshold = threshold_of(Likelihood(content, 0)(validation.images))

    with files.replacing(folder / "likelihood.tflite") as temporary:
        temporary.write_bytes(content)
    digest = files.sha256(folder / "likelihood.tflite")
    about = {"data": cfg.data.name, "sha256": digest, "threshold": threshold}
    files.write_json(folder / "likelihood.json", about)
    files.write_arrays(paths.nondigits(cfg.data.name), **fresh)
    logger.info("%.0f %% of the validation digits are below %.3f", 100 * FALSE_REFUSALS, threshold)


def threshold_of(likelihoods: NDArray[np.float32]) -> float:
    """The likelihood that all but FALSE_REFUSALS of these digits reach."""
    return round(float(np.quantile(likelihoods, FALSE_REFUSALS)), 6)


if __name__ == "__main__":
    stage(main)()
