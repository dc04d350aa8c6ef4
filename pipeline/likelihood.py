"""Fit the OOD score (likelihood of a digit) and its threshold: `python -m pipeline.likelihood`.

Runs after `pipeline.preprocess`; the bundles of all runs share the result.
"""

from __future__ import annotations

import logging
from typing import Any

from pipeline.config import Config, paths, stage
from pipeline.data import dataset
from pipeline.data.dataset import Images
from pipeline.data.preparation import preparation
from pipeline.ood import examples, foreign
from pipeline.ood.threshold import BELOW_THRESHOLD, threshold_of
from pipeline.storage import files
from pipeline.training import determinism
from serve.models.predictor import ENERGY, Likelihood

logger = logging.getLogger(__name__)

Fitted = tuple[dict[str, Any], dict[str, Images]]


def main(cfg: Config) -> None:
    """Fit the score on the training split and find its threshold on the validation split.

    What else than digits a data set shows is scored by each classifier's energy, which `evaluate`
    fits.
    """
    described, examples_of_none = fit_network(cfg) if cfg.data.digits else energy_of_each(cfg)
    files.write_json(paths.LIKELIHOOD / "likelihood.json", {"data": cfg.data.name, **described})
    files.write_arrays(paths.ood_examples(cfg.data.name), **examples_of_none)


def energy_of_each(cfg: Config) -> Fitted:
    """Return that no network is fitted, and the examples to evaluate on."""
    (paths.NETWORK).unlink(missing_ok=True)  # of another data set
    validation = dataset.load(paths.processed(cfg.data.name), "validation")
    prepared = preparation(cfg.data)
    logger.info("pictures of none of the classes are told by each model's energy")
    return {"score": ENERGY}, foreign.for_evaluation(validation.images, prepared, cfg.seed)


def fit_network(cfg: Config) -> Fitted:
    """Write the network that scores digits, and return what it is, and the examples."""
    source = paths.processed(cfg.data.name)
    validation = dataset.load(source, "validation")
    reported = dataset.load_nondigits(source)
    training = examples.for_training(dataset.load(source, "train"), reported, cfg.seed)
    evaluation = examples.for_evaluation(validation, cfg.seed)
    determinism.start(cfg.seed, cfg.threads)
    # These import TensorFlow, which must find seed and threads set.
    from pipeline.ood import score_network
    from pipeline.training import litert_export

    content = litert_export.to_litert(score_network.fit(training))
    threshold = threshold_of(Likelihood(content, 0)(validation.images))
    with files.replacing(paths.NETWORK) as temporary:
        temporary.write_bytes(content)
    digest = files.sha256(paths.NETWORK)
    logger.info("%.0f %% of the validation digits are below %.3f", 100 * BELOW_THRESHOLD, threshold)
    return {"sha256": digest, "threshold": threshold}, evaluation


if __name__ == "__main__":
    stage(main)()
