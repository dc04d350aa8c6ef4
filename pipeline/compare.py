"""Compare the runs and make the best one the champion: `python -m pipeline.compare`."""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.config import Config, PipelineError, environment, paths, stage
from pipeline.evaluation import latency, results, significance
from pipeline.evaluation.results import CURVE_METRICS, Result
from pipeline.reports import html, pairwise, plots, tables, theme
from pipeline.reports.pairwise import Candidate
from pipeline.storage.files import read_json, replacing, sha256, write, write_csv, write_json

logger = logging.getLogger(__name__)

METRICS = (
    *("run", "val_accuracy", "val_loss", "test_accuracy", "test_loss"),
    *("ece", "min_recall", "nondigit_auroc", "parameters", "size_bytes"),
)
_DETAILS = ("name", "test_images", "errors", "wilson", "recall", "precision")
_TEST_METRICS = ("test_accuracy", "test_loss", "ece", "min_recall", "nondigit_auroc")
_FEEDBACK_METRICS = ("feedback_accuracy", "feedback_images")  # where feedback is part of the data
_OF_THE_SCORE = ("score", "sha256", "threshold", "offset", "scale")
_PARAMS = ("seed", "threads", "data")  # columns of `dvc exp show` already, from params.yaml


def main(cfg: Config) -> None:
    """Compare the runs of `cfg.runs` and make the best one the champion."""
    warn_of_leftovers(cfg.runs)
    runs = results.read(cfg.runs, cfg.data.name)
    candidates = pairwise.of_runs(runs)
    best = candidates[0].result
    best_run = best.model["run"]
    comparison = compare_runs(runs, best_run)

    paths.COMPARISON.unlink(missing_ok=True)  # written last: if it is there, so is what it names
    write_json(paths.METRICS, selected(best.metrics, METRICS))
    write_settings(paths.BEST, best.model)
    write_curves(paths.PLOTS / "curves.csv", runs)
    write_curves(paths.PLOTS / "best_curves.csv", {best_run: best})
    evaluate = results.EVALUATE.format(run=best_run, data=cfg.data.name)
    for name in ("confusion.csv", "likelihood.png", "mistakes.png", "reliability.png"):
        copy(paths.evaluation(best_run) / name, paths.PLOTS / f"best_{name}", evaluate)
    write_bundle(paths.CHAMPION, best, cfg.data.name)
    write_page(paths.PAGE, candidates, registered=bool(cfg.data.registered_model))
    drawn = sorted(candidates, key=lambda candidate: candidate.place)
    theme.save(plots.learning_curves(drawn, "accuracy", "loss"), paths.PLOTS / "curves.png")
    theme.save(plots.accuracy_intervals(drawn), paths.PLOTS / "accuracy.png")
    write_json(paths.COMPARISON, comparison)
    if environment.under_repro():  # `register` follows and shows the table
        logger.info("the best is run %d (%s)", best_run, best.model["name"])
    else:
        tables.show(comparison)
        tables.show_precisions(comparison, latency.recorded())


def warn_of_leftovers(runs: list[int]) -> None:
    """Log the folders that belong to no run of `params.yaml`: DVC hashes them with the others."""
    for folder in (paths.MODELS, paths.EVALUATIONS, paths.CURVES):
        for path in sorted(folder.glob("*")):
            if path.name not in map(str, runs):
                logger.warning("%s is no run of params.yaml, but in dvc.lock: rm -r %s", path, path)


