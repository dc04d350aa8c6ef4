"""The users' feedback as a file, and how much of it joins the data set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Data, Feedback, PipelineError
from pipeline.config import rules as config_rules
from pipeline.data.dataset import CLASSES, SIDE, Images, Labels, Split, Splits
from pipeline.storage.files import replacing

DATA = "mnist_feedback"
EXPORT = "python -m pipeline.feedback <STATE_DIR>/feedback.db"


class Corrections(NamedTuple):
    """Images as a model saw them, each once, and what they show.

    `images`: (n, 28, 28) uint8, digit bright on dark. `labels`: (n,) uint8.
    """

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


def rules() -> Feedback:
    """What `conf/data/mnist_feedback.yaml` says of feedback."""
    feedback = config_rules.load(f"data/{DATA}.yaml", Data).feedback
    assert feedback
    return feedback


def save(corrections: Corrections, path: Path) -> None:
    """Writes an uncompressed `.npz`: its bytes depend on nothing but the arrays."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, images=corrections.images, labels=corrections.labels)


def load(path: Path) -> Corrections:
    """What `save` wrote.

    Raises:
        PipelineError: it is missing, or no images with their digits.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = Corrections(arrays["images"], arrays["labels"])
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: python -m pipeline.fetch data={DATA}") from None
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise PipelineError(f"{path} is no export of feedback ({error}): {EXPORT}") from error
    images, labels = found
    fits = images.shape == (len(labels), SIDE, SIDE) and labels.shape == (len(labels),)
    if not (fits and images.dtype == labels.dtype == np.uint8 and (labels < CLASSES).all()):
        raise PipelineError(f"{path} holds other arrays than images and digits: {EXPORT}")
    return found


def require(count: int, rules: Feedback, what: str) -> None:
    """Refuses to go on with too little.

    Raises:
        PipelineError: there are fewer images than the configuration wants.
    """
    if count < rules.least:
        raise PipelineError(
            f"{count} images of feedback {what}, but conf/data/{DATA}.yaml wants {rules.least} "
            "(feedback.least): collect more and export again, or train on data=mnist"
        )


def joined(
    splits: Splits, published: Images, told: Corrections, rules: Feedback
) -> tuple[Splits, dict[str, Any]]:
    """The splits with feedback among the training images and a part held out; and the figures.

    Images that are `published` stay out: they could be of the validation or test set. Which images
    are held out, and which are left when there are too many, is decided by each image's own hash:
    the choice stays as feedback grows, and no seed moves it.

    Raises:
        PipelineError: what is left is too little, or all of it on one side.
    """
    known = {image.tobytes() for image in published}
    new = np.array([image.tobytes() not in known for image in told.images], bool)
    require(int(new.sum()), rules, "are new (not among MNIST's)")
    draws = np.array([_draw(image) for image in told.images])
    held_out = new & (draws < rules.held_out)
    offered = new & ~held_out
    taken = _at_most(offered, told.labels, draws, splits.train.labels, rules.largest_share)
    if not held_out.any() or not taken.any():
        raise PipelineError(
            f"of {new.sum()} images of feedback {held_out.sum()} are held out and {taken.sum()} "
            f"train; neither may be none: see feedback in conf/data/{DATA}.yaml"
        )

    def part(chosen: NDArray[np.bool_]) -> Split:
        index = len(published) + np.flatnonzero(chosen)
        return Split(told.images[chosen], told.labels[chosen], index.astype(np.int32))

    train, added = splits.train, part(taken)
    grown = Split(
        np.concatenate([train.images, added.images]),
        np.concatenate([train.labels, added.labels]),
        np.concatenate([train.index, added.index]),
    )
    figures = {
        "exported": len(told),
        "published": int((~new).sum()),
        "held_out": int(held_out.sum()),
        "above_share": int((offered & ~taken).sum()),
        "train": int(taken.sum()),
        "train_share": round(int(taken.sum()) / len(grown), 6),
        "train_digits": _per_digit(told.labels[taken]),
        "held_out_digits": _per_digit(told.labels[held_out]),
    }
    return Splits(grown, splits.validation, splits.test, part(held_out)), figures


def _draw(image: Images) -> float:
    """A number from 0 to 1 that looks drawn, always the same for the same image."""
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:6]) / 2**48


def _at_most(
    offered: NDArray[np.bool_],
    labels: Labels,
    draws: NDArray[np.float64],
    training: Labels,
    share: float,
) -> NDArray[np.bool_]:
    """Where an image is taken: of each digit the highest draws, up to the share of its images."""
    taken = np.zeros_like(offered)
    for digit in range(CLASSES):
        most = int(share / (1 - share) * (training == digit).sum())
        places = np.flatnonzero(offered & (labels == digit))
        taken[places[np.argsort(-draws[places], kind="stable")][:most]] = True
    return taken


def _per_digit(labels: Labels) -> dict[str, int]:
    return {str(d): int(n) for d, n in enumerate(np.bincount(labels, minlength=CLASSES))}
