"""Out-of-distribution (OOD) evaluation: does the score part the classes from all that is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.config import PipelineError, paths
from pipeline.data.dataset import Images
from pipeline.evaluation.metrics import auroc
from pipeline.ood import examples
from pipeline.ood.threshold import fit_energy
from pipeline.reports import theme
from pipeline.storage.files import sha256
from serve.models.predictor import Energy, Likelihood, Predictor

Score = Callable[[Images], NDArray[np.float32]]  # from 0 to 1, of prepared images

_WIDTH = 8.4  # inches
_SAMPLES = 12  # images of each kind in the plot


class Scores(NamedTuple):
    """OOD scores of the test images and of each kind of examples, and sample images of each."""

    test: NDArray[np.float32]
    kinds: dict[str, NDArray[np.float32]]
    samples: list[Images]


def load(data: str) -> tuple[Likelihood | None, dict[str, Any], dict[str, Images]]:
    """Return what the stage `likelihood` wrote: the score, its description, examples by kind.

    The score is None where each model's energy takes its place.

    Raises:
        PipelineError: a file is missing, or belongs to other data or another description.
    """
    remedy = f"python -m pipeline.likelihood data={data}"
    file = paths.NETWORK
    try:
        description = json.loads((paths.LIKELIHOOD / "likelihood.json").read_bytes())
        content = file.read_bytes() if "sha256" in description else None
        with np.load(paths.ood_examples(data), allow_pickle=False) as arrays:
            images = dict(arrays)
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename} is missing: {remedy}") from None
    if description["data"] != data or (content and description["sha256"] != sha256(file)):
        raise PipelineError(f"{paths.LIKELIHOOD} does not belong to data={data}: {remedy}")
    likelihood = Likelihood(content, description["threshold"]) if content else None
    return likelihood, description, images


def energy_of(predictor: Predictor, validation: Images) -> tuple[Score, dict[str, Any]]:
    """Return the score by the predictor's energy, fitted on validation images, and what it is."""
    fitted = fit_energy(predictor.logits(validation))
    of_logits = Energy.of(fitted)
    return lambda some: of_logits(predictor.logits(some)), fitted


def scores(score: Score, test: Images, images: dict[str, Images]) -> Scores:
    """Return the scores of the test images and of the examples of each kind."""
    kinds = {kind: score(some) for kind, some in images.items()}
    samples = [some[:_SAMPLES] for some in (test, *images.values())]
    return Scores(score(test), kinds, samples)


def metrics(found: Scores, description: dict[str, Any]) -> dict[str, Any]:
    """Return the share of each kind that is refused (below the threshold), and AUROCs.

    An AUROC compares a kind of OOD examples with the test images; `nondigit_auroc` is the lowest.
    """
    threshold = np.float32(description["threshold"])

    def refused(likelihoods: NDArray[np.float32]) -> float:
        return float((likelihoods < threshold).mean())

    network = "sha256" in description  # which was fitted to some kinds
    kinds = {
        kind: {
            "auroc": auroc(found.test, scores),
            "refused": refused(scores),
            "fitted": network and kind not in examples.UNSEEN,
        }
        for kind, scores in found.kinds.items()
        if kind not in examples.DIGITS
    }
    known = {kind: scores for kind, scores in found.kinds.items() if kind in examples.DIGITS}
    return {
        "nondigit_auroc": min(float(each["auroc"]) for each in kinds.values()),
        "likelihood": {
            **{key: value for key, value in description.items() if key != "data"},
            "refused_digits": {
                "test": refused(found.test),
                **{kind: refused(scores) for kind, scores in known.items()},
            },
            "nondigits": kinds,
        },
    }


@matplotlib.rc_context(theme.STYLE)
def plot(found: Scores, threshold: float) -> Figure:
    """Draw a row per kind, test images first: sample images, and a histogram of all scores."""
    digits = examples.DIGITS[0] in found.kinds
    ink = theme.greys("digit" if digits else "class")
    rows = {"test digits" if digits else "test images": found.test, **found.kinds}
    figure = Figure((_WIDTH, 0.55 * len(rows) + 0.4))
    panels = figure.subplots(len(rows), 2, sharex="col", width_ratios=(5, 4))
    edges = np.linspace(0, 1, 41)
    for row, (kind, likelihoods) in enumerate(rows.items()):
        left, right = panels[row]
        left.axis("off")
        left.set_title(kind, size=8, pad=2)
        left.imshow(np.hstack(list(found.samples[row])), ink, vmin=0, vmax=255)
        known = kind.startswith("test ") or kind in examples.DIGITS
        color = theme.MUTED if known else theme.WRONG
        share = np.full(len(likelihoods), 1 / len(likelihoods))
        right.hist(likelihoods, edges, weights=share, color=color)
        right.axvline(threshold, color=theme.INK, lw=0.8)
        right.set(ylim=(0, 1), yticks=[], xlim=(0, 1))
        below = (likelihoods < threshold).mean()
        right.text(0.5, 0.5, f"{below:.1%} below", size=8, ha="center")
    what = "likelihood of a digit" if digits else "likelihood"
    panels[-1, 1].set_xlabel(f"{what} (OOD score); the line is the threshold")
    return figure
