import csv

import numpy as np
import pytest

from pipeline.config import paths
from pipeline.data.dataset import Split
from pipeline.training.live_log import LiveLog

SMALL = (
    *("epochs=4", "batch_size=20", "model.filters=4", "model.dense=16"),
    *("augmentation.shift=1", "augmentation.rotation=5"),
    *("model.blocks=[[4],[6]]", "augmentation.elastic=0.5", "augmentation.disturbed=0.25"),
)


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


@pytest.fixture
def fit(training, configured, tensorflow, tmp_path, monkeypatch):
    """Trains a small run 2 as a process of its own would, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides, checkpoint="checkpoint"):
        tensorflow.keras.backend.clear_session()
        tensorflow.keras.utils.set_random_seed(42)
        cfg = configured(2, *SMALL, *overrides)
        return training.fit(cfg, TRAIN, VALIDATION, tmp_path / checkpoint, LiveLog())

    return run


def weights(model):
    return [np.asarray(variable) for variable in model.weights]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


def curve(name):
    with (paths.curves(2) / "plots" / "metrics" / f"{name}.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [(int(row["step"]), float(row[name])) for row in rows]


def cut_off(monkeypatch, training, after):
    """Ends the training like a kill, once `after` epochs are saved."""
    save = training.checkpoints.save

    def save_and_die(path, model, history, best):
        save(path, model, history, best)
        if len(history) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.checkpoints, "save", save_and_die)


def test_it_learns_and_writes_a_row_per_epoch(fit):
    fit("optimizer.learning_rate=0.01")
    assert [step for step, _ in curve("val_accuracy")] == [1, 2, 3, 4]
    assert curve("val_loss")[-1][1] < curve("val_loss")[0][1]
    assert curve("val_accuracy")[-1][1] > 0.5
    assert {path.stem for path in (paths.curves(2) / "plots/metrics").iterdir()} == {
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
    }


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(fit):
    first = fit(checkpoint="a")
    assert equal(first, fit(checkpoint="b"))
    assert not equal(first, fit("seed=7", checkpoint="c"))


def test_a_training_that_was_killed_ends_with_the_same_weights(fit, training, monkeypatch):
    whole = fit("optimizer.schedule=cosine", checkpoint="whole")
    expected = curve("val_loss"), curve("learning_rate")
    for after in (2, 4):
        with monkeypatch.context() as patch:
            cut_off(patch, training, after)
            with pytest.raises(KeyboardInterrupt):
                fit("optimizer.schedule=cosine", checkpoint=f"killed-{after}")
        resumed = fit("optimizer.schedule=cosine", checkpoint=f"killed-{after}")
        assert equal(whole, resumed), after
        assert (curve("val_loss"), curve("learning_rate")) == expected, after


def test_what_is_done_is_not_done_again(fit, training, monkeypatch):
    with monkeypatch.context() as patch:
        cut_off(patch, training, 2)
        with pytest.raises(KeyboardInterrupt):
            fit()
    trained = []
    save = training.checkpoints.save
    monkeypatch.setattr(
        training.checkpoints,
        "save",
        lambda path, model, history, best: (
            trained.append(len(history)),
            save(path, model, history, best),
        ),
    )
    fit()
    assert trained == [3, 4]


def test_early_stopping_keeps_the_best_epoch(fit, training, monkeypatch):
    held = iter([0.5, 0.3, 0.4, 0.35, 0.1])
    seen = []

    def evaluate(self, *_, **__):
        seen.append([np.array(variable) for variable in self.weights])
        return {"loss": next(held), "accuracy": 0.5}

    monkeypatch.setattr(training.keras.Model, "evaluate", evaluate)
    model = fit("epochs=10", "early_stopping.patience=2")
    assert [value for _, value in curve("val_loss")] == [0.5, 0.3, 0.4, 0.35]
    assert all(np.array_equal(a, b) for a, b in zip(weights(model), seen[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights(model), seen[3], strict=True))


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
