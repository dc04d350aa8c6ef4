import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import paths
from pipeline.data.dataset import Split
from pipeline.training.live_log import LiveLog

SMALL = (
    *("epochs=4", "batch_size=40", "model.filters=4", "model.dense=16", "model.blocks=[[4]]"),
    *("optimizer.learning_rate=0.01", "optimizer.schedule=cosine"),
)
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")


@pytest.fixture(scope="module")
def training(tensorflow):
    from pipeline.training import fit as training

    return training


def some(count, seed):
    """Images whose digit is the row that is brightest, in noise."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 10, count).astype(np.uint8)
    images = chance.integers(0, 120, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 3] = 255
    return Split(images, labels, np.arange(count, dtype=np.int32))


TRAIN, VALIDATION = some(400, 1), some(100, 2)


@pytest.fixture(scope="module")
def fit(training, configured, tensorflow):
    """Trains a small run 2 in this folder, as a process of its own would."""

    def run(*overrides, checkpoint=Path("checkpoint")):
        tensorflow.keras.backend.clear_session()
        tensorflow.keras.utils.set_random_seed(42)
        cfg = configured(2, *SMALL, *overrides)
        return training.fit(cfg, TRAIN, VALIDATION, checkpoint, LiveLog())

    return run


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(fit, training, tmp_path_factory):
    """A training: its weights, its curves, and what a kill leaves after each epoch."""
    folder = tmp_path_factory.mktemp("whole")
    save = training.checkpoints.save

    def keep(path, model, history, best):
        save(path, model, history, best)
        shutil.copytree(path, folder / f"killed-{len(history)}")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LIVE_LOG", "0")
        patch.setattr(training.checkpoints, "save", keep)
        model = fit()
        return weights(model), {name: curve(name) for name in CURVES}, folder


def weights(model):
    return [np.asarray(variable) for variable in model.weights]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def curve(name):
    with (paths.curves(2) / "plots" / "metrics" / f"{name}.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [(int(row["step"]), float(row[name])) for row in rows]


def test_it_learns_and_writes_a_row_per_epoch(whole):
    _, curves, folder = whole
    assert [step for step, _ in curves["val_accuracy"]] == [1, 2, 3, 4]
    assert curves["val_loss"][-1][1] < curves["val_loss"][0][1]
    assert curves["val_accuracy"][-1][1] > 0.5
    written = folder / paths.curves(2) / "plots/metrics"
    assert {path.stem for path in written.iterdir()} == set(CURVES)


def test_another_seed_gives_other_weights(fit, whole):
    assert not equal(whole[0], weights(fit("seed=7")))


@pytest.mark.parametrize("after", [2, 4])
def test_a_training_that_was_killed_ends_with_the_same_weights(
    fit, whole, training, monkeypatch, tmp_path, after
):
    expected, curves, folder = whole
    shutil.copytree(folder / f"killed-{after}", tmp_path / "checkpoint")
    save, trained = training.checkpoints.save, []

    def saved(path, model, history, best):
        trained.append(len(history))
        save(path, model, history, best)

    monkeypatch.setattr(training.checkpoints, "save", saved)
    assert equal(expected, weights(fit()))
    assert {name: curve(name) for name in CURVES} == curves
    assert trained == list(range(after + 1, 5))


def test_early_stopping_keeps_the_best_epoch(fit, training, monkeypatch):
    held = iter([0.5, 0.3, 0.4, 0.35, 0.1])
    seen = []

    def evaluate(self, *_, **__):
        seen.append([np.array(variable) for variable in self.weights])
        return {"loss": next(held), "accuracy": 0.5}

    monkeypatch.setattr(training.keras.Model, "evaluate", evaluate)
    model = fit("epochs=10", "early_stopping.patience=2")
    assert [value for _, value in curve("val_loss")] == [0.5, 0.3, 0.4, 0.35]
    assert equal(weights(model), seen[1])
    assert not equal(weights(model), seen[3])


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ([], 2, False),
        ([3.0, 2.0, 1.0], 1, False),
        ([1.0, 2.0], 1, True),
        ([1.0, 2.0], 2, False),
        ([1.0, 1.0, 1.0], 2, True),
        ([1.0, 2.0, 3.0], 0, False),
    ],
)
def test_when_training_stops_early(training, losses, patience, stops):
    assert training.stops_early([{"val_loss": loss} for loss in losses], patience) is stops


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_every_optimizer_can_be_built(training, configured, name, kind):
    model = training.compiled(configured(1, f"optimizer.name={name}"), 10)
    assert type(model.optimizer).__name__ == kind


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_reduced_precision_trains(fit, tensorflow, precision):
    model = fit(f"precision={precision}", "epochs=1")
    assert model.get_layer("convolution").compute_dtype == precision.removeprefix("mixed_")
    assert np.isfinite(curve("val_loss")[0][1])
    tensorflow.keras.config.set_dtype_policy("float32")
