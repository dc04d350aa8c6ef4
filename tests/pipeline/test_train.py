import json
import re

import numpy as np
import pytest

from pipeline import train
from pipeline.config import paths
from pipeline.data import dataset
from pipeline.storage import files
from serve.models.predictor import Predictor


def test_a_run_is_exported_and_described(built):
    folder = paths.model(3)
    assert {path.name for path in folder.iterdir()} == {
        *("model.weights.h5", "model.tflite", "model.int8.tflite", "model.json")
    }
    described = json.loads((folder / "model.json").read_text())
    assert described["name"] == "optimized"
    assert described["run"] == 3
    assert described["sha256"] == files.sha256(folder / "model.tflite")
    assert described["data"]["sha256"] == files.sha256(paths.processed("mnist"))
    assert described["settings"]["epochs"] == 4
    assert described["settings"]["optimizer"]["learning_rate"] == 0.01
    assert 0.25 <= described["temperature"] <= 4
    default = described["precisions"][described["precision"]]
    assert default["sha256"] == described["sha256"]
    assert default["temperature"] == described["temperature"]
    assert default["metrics"].items() >= described["metrics"].items()
    int8 = described["precisions"]["int8"]
    assert int8["sha256"] == files.sha256(folder / int8["file"])
    assert int8["size_bytes"] < default["size_bytes"] / 2
    assert isinstance(int8["holds"], bool)


def test_its_validation_figures_are_those_of_the_exported_file(built):
    described = json.loads((paths.model(3) / "model.json").read_text())
    validation = dataset.load(paths.processed("mnist"), "validation")
    answers = Predictor(paths.model(3)).probabilities(validation.images)
    accuracy = np.mean(answers.argmax(axis=1) == validation.labels)
    assert described["metrics"]["val_accuracy"] == accuracy
    assert accuracy > 0.9


def test_no_output_holds_a_date_a_time_or_a_path(built):
    described = (paths.model(3) / "model.json").read_text()
    assert not re.search(r"20\d\d-\d\d|seconds|/tmp|/home|/root", described)


def test_its_time_is_kept_apart(built):
    assert json.loads(paths.TIMINGS.read_bytes())["3"]["train_seconds"] > 0


def test_the_checkpoint_is_gone_when_the_model_is_there(built):
    assert not [path for path in (built / ".checkpoints").iterdir() if path.is_dir()]


def test_training_again_gives_the_same_files(built, configured, tensorflow, monkeypatch):
    def files_of(run):
        folders = (paths.model(run), paths.curves(run))
        return {p: p.read_bytes() for f in folders for p in sorted(f.rglob("*")) if p.is_file()}

    before = files_of(1)
    small = ["batch_size=32", "model.filters=8", "optimizer.learning_rate=0.01", "epochs=2"]
    tensorflow.keras.backend.clear_session()
    started = []
    monkeypatch.setattr(train.determinism, "start", lambda *given: started.append(given))
    tensorflow.keras.utils.set_random_seed(42)
    train.main(configured(1, *small))
    once = files_of(1)
    tensorflow.keras.backend.clear_session()
    tensorflow.keras.utils.set_random_seed(42)
    train.main(configured(1, *small))
    assert files_of(1) == once
    assert started == [(42, 2, "float32")] * 2
    assert set(once) == set(before)


def test_without_data_it_says_what_to_do(workspace, configured):
    with pytest.raises(train.dataset.PipelineError, match=r"python -m pipeline\.preprocess"):
        train.main(configured(1))
