"""Stage `preprocess`: split the published images in three, and report on the splits."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, PipelineError, paths, stage
from pipeline.config.data_schema import Data, Format
from pipeline.data import dataset
from pipeline.data.dataset import NAMES, Images, Labels, Split, Splits
from pipeline.data.preparation import preparation
from pipeline.reading import arrays
from pipeline.reading import folder as pictures
from pipeline.reading.prepared import prepared
from pipeline.reading.published import Published, require_classes
from pipeline.reading.splits import split
from pipeline.reports.sample_sheet import sample_sheet
from pipeline.storage.files import sha256, write, write_csv, write_json
from pipeline.user_feedback import export_file

log = logging.getLogger(__name__)


def main(cfg: Config) -> None:
    """Split the raw files, and write `data/processed/` and the report on it."""
    name, report = cfg.data.name, paths.DATA_REPORT
    published = read(paths.raw(name), cfg.data)
    splits = split(published, cfg.data, cfg.seed)
    splits, feedback = with_feedback(splits, published.images, cfg.data)
    dataset.save(splits, paths.processed(name))

    data_set = {"data": name, "seed": cfg.seed, "sha256": sha256(paths.processed(name))}
    parts = {part: statistics(getattr(splits, part), cfg.data.classes) for part in NAMES}
    write_json(report / "statistics.json", data_set | parts | feedback)
    write_classes(splits, cfg.data.classes, report / "classes.csv")
    write(report / "samples.png", sample_sheet(splits, cfg.data, cfg.seed))
    counts = ", ".join(f"{len(getattr(splits, part)):,} {part}" for part in NAMES)
    log.info("%s: %s images; report: %s", paths.processed(name), counts, report)


def read(folder: Path, data: Data) -> Published:
    """Read the raw files as images as the service sees them.

    It is a PipelineError if a file is missing, or the files do not fit the configuration.
    """
    if missing := [name for name in data.files if not (folder / name).exists()]:
        fix = f"python -m pipeline.fetch data={data.name}"
        raise PipelineError(f"{folder / missing[0]} is missing: {fix}")
    prepare = preparation(data)
    if data.format is Format.folder:
        published = pictures.read(folder, data, prepare)
    else:
        pixels, labels, own_test = arrays.read(folder, data)
        published = Published(prepared(pixels, prepare, folder), labels, own_test)
    require_classes(published, data, folder)
    return published


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


def statistics(split: Split, classes: list[str]) -> dict[str, object]:
    """Return counts, and the mean, deviation and `ink` (share above 0) of pixels from 0 to 1."""
    shades = np.zeros(256, np.int64)  # a histogram: the pixels as floats would take 340 MB
    for image in split.images:
        shades += np.bincount(image.ravel(), minlength=256)
    share, pixel = shades / shades.sum(), np.arange(256) / 255
    mean = share @ pixel
    digest = hashlib.sha256()
    for part in (*split.images, split.labels, split.index):
        digest.update(part.tobytes())
    return {
        "count": len(split),
        "classes": _counts(split.labels, classes),
        "mean": round(float(mean), 6),
        "std": round(float(np.sqrt(share @ (pixel - mean) ** 2)), 6),
        "ink": round(float(1 - share[0]), 6),
        "sha256": digest.hexdigest(),
    }


def _counts(labels: Labels, classes: list[str]) -> dict[str, int]:
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))


def write_classes(splits: Splits, classes: list[str], path: Path) -> None:
    """Write the number of images per split and class, and their share of the split."""
    labels = {name: getattr(splits, name).labels for name in NAMES}
    rows = (
        (name, label, count, round(count / len(labels[name]), 6))
        for name in NAMES
        for label, count in _counts(labels[name], classes).items()
    )
    write_csv(path, ("split", "class", "count", "share"), rows)


if __name__ == "__main__":
    stage(main)()
