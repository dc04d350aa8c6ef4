"""Score a model on pictures of your own: `python -m pipeline.score FOLDER`.

A command, not a stage: it reads a folder or a zip as the service reads what it receives. Of
pictures in one folder per class it reports how well; of others it writes the predictions alone.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import PipelineError, cli, paths
from pipeline.config.terminal import Bar
from pipeline.evaluation import metrics, significance
from pipeline.reports import html, tables
from pipeline.reports.tables import Column
from pipeline.scoring import page, pictures
from pipeline.scoring.page import Scored
from pipeline.scoring.pictures import LIMITS
from pipeline.storage.files import replacing, write, write_json
from serve.models.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

OUT = Path("reports/score")
FORMATS = ("csv", "parquet")

_NAMED = 5  # refused pictures in the terminal
_WIDTH = 80  # characters of it


def main(arguments: list[str]) -> None:
    """Write predictions, and of labelled pictures metrics and a page; print the summary."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.score")
    parser.description = "Score a model on pictures of your own, read as the service reads them."
    meaning = "a folder or .zip of pictures; in one folder per class (0 to 9) they are labelled"
    parser.add_argument("source", type=Path, metavar="FOLDER", help=meaning)
    bundle = "the model's folder (default: %(default)s)"
    parser.add_argument("--bundle", type=Path, default=paths.CHAMPION, help=bundle)
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the predictions")
    given = parser.parse_args(arguments)

    predictor = opened(given.bundle)
    check_out(given.out)
    with pictures.opened(given.source) as (names, read):
        scored = score(names, read, predictor)
        written = write_predictions(given.out, scored.table, given.format)
        found = measure(scored) if len(scored.places) else None
        if found:
            found |= {key: predictor.description.get(key) for key in ("run", "name", "sha256")}
            write_json(given.out / "metrics.json", found)
            about = {
                "source": pictures.shown(str(given.source)),
                "bundle": str(given.bundle),
                "command": pictures.shown(
                    shlex.join(["python", "-m", "pipeline.score", *arguments])
                ),
                "likelihood": predictor.likelihood and float(predictor.likelihood.threshold),
            }
            write(given.out / "index.html", page.fill(scored, found, about, read))
            written = ["index.html", *written, "metrics.json"]
    show(scored, found)
    logger.info("\n%s: %s", given.out, ", ".join(written))


def opened(bundle: Path) -> Predictor:
    """Return the model of `bundle`, or raise a PipelineError."""
    remedy = "make repro makes the champion, --bundle names the folder of another model"
    if not (bundle / "model.json").is_file():
        raise PipelineError(f"{bundle} has no model: {remedy}")
    try:
        return Predictor(bundle)
    except BundleError as error:
        raise PipelineError(f"{error}: {remedy}") from error


def score(names: list[str], read: pictures.Read, predictor: Predictor) -> Scored:
    """Return what the model says of the pictures, as the service would."""
    classes = predictor.description["classes"]
    probabilities = np.full((len(names), len(classes)), np.nan, np.float32)
    likelihoods = np.full(len(names), np.nan, np.float32)
    details: list[str | None] = []
    with Bar("reading", len(names)) as bar:
        for chunk in pictures.inputs(names, read):
            reasons = [found if isinstance(found, str) else None for found in chunk]
            if images := [found for found in chunk if not isinstance(found, str)]:
                places = [len(details) + i for i, reason in enumerate(reasons) if reason is None]
                stacked = np.stack(images)
                probabilities[places] = predictor.probabilities(stacked)
                likelihoods[places] = predictor.likelihoods(stacked)
            details += reasons
            bar.move(len(details))
    labels = np.array(pictures.labels(names, [str(each) for each in classes]))
    refused = np.isnan(probabilities[:, 0])
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    threshold = predictor.likelihood.threshold if predictor.likelihood else np.float32(0)
    table = pd.DataFrame(  # the columns are named as in the results of serve.client
        {
            "file": [pictures.shown(name) for name in names],
            "label": pd.Series([classes[n] if n >= 0 else None for n in labels], dtype=object),
            "prediction": pd.Series([classes[n] for n in predicted], dtype=object).mask(refused),
            "confidence": confidence,
            "uncertain": pd.Series(
                confidence < np.float32(LIMITS.confidence_threshold), dtype="boolean"
            ).mask(refused),
            "digit_likelihood": likelihoods,
            "not_digit": pd.Series(likelihoods < threshold, dtype="boolean").mask(refused),
            "detail": pd.Series(details, dtype=object),
        }
    )
    table[["label", "prediction"]] = table[["label", "prediction"]].convert_dtypes()
    known = np.flatnonzero((labels >= 0) & ~refused)
    truth = labels[known].astype(np.uint8)
    return Scored(names, table, [str(each) for each in classes], known, truth, probabilities[known])