def selected(metrics: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the named metrics and those on the users' feedback, if there are any."""
    on_feedback = [name for name in _FEEDBACK_METRICS if name in metrics]
    return {name: metrics[name] for name in (*names, *on_feedback)}


def compare_runs(runs: dict[int, Result], best: int) -> dict[str, Any]:
    """Return the content of `reports/comparison.json`.

    Pairs of runs are named "1-2", the lower one first. Their p values are not corrected.
    """
    pairs = {
        (first, second): significance.mcnemar(runs[first].right, runs[second].right)
        for first, second in combinations(runs, 2)
    }
    against_best = {sum(pair) - best: found.p for pair, found in pairs.items() if best in pair}
    return {
        "best": best,
        "runs": {
            str(run): {
                **selected(result.metrics, (*METRICS, *_DETAILS)),
                "by_precision": result.metrics.get("by_precision", {}),
                "mcnemar_p": against_best.get(run),
            }
            for run, result in runs.items()
        },
        "mcnemar": {f"{first}-{second}": d._asdict() for (first, second), d in pairs.items()},
    }


def write_settings(path: Path, model: dict[str, Any]) -> None:
    """Write the settings of the best run, as parameters that DVC shows beside its metrics."""
    settings = {key: value for key, value in model["settings"].items() if key not in _PARAMS}
    with replacing(path) as temporary:
        OmegaConf.save({"run": model["run"], "name": model["name"], **settings}, temporary)


def write_curves(path: Path, runs: dict[int, Result]) -> None:
    """Write the learning curves of the runs as one table in long form."""
    names = ("step", *CURVE_METRICS)
    rows = (
        (run, *row)
        for run, result in runs.items()
        for row in zip(*(result.curves[name] for name in names), strict=True)
    )
    write_csv(path, ("run", *names), rows)


def copy(source: Path, target: Path, command: str) -> None:
    """Copy a file; if it is missing, a PipelineError names the `command` that makes it."""
    if not source.exists():
        raise PipelineError(f"{source} is missing: {command}")
    write(target, source.read_bytes())


def write_bundle(folder: Path, best: Result, data: str) -> None:
    """Write what is registered and served: model, description with test metrics, model card.

    With the out-of-distribution network, if the data set has one for all runs, and the drift
    reference.
    """
    run = best.model["run"]
    train, evaluate = (c.format(run=run, data=data) for c in (results.TRAIN, results.EVALUATE))
    reference = paths.evaluation(run) / "reference.npz"
    precisions = best.model.get("precisions", {})
    models = dict.fromkeys(["model.tflite", *(each["file"] for each in precisions.values())])
    sources = [*((paths.model(run) / file, train) for file in models), (reference, evaluate)]
    score = best.metrics["likelihood"]
    (folder / paths.NETWORK.name).unlink(missing_ok=True)  # of another data set
    if "sha256" in score:
        likelihood = f"python -m pipeline.likelihood data={data}"
        sources.append((paths.NETWORK, likelihood))
    for source, command in sources:
        copy(source, folder / source.name, command)
    tested = selected(best.metrics, _TEST_METRICS)
    description = best.model | {
        "metrics": best.model["metrics"] | tested,
        "precisions": {
            name: about
            | {"metrics": about["metrics"] | best.metrics.get("by_precision", {}).get(name, {})}
            for name, about in precisions.items()
        },
        "likelihood": {name: score[name] for name in _OF_THE_SCORE if name in score},
        "reference": {"sha256": sha256(reference)},
    }
    write_json(folder / "model.json", description)
    (folder / "README.md").unlink(missing_ok=True)  # the card of an earlier version
    write(folder / "model_card.md", model_card(description, best))


def model_card(description: dict[str, Any], best: Result) -> str:
    """Return the model card in Markdown, from measured figures alone."""
    confusion = best.metrics["confusion"]
    content = {
        "model": description,
        "figures": best.metrics,
        "corruptions": best.corruptions,
        "intervals": [
            significance.wilson(row[place], sum(row)) if sum(row) else (0, 1)
            for place, row in enumerate(confusion)
        ],
        "splits": read_json(paths.DATA_REPORT / "statistics.json"),
        "noun": theme.noun_of(best.model),
    }
    return html.fill("card.md.j2", content)


def write_page(path: Path, candidates: Sequence[Candidate], *, registered: bool) -> None:
    """Write the page, with what `preprocess` reported about the data, if it did."""
    extras: dict[str, Any] = {
        "registered": registered,
        "ood": (paths.PLOTS / "best_likelihood.png").read_bytes(),
        "statistics": read_json(paths.DATA_REPORT / "statistics.json"),
    }
    if (file := paths.DATA_REPORT / "samples.png").exists():
        extras["samples"] = file.read_bytes()
    tests = pairwise.compare_pairs([candidates])
    page = html.models_page("run", [candidates], tests, "python -m pipeline.compare", extras)
    write(path, page)


if __name__ == "__main__":
    stage(main)()
