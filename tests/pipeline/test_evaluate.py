import csv
import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.clones import shared_once

from pipeline import evaluate
from pipeline.config import CONF, PipelineError, paths
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import significance
from pipeline.storage.files import sha256
from serve.models import drift_reference
from serve.models.predictor import Predictor


@pytest.fixture
def cfg(configured):
    return configured(3)


FOLDER = paths.evaluation(3)


@pytest.fixture
def once(cfg, trained, tmp_path_factory):
    """`trained` with what `evaluate` leaves of it, copied from the one time that it ran."""

    def make(folder):
        evaluate.main(cfg)
        FOLDER.rename(folder)

    folder, _ = shared_once(tmp_path_factory, "evaluated", make)
    shutil.copytree(folder, FOLDER)
    return trained


def read_figures():
    return json.loads((FOLDER / "metrics.json").read_text())


def test_figures_are_those_of_the_model_that_is_served(once):
    figures = read_figures()
    assert list(figures)[:5] == ["run", "name", "sha256", "parameters", "size_bytes"]
    assert figures["run"] == 3
    assert figures["name"] == "optimized"
    assert figures["sha256"] == sha256(paths.model(3) / "model.tflite")
    assert figures["size_bytes"] == (paths.model(3) / "model.tflite").stat().st_size
    assert figures["parameters"] == 7840
    assert figures["val_accuracy"] == 0.9
    assert figures["test_accuracy"] == 0.98
    assert figures["errors"] == 2
    assert figures["test_images"] == 100
    assert figures["recall"] == pytest.approx([1] * 8 + [10 / 11, 10 / 11])
    assert figures["min_recall"] == min(figures["recall"])
    assert figures["precision"] == pytest.approx([0.9, 0.9] + [1] * 8)
    assert figures["wilson"] == list(significance.wilson(98, 100))
    assert np.diagonal(figures["confusion"]).sum() == 98
    float32, int8 = figures["by_precision"]["float32"], figures["by_precision"]["int8"]
    assert float32 == {name: figures[name] for name in float32}
    assert int8["test_accuracy"] == 0.98
    assert int8["ece"] > float32["ece"]  # its temperature is twice as high
    assert figures["confusion"][8][0] == figures["confusion"][9][1] == 1


def test_confidences_are_calibrated_by_the_temperature_of_the_model(once):
    with np.load(FOLDER / "predictions.npz") as arrays:
        assert arrays["probabilities"].dtype == np.float32
        np.testing.assert_array_equal(arrays["labels"], once.test.labels)
        # Two lines of 20 pixels of 160, weighted 1 / 2000; the others' logits are 0.
        odds = np.exp(2 * 20 * 160 / 2000 / 1.25)
        assert arrays["probabilities"][0, 0] == pytest.approx(odds / (odds + 9), rel=1e-4)


def test_corrupted_images_are_a_file_and_their_means_are_metrics(once):
    corrupted, figures = json.loads((FOLDER / "corruptions.json").read_text()), read_figures()
    assert len(corrupted["kinds"]) == 15
    assert figures["corrupted_accuracy"] == corrupted["mean"]["accuracy"] < 0.98
    assert figures["corrupted_served_ece"] == corrupted["mean"]["served_ece"]


def test_feedback_is_judged_apart_and_as_the_model_saw_it(cfg, once):
    plain = read_figures()
    assert "feedback" not in str(plain.keys())
    moved = np.roll(once.test.images, 3, axis=1)  # placed anew they would be other digits
    labels = Predictor(paths.model(3)).probabilities(moved).argmax(axis=1).astype(np.uint8)
    assert (labels != np.arange(100) % 10).mean() > 0.8
    labels[:9] = (labels[:9] + 1) % 10
    told = Split(moved, labels, np.arange(100, 200, dtype=np.int32))
    dataset.save(dataclasses.replace(once, feedback=told), paths.processed("mnist"))
    evaluate.main(cfg)
    figures = read_figures()
    added = {
        "feedback_accuracy": 0.91,
        "feedback_images": 100,
        "feedback_wilson": list(significance.wilson(91, 100)),
    }
    assert figures == plain | added


