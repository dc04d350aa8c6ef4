import csv
import json
import re

import numpy as np
import pytest
from omegaconf import OmegaConf

from pipeline import compare, evaluate
from pipeline.config import PipelineError, paths
from pipeline.evaluation import results, significance
from pipeline.ood import evaluation
from pipeline.reports import tables
from pipeline.storage.files import sha256
from serve.models.predictor import Predictor


@pytest.fixture
def compared_runs(configured):
    """Runs the stage on some runs and returns the content of `reports/comparison.json`."""

    def run_stage(*runs, data="mnist"):
        compare.main(configured(1, f"data={data}", f"runs={list(runs)}"))
        return json.loads(paths.COMPARISON.read_text())

    return run_stage


def test_figures_of_the_best_run_are_flat_and_have_the_promised_names(evaluated, compared_runs):
    evaluated(1, wrong=range(30), val_accuracy=0.8)
    evaluated(3, wrong=range(10), val_accuracy=0.96, val_loss=0.12)
    compared_runs(1, 3)
    metrics = json.loads(paths.METRICS.read_text())
    assert list(metrics) == [
        *("run", "val_accuracy", "val_loss", "test_accuracy", "test_loss"),
        *("ece", "min_recall", "nondigit_auroc", "parameters", "size_bytes"),
    ]
    assert metrics["run"] == 3
    assert metrics["val_accuracy"] == 0.96
    assert metrics["val_loss"] == 0.12
    assert metrics["test_accuracy"] == 0.95


def test_all_runs_are_compared_in_pairs_on_the_same_images(evaluated, compared_runs):
    evaluated(1, wrong=range(0, 30), val_accuracy=0.8)
    evaluated(2, wrong=range(5, 20), val_accuracy=0.9)
    evaluated(4, wrong=range(5, 20), val_accuracy=0.95)
    comparison = compared_runs(4, 1, 2, 2)
    assert comparison["best"] == 4
    assert list(comparison["runs"]) == ["1", "2", "4"]
    assert list(comparison["mcnemar"]) == ["1-2", "1-4", "2-4"]
    first = comparison["mcnemar"]["1-4"]
    assert (first["only_first"], first["only_second"]) == (0, 15)
    assert first["p"] == pytest.approx(2 * 0.5**15)
    assert comparison["mcnemar"]["2-4"] == {"only_first": 0, "only_second": 0, "p": 1.0}
    p = {run: figures["mcnemar_p"] for run, figures in comparison["runs"].items()}
    assert p == {"1": first["p"], "2": 1.0, "4": None}
    for of_run in comparison["runs"].values():
        assert len(of_run["recall"]) == len(of_run["precision"]) == 10
        assert of_run["wilson"][0] < of_run["test_accuracy"] < of_run["wilson"][1]


def test_settings_of_the_best_run_stay_what_they_are(evaluated, compared_runs):
    evaluated(3)
    compared_runs(3)
    assert OmegaConf.to_container(OmegaConf.load(paths.BEST)) == {
        "run": 3,
        "name": "made-up",
        "model": {"filters": 96, "dense": 0},
        "optimizer": {"name": "adam", "learning_rate": 0.002},
        "epochs": 2,
    }
    assert "  learning_rate: 0.002\n" in paths.BEST.read_text()


def test_learning_curves_are_one_table(evaluated, compared_runs):
    evaluated(1)
    evaluated(2)
    compared_runs(1, 2)
    with (paths.PLOTS / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["step"]) for row in rows] == [
        *(("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")),
    ]
    assert rows[0].keys() == {"run", "step", *results.CURVE_METRICS}
    assert float(rows[1]["train_loss"]) == pytest.approx(0.52)


def test_it_writes_the_same_bytes_each_time(evaluated, compared_runs, workspace):
    evaluated(1, wrong=[1, 2])
    evaluated(2, wrong=[5], val_accuracy=0.95)
    (workspace / "reports/data").mkdir()
    (workspace / "reports/data/samples.png").write_bytes(b"\x89PNG")

    def digests():
        compared_runs(1, 2)
        return {path: sha256(path) for path in sorted(workspace.rglob("*")) if path.is_file()}

    first = digests()
    made = {str(path.relative_to(workspace)) for path in first}
    assert made > {
        *("reports/metrics.json", "reports/comparison.json", "reports/best.yaml"),
        *("reports/index.html", "reports/compare/curves.png", "reports/compare/accuracy.png"),
        *("models/champion/model.tflite", "models/champion/model.json"),
        "models/champion/model.int8.tflite",
        *("models/champion/model_card.md", "models/champion/reference.npz"),
    }
    assert digests() == first


def test_the_champion_is_a_bundle_that_serves(trained, configured, compared_runs):
    evaluate.main(configured(3))
    compared_runs(3)
    images, champion = trained.test.images, Predictor(paths.CHAMPION)
    expected = Predictor(paths.model(3)).probabilities(images)
    np.testing.assert_array_equal(champion.probabilities(images), expected)
    metrics = champion.description["metrics"]
    assert (metrics["val_accuracy"], metrics["test_accuracy"]) == (0.9, 0.98)
    assert metrics.keys() == {
        *("val_accuracy", "val_loss", "test_accuracy", "test_loss", "ece", "min_recall"),
        "nondigit_auroc",
    }
    int8 = Predictor(paths.CHAMPION, "int8")
    assert int8.precision == "int8"
    assert int8.description["metrics"].keys() >= {"val_ece", "test_accuracy", "ece"}
    seen = paths.evaluation(3) / "reference.npz"
    assert (paths.CHAMPION / "reference.npz").read_bytes() == seen.read_bytes()
    assert champion.description["reference"] == {"sha256": sha256(seen)}
    likelihood, about, _ = evaluation.load("mnist")
    assert champion.description["likelihood"] == {"sha256": about["sha256"], "threshold": 0.25}
    np.testing.assert_array_equal(champion.likelihoods(images), likelihood(images))


