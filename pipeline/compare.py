"""Sets the runs beside each other and names the best: `python -m pipeline.compare`."""

from __future__ import annotations

import csv
import json
import logging
from itertools import combinations
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.config import Config, paths, stage
from pipeline.evaluation import results, significance
from pipeline.evaluation.results import CURVE_METRICS, Result
from pipeline.reports import html, plots, tables, theme
from pipeline.storage.files import replacing, sha256, write_json

logger = logging.getLogger(__name__)

METRICS = (
    *("run", "val_accuracy", "val_loss", "test_accuracy", "test_loss"),
    *("ece", "min_recall", "nondigit_auroc", "parameters", "size_bytes"),
)
_DETAILS = ("name", "test_images", "errors", "wilson", "recall", "precision")
_TEST_METRICS = ("test_accuracy", "test_loss", "ece", "min_recall", "nondigit_auroc")
_FEEDBACK_METRICS = ("feedback_accuracy", "feedback_images")  # where feedback is part of the data
_PICKS = ("seed", "threads", "data")  # columns of `dvc exp show` already, from params.yaml


def main(cfg: Config) -> None:
    """Compares the runs of `cfg.runs` and makes the best one the champion."""
    warn_of_leftovers(cfg.runs)
    runs = results.read(cfg.runs, cfg.data.name)
    comparison = comparison_of(runs)
    best_run = comparison["best"]
    best = runs[best_run]

    write_json(
        paths.METRICS, {key: best.metrics[key] for key in METRICS} | feedback_metrics(best.metrics)
    )
    write_json(paths.COMPARISON, comparison)
    write_settings(paths.BEST, best.model)
    write_curves(paths.PLOTS / "curves.csv", runs)
    write_curves(paths.PLOTS / "best_curves.csv", {best_run: best})
    draw(paths.PLOTS, runs)
    show_best(paths.PLOTS, paths.evaluation(best_run))
    write_bundle(paths.CHAMPION, paths.model(best_run), paths.evaluation(best_run), best)
    write_page(paths.PAGE, comparison, runs)
    tables.show(comparison)


def warn_of_leftovers(runs: list[int]) -> None:
    """Says which folders belong to no run of `params.yaml`: DVC hashes them with the others."""
    for folder in (paths.MODELS, paths.EVALUATIONS, paths.CURVES):
        for path in sorted(folder.iterdir()):
            if path.name not in map(str, runs):
                logger.warning("%s is no run of params.yaml, but in dvc.lock: rm -r %s", path, path)


def feedback_metrics(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures on the users' feedback, if there are any."""
    return {key: figures[key] for key in _FEEDBACK_METRICS if key in figures}


def best_of(figures: dict[int, dict[str, Any]]) -> int:
    """The run with the highest validation accuracy; of equals the lower loss, the lower run."""

    def rank(run: int) -> tuple[float, float, int]:
        return -figures[run]["val_accuracy"], figures[run]["val_loss"], run

    return min(figures, key=rank)


def comparison_of(runs: dict[int, Result]) -> dict[str, Any]:
    """The content of `reports/comparison.json`; pairs of runs as "1-2", the lower one first."""
    best = best_of({run: result.metrics for run, result in runs.items()})
    pairs = {
        (first, second): significance.mcnemar(runs[first].right, runs[second].right)
        for first, second in combinations(runs, 2)
    }
    against_best = {sum(pair) - best: found.p for pair, found in pairs.items() if best in pair}
    return {
        "best": best,
        "runs": {
            str(run): {
                **{key: result.metrics[key] for key in (*METRICS, *_DETAILS)},
                **feedback_metrics(result.metrics),
                "mcnemar_p": against_best.get(run),
            }
            for run, result in runs.items()
        },
        "mcnemar": {f"{first}-{second}": d._asdict() for (first, second), d in pairs.items()},
    }


def write_settings(path: Path, model: dict[str, Any]) -> None:
    """Writes what made the best run, as parameters that DVC shows beside its figures."""
    chosen = {key: value for key, value in model["settings"].items() if key not in _PICKS}
    with replacing(path) as temporary:
        OmegaConf.save({"run": model["run"], "name": model["name"], **chosen}, temporary)


def write_curves(path: Path, runs: dict[int, Result]) -> None:
    """Writes the learning curves of the runs as one table in long form."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "step", *CURVE_METRICS))
        for run, result in runs.items():
            columns = (result.curves[name] for name in ("step", *CURVE_METRICS))
            writer.writerows((run, *row) for row in zip(*columns, strict=True))


def draw(folder: Path, runs: dict[int, Result]) -> None:
    """Draws what sets the runs apart."""
    curves = {run: result.curves for run, result in runs.items()}
    figures = {run: result.metrics for run, result in runs.items()}
    theme.save(plots.learning_curves(curves, "accuracy", "loss"), folder / "curves.png")
    # Apart on the page, so that a phone shows one below the other.
    for metric in ("accuracy", "loss"):
        theme.save(plots.learning_curves(curves, metric), folder / f"curves_{metric}.svg")
    intervals = plots.accuracy_intervals(figures)
    theme.save(intervals, folder / "accuracy.png", folder / "accuracy.svg")


def show_best(folder: Path, evaluation: Path) -> None:
    """Copies the best run's plots to where `dvc plots` finds them, whichever run that is."""
    for name in ("confusion.csv", "likelihood.png", "mistakes.png", "reliability.png"):
        with replacing(folder / f"best_{name}") as temporary:
            temporary.write_bytes((evaluation / name).read_bytes())


def write_bundle(folder: Path, source: Path, evaluation: Path, best: Result) -> None:
    """Writes what is registered and served: the model, its description with test figures, its card.

    With the likelihood of a digit, which is one for all runs, and what drift is measured against.
    The card follows Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
    """
    tested = {key: best.metrics[key] for key in _TEST_METRICS} | feedback_metrics(best.metrics)
    likelihood = {key: best.metrics["likelihood"][key] for key in ("sha256", "threshold")}
    description = best.model | {
        "metrics": best.model["metrics"] | tested,
        "likelihood": likelihood,
        "reference": {"sha256": sha256(evaluation / "reference.npz")},
    }
    card = html.fill("card.md.j2", {"model": description, "figures": best.metrics})
    for file in (
        source / "model.tflite",
        paths.LIKELIHOOD / "likelihood.tflite",
        evaluation / "reference.npz",
    ):
        with replacing(folder / file.name) as temporary:
            temporary.write_bytes(file.read_bytes())
    write_json(folder / "model.json", description)
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(card)


def write_page(path: Path, comparison: dict[str, Any], runs: dict[int, Result]) -> None:
    """Writes the page, from what was drawn and what `preprocess` found in the data."""
    drawings = {path.stem: path.read_text() for path in sorted(paths.PLOTS.glob("*.svg"))}
    refusals = (paths.PLOTS / "best_likelihood.png").read_bytes()
    page = html.render(comparison, runs, drawings, data_report(paths.DATA_REPORT), refusals)
    with replacing(path) as temporary:
        temporary.write_text(page)


def data_report(folder: Path) -> dict[str, Any]:
    """What `preprocess` wrote about the data; without its report the page goes without it."""
    report: dict[str, Any] = {}
    if (folder / "statistics.json").exists():
        report["statistics"] = json.loads((folder / "statistics.json").read_bytes())
    if (folder / "samples.png").exists():
        report["samples"] = (folder / "samples.png").read_bytes()
    return report


if __name__ == "__main__":
    stage(main)()