def check_out(folder: Path) -> None:
    """Make the folder; refuse one with the files of something else, which would be replaced."""
    if not any((folder / f"predictions.{each}").exists() for each in FORMATS):
        for name in ("index.html", "metrics.json"):
            if (folder / name).exists():
                raise PipelineError(f"--out {folder} has another {name}: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"--out {folder}: {error.strerror}: name another folder") from error


def write_predictions(folder: Path, table: pd.DataFrame, file_format: str) -> list[str]:
    """Write the table in place of what an earlier run left; return the name of the file."""
    for name in (*(f"predictions.{each}" for each in FORMATS), "metrics.json", "index.html"):
        (folder / name).unlink(missing_ok=True)
    with replacing(folder / f"predictions.{file_format}") as temporary:
        if file_format == "csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    return [f"predictions.{file_format}"]


def measure(scored: Scored) -> dict[str, Any]:
    """Return metrics of the pictures with a known class, named as in `evaluate`.

    All but `pictures`, `refused` and `accuracy_with_refused` are of those that were read.
    """
    labels, probabilities, table = scored.labels, scored.probabilities, scored.table
    predicted = probabilities.argmax(axis=1).astype(np.uint8)
    confusion = metrics.confusion_matrix(labels, predicted, len(scored.classes))
    right = confusion.diagonal().tolist()
    counts = list(zip(right, confusion.sum(axis=1).tolist(), strict=True))
    flagged = (table["uncertain"] | table["not_digit"]).fillna(False).to_numpy(bool)
    wrong = scored.places[predicted != labels]
    known = table[table["label"].notna()]
    return {
        "accuracy": sum(right) / len(labels),
        "wilson": significance.wilson(sum(right), len(labels)),
        "loss": metrics.log_loss(probabilities, labels),
        "ece": metrics.calibration_error(metrics.reliability(probabilities, labels)),
        "accuracy_with_refused": sum(right) / len(known),
        "images": len(labels),
        "errors": len(wrong),
        "pictures": len(known),
        "unlabelled": len(table) - len(known),
        "refused": int(known["detail"].notna().sum()),
        "uncertain": int(known["uncertain"].sum()),
        "not_digit": int(known["not_digit"].sum()),
        "flagged": int(flagged[scored.places].sum()),
        "flagged_errors": int(flagged[wrong].sum()),
        "classes": scored.classes,
        "recall": [r / n if n else None for r, n in counts],
        "recall_wilson": [significance.wilson(*pair) if pair[1] else None for pair in counts],
        "precision": metrics.precision(confusion).tolist(),
        "confusion": confusion.tolist(),
    }


def show(scored: Scored, found: dict[str, Any] | None) -> None:
    """Print the summary in 80 columns."""
    table, lines = scored.table, {}
    refused = table[table["detail"].notna()]
    if found:
        low, high = map(tables.hundredths, found["wilson"])
        share, count = tables.hundredths(found["accuracy"]), f"{found['images']:,}"
        logger.info("%s %% of %s digits read right (95 %%: %s to %s)\n", share, count, low, high)
        show_classes(found)
        pairs = html.confused(found["confusion"])
        named = [f"{scored.classes[a]} as {scored.classes[b]} ({n:,})" for a, b, n in pairs]
        lines["misread"] = f"{found['errors']:,}, {found['flagged_errors']:,} of them flagged"
        lines["most often"] = ", ".join(named) or "none"
        lines["ECE"] = f"{tables.hundredths(found['ece'])} %"
    else:
        read = table["prediction"].value_counts().sort_index()
        logger.info("%s of %s pictures read", f"{read.sum():,}", f"{len(table):,}")
        lines = {f"read as {name}": f"{number:,}" for name, number in read.items()}
    counts = {flag: table[flag].sum() for flag in ("uncertain", "not_digit")}
    counts["refused"] = len(refused)
    for name in counts:
        count = found[name] if found else counts[name]
        lines[name.replace("_d", " a d")] = f"{count:,}"
    if found and found["refused"]:
        as_wrong = tables.hundredths(found["accuracy_with_refused"])
        lines["refused"] += f", so {as_wrong} % right of all"
    if unlabelled := int(table["label"].isna().sum()):
        lines["no label"] = f"{unlabelled:,}: a folder named by its class labels a picture"
    logger.info("")
    for name, text in lines.items():
        logger.info("%-13s%s", name, text)
    for name, why in refused[["file", "detail"]].head(_NAMED).itertuples(index=False):
        line = f"  {name}: {why}"
        logger.info("%s", line if len(line) <= _WIDTH else f"  …{line[3 - _WIDTH :]}")
    if len(refused) > _NAMED:
        more = f"{len(refused) - _NAMED:,}"
        logger.info("  … and %s more: the column `detail` of the predictions", more)


def show_classes(found: dict[str, Any]) -> None:
    """Print a row per class."""
    rows = [place for place, share in enumerate(found["recall"]) if share is not None]
    intervals = [tuple(map(tables.hundredths, found["recall_wilson"][row])) for row in rows]
    columns = [
        Column("pictures", [f"{sum(found['confusion'][row]):,}" for row in rows]),
        Column("right", [f"{found['confusion'][row][row]:,}" for row in rows]),
        Column("right %", [tables.hundredths(found["recall"][row]) for row in rows]),
        Column("95 % interval", [f"{low}\N{EN DASH}{high}" for low, high in intervals]),
    ]
    least = min(found["recall"][row] for row in rows)
    styles = ["bold" if found["recall"][row] == least < 1 else "" for row in rows]
    tables.show_named([found["classes"][row] for row in rows], columns, styles, title="digit")


if __name__ == "__main__":
    cli.run(main)
