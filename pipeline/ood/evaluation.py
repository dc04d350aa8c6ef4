"""Out-of-distribution (OOD) evaluation: does the score part digits from all that is none."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.config import PipelineError, paths
from pipeline.data.dataset import Images
from pipeline.evaluation.metrics import auroc
from pipeline.ood import examples
from pipeline.reports import theme
from pipeline.storage.files import sha256
from serve.models.predictor import Likelihood

_WIDTH = 8.4  # inches
_SAMPLES = 12  # images of each kind in the plot


class Scores(NamedTuple):
    """OOD scores of the test digits and of each kind of examples, and sample images of each."""

    digits: NDArray[np.float32]
    kinds: dict[str, NDArray[np.float32]]
    samples: list[Images]


def load(data: str) -> tuple[Likelihood, dict[str, Any], dict[str, Images]]:
    """Return what the stage `likelihood` wrote: the score, its description, examples by kind.

    Raises:
        PipelineError: a file is missing, or belongs to other data or another description.
    """
    remedy = f"python -m pipeline.likelihood data={data}"
    file = paths.LIKELIHOOD / "likelihood.tflite"
    try:
        description = json.loads((paths.LIKELIHOOD / "likelihood.json").read_bytes())
        content = file.read_bytes()
        with np.load(paths.ood_examples(data), allow_pickle=False) as arrays:
            images = dict(arrays)
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename} is missing: {remedy}") from None
    if description["data"] != data or description["sha256"] != sha256(file):
        raise PipelineError(f"{paths.LIKELIHOOD} does not belong to data={data}: {remedy}")
    return Likelihood(content, description["threshold"]), description, images


def scores(likelihood: Likelihood, digits: Images, images: dict[str, Images]) -> Scores:
    """Return the scores of the test digits and of the examples of each kind."""
    kinds = {kind: likelihood(some) for kind, some in images.items()}
    samples = [some[:_SAMPLES] for some in (digits, *images.values())]
    return Scores(likelihood(digits), kinds, samples)


def metrics(found: Scores, description: dict[str, Any]) -> dict[str, Any]:
    """Return the share of each kind that is refused (below the threshold), and AUROCs.

    An AUROC compares a kind of OOD examples with the test digits; `nondigit_auroc` is the lowest.
    """
    threshold = np.float32(description["threshold"])

    def refused(likelihoods: NDArray[np.float32]) -> float:
        return float((likelihoods < threshold).mean())

    kinds = {
        kind: {
            "auroc": auroc(found.digits, found.kinds[kind]),
            "refused": refused(found.kinds[kind]),
            "fitted": kind not in examples.UNSEEN,
        }
        for kind in examples.KINDS
    }
    return {
        "nondigit_auroc": min(float(each["auroc"]) for each in kinds.values()),
        "likelihood": {
            "sha256": description["sha256"],
            "threshold": description["threshold"],
            "refused_digits": {
                "test": refused(found.digits),
                **{kind: refused(found.kinds[kind]) for kind in examples.DIGITS},
            },
            "nondigits": kinds,
        },
    }


@matplotlib.rc_context(theme.STYLE)
def plot(found: Scores, threshold: float) -> Figure:
    """Draw a row per kind, test digits first: sample images, and a histogram of all scores."""
    rows = {"test digits": found.digits, **found.kinds}
    figure = Figure((_WIDTH, 0.55 * len(rows) + 0.4))
    panels = figure.subplots(len(rows), 2, sharex="col", width_ratios=(5, 4))
    edges = np.linspace(0, 1, 41)
    for row, (kind, likelihoods) in enumerate(rows.items()):
        left, right = panels[row]
        left.axis("off")
        left.set_title(kind, size=8, pad=2)
        left.imshow(np.hstack(list(found.samples[row])), "gray_r", vmin=0, vmax=255)
        color = theme.WRONG if kind in examples.KINDS else theme.MUTED
        share = np.full(len(likelihoods), 1 / len(likelihoods))
        right.hist(likelihoods, edges, weights=share, color=color)
        right.axvline(threshold, color=theme.INK, lw=0.8)
        right.set(ylim=(0, 1), yticks=[], xlim=(0, 1))
        below = (likelihoods < threshold).mean()
        right.text(0.5, 0.5, f"{below:.1%} below", size=8, ha="center")
    panels[-1, 1].set_xlabel("likelihood of a digit (OOD score); the line is the threshold")
    return figure
