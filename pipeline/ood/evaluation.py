"""What the likelihood of a digit refuses: few of the digits, much of the rest."""

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
_EXAMPLES = 12  # of each kind


class Judged(NamedTuple):
    """Likelihoods of the test digits, and of each kind of fresh images; some of all images."""

    digits: NDArray[np.float32]
    kinds: dict[str, NDArray[np.float32]]
    examples: list[Images]


def load(data: str) -> tuple[Likelihood, dict[str, Any], dict[str, Images]]:
    """What `likelihood` left: itself, its description, and fresh images of each kind.

    Raises:
        PipelineError: it is missing, or of other data or files than it says.
    """
    remedy = f"python -m pipeline.likelihood data={data}"
    file = paths.LIKELIHOOD / "likelihood.tflite"
    try:
        description = json.loads((paths.LIKELIHOOD / "likelihood.json").read_bytes())
        content = file.read_bytes()
        with np.load(paths.nondigits(data), allow_pickle=False) as arrays:
            images = dict(arrays)
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename} is missing: {remedy}") from None
    if description["data"] != data or description["sha256"] != sha256(file):
        raise PipelineError(f"{paths.LIKELIHOOD} is not of data={data}: {remedy}")
    return Likelihood(content, description["threshold"]), description, images


def judged(likelihood: Likelihood, digits: Images, images: dict[str, Images]) -> Judged:
    """The likelihood of everything."""
    kinds = {kind: likelihood(some) for kind, some in images.items()}
    shown = [some[:_EXAMPLES] for some in (digits, *images.values())]
    return Judged(likelihood(digits), kinds, shown)


def figures(found: Judged, description: dict[str, Any]) -> dict[str, Any]:
    """AUROC of each kind of non-digit against the test digits, and the shares that are refused.

    `nondigit_auroc` is the lowest. The redrawn and printed digits have shares alone.
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
def picture(found: Judged, threshold: float) -> Figure:
    """A row for the test digits and for each other kind: some images, and how likely all are."""
    rows = {"test digits": found.digits, **found.kinds}
    figure = Figure((_WIDTH, 0.55 * len(rows) + 0.4))
    panels = figure.subplots(len(rows), 2, sharex="col", width_ratios=(5, 4))
    edges = np.linspace(0, 1, 41)
    for row, (kind, likelihoods) in enumerate(rows.items()):
        left, right = panels[row]
        left.axis("off")
        left.set_title(kind, size=8, pad=2)
        left.imshow(np.hstack(list(found.examples[row])), "gray_r", vmin=0, vmax=255)
        refused = likelihoods < threshold
        color = theme.MUTED if kind not in examples.KINDS else theme.WRONG
        share = np.full(len(likelihoods), 1 / len(likelihoods))
        right.hist(likelihoods, edges, weights=share, color=color)
        right.axvline(threshold, color=theme.INK, lw=0.8)
        right.set(ylim=(0, 1), yticks=[], xlim=(0, 1))
        right.text(0.5, 0.5, f"{refused.mean():.1%} below", size=8, ha="center")
    panels[-1, 1].set_xlabel("likelihood of a digit; the line is the threshold")
    return figure
