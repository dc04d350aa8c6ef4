"""Stage `preprocess`: split the published images in three, and report on the splits."""

import hashlib
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, PipelineError, paths, stage
from pipeline.config.schema import Data, Format
from pipeline.data import dataset
from pipeline.data.dataset import CLASSES, NAMES, SIDE, Images, Labels, Split, Splits
from pipeline.reports.sample_sheet import sample_sheet
from pipeline.storage.files import sha256, write, write_csv, write_json
from pipeline.storage.idx import read_idx
from pipeline.user_feedback import export_file
from serve.imaging.placement import centre_digit

log = logging.getLogger(__name__)

Index = NDArray[np.int32]


class Published(NamedTuple):
    """A data set in the order of its files; the last `own_test` images are its test set."""

    images: Images
    labels: Labels
    own_test: int


def main(cfg: Config) -> None:
    """Split the raw files, and write `data/processed/` and the report on it."""
    name, report = cfg.data.name, paths.DATA_REPORT
    published = read(paths.raw(name), cfg.data)
    splits = split(published, cfg.data.split.validation, cfg.data.split.test, cfg.seed)
    splits, feedback = with_feedback(splits, published.images, cfg.data)
    dataset.save(splits, paths.processed(name))

    data_set = {"data": name, "seed": cfg.seed, "sha256": sha256(paths.processed(name))}
    parts = {part: statistics(getattr(splits, part)) for part in NAMES}
    write_json(report / "statistics.json", data_set | parts | feedback)
    write_classes(splits, report / "classes.csv")
    write(report / "samples.png", sample_sheet(splits, name, cfg.seed))
    counts = ", ".join(f"{len(getattr(splits, part)):,} {part}" for part in NAMES)
    log.info("%s: %s images; report: %s", paths.processed(name), counts, report)


def read(folder: Path, data: Data) -> Published:
    """Read the raw files as 28x28 images; PipelineError if one is missing or they do not fit."""
    try:
        published = _idx(folder, data) if data.format is Format.idx else _csv(folder, data)
    except FileNotFoundError as error:
        fix = f"python -m pipeline.fetch data={data.name}"
        raise PipelineError(f"{error.filename} is missing: {fix}") from None
    images, labels, _ = published
    if images.shape != (len(labels), SIDE, SIDE):
        raise PipelineError(f"{folder}: images {images.shape} for {len(labels)} labels")
    if len(labels) and labels.max() >= CLASSES:
        raise PipelineError(f"{folder}: label {labels.max()} is no digit")
    return published


def _idx(folder: Path, data: Data) -> Published:
    """Read MNIST's four files, found by the beginnings of their names."""

    def array(role: str) -> NDArray[np.uint8]:
        name = next((name for name in data.files if name.startswith(role)), None)
        if name is None:
            raise PipelineError(f"conf/data/{data.name}.yaml names no file {role}…")
        return read_idx((folder / name).read_bytes(), name)

    images = np.concatenate([array("train-images"), array("t10k-images")])
    own_test = array("t10k-labels")
    return Published(images, np.concatenate([array("train-labels"), own_test]), len(own_test))


def _csv(folder: Path, data: Data) -> Published:
    """Read rows of 64 pixels from 0 to 16 and a digit; the images are placed as MNIST's are."""
    rows = np.concatenate(
        [np.loadtxt(folder / name, np.uint8, delimiter=",", ndmin=2) for name in data.files]
    )
    if rows.shape[1:] != (65,) or rows[:, :64].max() > 16:
        raise PipelineError(f"{folder}: rows must be 64 pixels from 0 to 16 and a digit")
    greys = (rows[:, :64] * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8)
    return Published(np.stack([centre_digit(grey) for grey in greys]), rows[:, 64], own_test=0)


def split(published: Published, validation: int, test: int, seed: int) -> Splits:
    """Return stratified splits in the order of the files; PipelineError if a size is impossible.

    `validation`, `test`: numbers of images; `test` is 0 for data with a test set of its own.
    """
    images, labels, own_test = published
    if bool(test) == bool(own_test):
        raise PipelineError(
            f"data.split.test is {test}, but the data set has {own_test} test images of its own: "
            "one of the two must be 0, the other not"
        )
    index = np.arange(len(labels), dtype=np.int32)
    rest, tested = np.split(index, [len(index) - own_test])
    if test:
        rest, tested = hold_out(rest, labels, test, seed, "data.split.test")
    train, validated = hold_out(rest, labels, validation, seed, "data.split.validation")
    return Splits(*(Split(images[i], labels[i], i) for i in (train, validated, tested)))


def hold_out(index: Index, labels: Labels, size: int, seed: int, field: str) -> tuple[Index, Index]:
    """Return the positions left and `size` positions held out, stratified by digit.

    A PipelineError names the configuration's `field` if not every digit could be in both.
    """
    most = len(index) - CLASSES
    if not CLASSES <= size <= most:
        raise PipelineError(
            f"{field} is {size}, but must be from {CLASSES} (one per digit) to {most} "
            f"(of {len(index)} images, leave one per digit)"
        )
    from sklearn.model_selection import train_test_split  # takes 1.5 s to import

    try:
        parts = train_test_split(index, test_size=size, stratify=labels[index], random_state=seed)
    except ValueError as error:
        raise PipelineError(f"{field} is {size}, seed is {seed}: {error}") from error
    left, held_out = (np.sort(part) for part in parts)
    return left, held_out


def with_feedback(
    splits: Splits, published: Images, data: Data
) -> tuple[Splits, dict[str, dict[str, Any]]]:
    """Add the users' feedback, if the data set has it; also return its part of the report."""
    if not data.feedback:
        return splits, {}
    export = export_file.load(paths.raw(data.name) / paths.FEEDBACK.name)
    joined, counts = export_file.join(splits, published, export, data.feedback)
    log.info(
        "%(exported)d images of feedback: %(train)d for training, %(held_out)d held out, "
        "%(above_share)d above the share of their digit, %(published)d published images",
        counts,
    )
    return joined, {"feedback": counts}


def statistics(split: Split) -> dict[str, object]:
    """Return counts, and the mean, deviation and `ink` (share above 0) of pixels from 0 to 1."""
    shades = np.zeros(256, np.int64)  # a histogram: the pixels as floats would take 340 MB
    for image in split.images:
        shades += np.bincount(image.ravel(), minlength=256)
    share, pixel = shades / shades.sum(), np.arange(256) / 255
    mean = share @ pixel
    content = b"".join(array.tobytes() for array in (split.images, split.labels, split.index))
    return {
        "count": len(split),
        "digits": dataset.digit_counts(split.labels),
        "mean": round(float(mean), 6),
        "std": round(float(np.sqrt(share @ (pixel - mean) ** 2)), 6),
        "ink": round(float(1 - share[0]), 6),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def write_classes(splits: Splits, path: Path) -> None:
    """Write the number of images per split and digit, and their share of the split."""
    labels = {name: getattr(splits, name).labels for name in NAMES}
    rows = (
        (name, digit, count, round(count / len(labels[name]), 6))
        for name in NAMES
        for digit, count in dataset.digit_counts(labels[name]).items()
    )
    write_csv(path, ("split", "digit", "count", "share"), rows)


if __name__ == "__main__":
    stage(main)()