def test_the_surest_mistake_comes_first(once):
    with np.load(FOLDER / "mistakes.npz") as worst:
        assert worst["actual"].tolist() == [8, 9]
        assert worst["predicted"].tolist() == [0, 1]
        assert worst["index"].tolist() == [40, 61]
        assert worst["confidence"][0] > worst["confidence"][1]
        np.testing.assert_array_equal(worst["images"], once.test.images[[40, 61]])


def test_no_more_than_a_sheet_of_mistakes_is_kept():
    wrong = np.eye(10, dtype=np.float32)[np.ones(60, int)]
    split = dataset.Split(
        np.zeros((60, 28, 28), np.uint8), np.zeros(60, np.uint8), np.arange(60, dtype=np.int32)
    )
    assert evaluate.worst_mistakes(wrong, split)["index"].tolist() == list(range(24))


def test_a_faultless_model_is_evaluated_too(cfg, trained):
    keep = np.setdiff1d(np.arange(100), [40, 61])
    test = dataset.Split(*(getattr(trained.test, a)[keep] for a in ("images", "labels", "index")))
    splits = dataset.Splits(trained.train, trained.validation, test)
    dataset.save(splits, paths.processed("mnist"))
    evaluate.main(cfg)
    assert read_figures()["errors"] == 0
    assert (FOLDER / "mistakes.png").exists()


def test_each_test_image_is_in_the_table_for_dvc(once):
    with (FOLDER / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["actual"]) for row in rows] == once.test.labels.tolist()
    assert [row for row in rows if row["actual"] != row["predicted"]] == [
        {"actual": "8", "predicted": "0"},
        {"actual": "9", "predicted": "1"},
    ]


def test_what_drift_is_measured_against_is_of_the_validation_images(once):
    found = drift_reference.read((FOLDER / drift_reference.FILE).read_bytes())
    validation = dataset.load(paths.processed("mnist"), "validation")
    expected = Predictor(paths.model(3)).probabilities(validation.images)
    np.testing.assert_array_equal(found.probabilities, expected)
    np.testing.assert_array_equal(found.features, drift_reference.features(validation.images))


def test_it_writes_the_same_bytes_each_time(cfg, once):
    def digests():
        return {path.name: sha256(path) for path in sorted(FOLDER.iterdir())}

    first = digests()
    assert {"confusion.png", "reliability.png", "mistakes.png", "metrics.json"} < first.keys()
    shutil.rmtree(FOLDER)
    evaluate.main(cfg)
    assert digests() == first


def test_what_differs_each_time_is_kept_apart(cfg, trained, caplog):
    with caplog.at_level(logging.INFO):
        evaluate.main(cfg)
    assert "latency" not in (FOLDER / "metrics.json").read_text()
    timed = json.loads(paths.TIMINGS.read_text())["3"]
    assert 0 < timed["latency_ms_p50"] <= timed["latency_ms_p99"]
    assert 0 < timed["batch_256_ms_p50"] <= timed["batch_256_ms_p99"]
    assert 0 < timed["int8_latency_ms_p50"] <= timed["int8_latency_ms_p99"]
    assert 0 < timed["int8_batch_256_ms_p50"] <= timed["int8_batch_256_ms_p99"]
    assert "run 3 (optimized) misreads 2 of 100 test images" in caplog.text


def test_it_runs_by_hand_and_without_tensorflow(trained):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['evaluate', 'run=3', 'data=mnist']\n"
        "runpy.run_module('pipeline.evaluate', run_name='__main__')\n"
        "unwanted = {'tensorflow', 'keras', 'sklearn', 'mlflow', 'pandas'} & set(sys.modules)\n"
        "assert not unwanted, unwanted\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(CONF.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_figures()["errors"] == 2


def test_a_missing_model_names_the_command_that_makes_it(cfg, workspace):
    with pytest.raises(PipelineError, match=r"models/runs/3.*python -m pipeline.train run=3"):
        evaluate.main(cfg)


def test_a_model_of_other_data_or_with_other_bytes_is_refused(cfg, trained):
    path = paths.model(3) / "model.json"
    path.write_text(path.read_text().replace('"mnist"', '"digits"'))
    with pytest.raises(PipelineError, match="trained on digits"):
        evaluate.main(cfg)
    with (paths.model(3) / "model.tflite").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PipelineError, match=r"not the file that model\.json describes"):
        evaluate.main(cfg)