@pytest.fixture
def with_feedback(evaluated):
    """Two evaluated runs whose data had feedback in it."""
    for run, accuracy in ((1, 0.75), (3, 0.8)):
        evaluated(run, wrong=range(5 - run), val_accuracy=0.9 + run / 100)
        path = paths.evaluation(run) / "metrics.json"
        figures = json.loads(path.read_text()) | {
            "feedback_accuracy": accuracy,
            "feedback_images": 40,
            "feedback_wilson": [accuracy - 0.1, accuracy + 0.1],
        }
        path.write_text(json.dumps(figures))


def test_figures_on_feedback_are_in_every_report(with_feedback, compared_runs):
    comparison = compared_runs(1, 3)
    assert [comparison["runs"][run]["feedback_accuracy"] for run in "13"] == [0.75, 0.8]
    for figures in (
        json.loads(paths.METRICS.read_text()),
        json.loads((paths.CHAMPION / "model.json").read_text())["metrics"],
    ):
        assert (figures["feedback_accuracy"], figures["feedback_images"]) == (0.8, 40)
    card = " ".join((paths.CHAMPION / "model_card.md").read_text().split())
    assert "On 40 images of the service's users" in card
    assert "80.00 % right (70.00 % to 90.00 %)" in card
    assert "Nobody else checked them" in card


def test_the_model_card_says_how_good_it_is_and_how_to_verify_it(evaluated, compared_runs):
    evaluated(1, wrong=[8, 18, 28, 33])
    compared_runs(1)
    card = (paths.CHAMPION / "model_card.md").read_text()
    assert "| | |" not in card, "a table without heads"
    assert "98.00 %: 4 misread" in card
    assert "On 200 test images" in card
    low, high = (f"{100 * end:.2f} %" for end in significance.wilson(17, 20))
    assert f"| 8 | 20 | 85.00 % | {low} to {high} | 100.00 % |" in card
    assert "| fog | 51.0 % | 61.0 % | 10.0 % | 20.0 % |" in card
    assert card.count("\n## ") == 8  # Mitchell et al. have nine; of ethics nothing is measured
    assert "label errors" not in card
    assert "The weakest digit is 8: 85.00 %" in card
    assert f'echo "{sha256(paths.CHAMPION / "model.tflite")}  model.tflite" | sha256sum' in card


def test_a_run_of_before_corruptions_were_measured_has_a_card_too(evaluated, compared_runs):
    evaluated(1)
    (paths.evaluation(1) / "corruptions.json").unlink()
    metrics = json.loads((paths.evaluation(1) / "metrics.json").read_bytes())
    metrics.pop("by_precision", None)
    (paths.evaluation(1) / "metrics.json").write_text(json.dumps(metrics))
    tables.show_precisions({"runs": {"1": {}}}, {})
    compared_runs(1)
    assert "orrupt" not in (paths.CHAMPION / "model_card.md").read_text().replace(
        "fifteen corr", ""
    )


def test_the_table_fits_a_narrow_window_and_a_file(evaluated, compared_runs, capsys, monkeypatch):
    for run in (1, 2, 3):
        evaluated(run, wrong=range(run), val_accuracy=0.9 + run / 100)
    comparison = compared_runs(1, 2, 3)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    lines, precisions = printed.splitlines()[:5], printed.splitlines()[5:]
    assert [line.split()[:2] for line in precisions[2:]] == [
        [run, precision] for run in "123" for precision in ("float32", "int8")
    ]
    assert max(map(len, printed.splitlines())) <= 100
    assert "98.50 (95.68\N{EN DASH}99.49)" in lines[-1]
    assert lines[-1].split()[-1] == "best"
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    tables.show(comparison)
    coloured = capsys.readouterr().out
    assert "\x1b[1;32m" in coloured
    *table, more = re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()
    assert max(map(len, table)) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in coloured
    assert "98.50 (95.68\N{EN DASH}99.49)" in table[-1]
    assert more.startswith("(")


def test_under_repro_the_table_is_left_to_register(evaluated, compared_runs, capsys, monkeypatch):
    evaluated(1, name="short")
    monkeypatch.setenv("DVC_STAGE", "compare")
    compared_runs(1)
    assert "val %" not in capsys.readouterr().out
    monkeypatch.setenv("DVC_EXP_NAME", "demo")
    compared_runs(1)
    assert "val %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        (paths.model(2) / "model.tflite", "train run=2"),
        (paths.evaluation(2) / "reference.npz", "evaluate run=2"),
        (paths.evaluation(2) / "mistakes.png", "evaluate run=2"),
        (paths.LIKELIHOOD / "likelihood.tflite", "likelihood"),
    ],
)
def test_what_is_missing_names_the_command_that_makes_it(
    evaluated, compared_runs, missing, command
):
    evaluated(2)
    missing.unlink()
    with pytest.raises(PipelineError, match=rf"{missing}.*pipeline\.{command} data=mnist"):
        compared_runs(2)


def test_a_bare_clone_is_an_error_and_no_traceback(workspace, compared_runs):
    with pytest.raises(PipelineError, match=r"models/runs/1/model\.json.*pipeline\.train run=1"):
        compared_runs(1, 2, 3)
