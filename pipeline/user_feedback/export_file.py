"""The exported feedback as a file, and how much of it joins the data set."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.config import rules as config_rules
from pipeline.config.data_schema import Data, Feedback
from pipeline.data.dataset import (
    CLASSES,
    Images,
    Labels,
    Split,
    Splits,
    digit_counts,
    no_images,
)
from pipeline.storage.files import write_arrays

DATA = "mnist_feedback"


class Export(NamedTuple):
    """Images as a model saw them, each once, with their true digits.

    `images`: (n, 28, 28) uint8, digit bright on dark. `labels`: (n,) uint8. `nondigits`: images of
    which users said that they are none of the digits.
    """

    images: Images
    labels: Labels
    nondigits: Images = no_images()

    def __len__(self) -> int:
        return len(self.labels)


def rules() -> Feedback:
    """Return the section `feedback` of `conf/data/mnist_feedback.yaml`."""
    feedback = config_rules.load(f"data/{DATA}.yaml", Data).feedback
    assert feedback
    return feedback


def save(export: Export, path: Path) -> None:
    """Write the export as an uncompressed `.npz`; equal arrays give equal bytes."""
    arrays = export._asdict()
    if not len(export.nondigits):  # files of earlier versions have none
        del arrays["nondigits"]
    write_arrays(path, **arrays)


def load(path: Path) -> Export:
    """Read the file that `save` wrote; PipelineError if it is missing."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Export(**arrays)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: python -m pipeline.fetch data={DATA}") from None


def require(count: int, rules: Feedback, condition: str) -> None:
    """Refuse fewer images than the configuration wants; `condition` says which images count."""
    if count < rules.least:
        raise PipelineError(
            f"{count} images of feedback {condition}, but conf/data/{DATA}.yaml wants "
            f"{rules.least} (feedback.least): collect more and export again, or train on data=mnist"
        )


def join(
    splits: Splits, published: Images, export: Export, rules: Feedback
) -> tuple[Splits, dict[str, Any]]:
    """Add feedback to the training images and hold a part of it out; also return the counts.

    Images that are among the `published` ones stay out: they may be in the validation or test set.
    The hash of each image decides whether it is held out, and which images go when there are too
    many. So the choice stays as feedback grows, and no seed moves it. It is a PipelineError if too
    little is left, or all of it is on one side.
    """
    known = {image.tobytes() for image in published}
    new = np.array([image.tobytes() not in known for image in export.images], bool)
    require(int(new.sum()), rules, "are new (not among MNIST's)")
    draws = np.array([_draw(image) for image in export.images])
    held_out = new & (draws < rules.held_out)
    offered = new & ~held_out
    added = _capped(offered, export.labels, draws, splits.train.labels, rules.largest_share)
    if not held_out.any() or not added.any():
        raise PipelineError(
            f"of {new.sum()} images of feedback {held_out.sum()} are held out and {added.sum()} "
            f"train; neither may be none: see feedback in conf/data/{DATA}.yaml"
        )
    index = (len(published) + np.arange(len(export))).astype(np.int32)
    feedback = Split(export.images, export.labels, index)
    train = splits.train.joined(feedback.where(added))
    counts = {
        "exported": len(export),
        "published": int((~new).sum()),
        "held_out": int(held_out.sum()),
        "above_share": int((offered & ~added).sum()),
        "train": int(added.sum()),
        "train_share": round(int(added.sum()) / len(train), 6),
        "train_digits": digit_counts(export.labels[added]),
        "held_out_digits": digit_counts(export.labels[held_out]),
        "nondigits": len(export.nondigits),
    }
    feedback = feedback.where(held_out)
    return Splits(
        train, splits.validation, splits.test, feedback, nondigits=export.nondigits
    ), counts


def _draw(image: Images) -> float:
    """Return a number from 0 to 1 that looks random but is always the same for an image."""
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:6]) / 2**48


def _capped(
    offered: NDArray[np.bool_],
    labels: Labels,
    draws: NDArray[np.float64],
    training: Labels,
    share: float,
) -> NDArray[np.bool_]:
    """Return a mask of the images to add: per digit those of the highest draws, up to `share`.

    `share` is of the digit's training images after the images are added.
    """
    added = np.zeros_like(offered)
    for digit in range(CLASSES):
        most = int(share / (1 - share) * (training == digit).sum())
        places = np.flatnonzero(offered & (labels == digit))
        added[places[np.argsort(-draws[places], kind="stable")][:most]] = True
    return added
