"""What tests of several stages stand on: a real small model, and runs that look evaluated."""

import hashlib
import json
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from support.clones import shared_once
from support.experiments_repo import Laboratory
from support.litert_file import litert_file

from pipeline import compare, evaluate, fetch, likelihood, preprocess, train
from pipeline.config import CONF, paths
from pipeline.data import dataset
from pipeline.data.dataset import SIDE, Split, Splits
from pipeline.evaluation.results import CURVE_METRICS
from pipeline.ood import evaluation, examples
from pipeline.registry import mlflow_runs
from pipeline.robustness import measures
from pipeline.storage.files import write_arrays, write_csv, write_json
from pipeline.training import determinism
from serve.models import drift_reference


@pytest.fixture(autouse=True)
def _not_live(monkeypatch):
    """Trainings in these tests' own process are not shown live."""
    monkeypatch.setenv("LIVE_LOG", "0")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty folder to run stages in."""
    (tmp_path / "params.yaml").write_bytes((CONF.parent / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An MLflow store to copy; to make its tables takes seconds."""

    def make(folder):
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            patch.delenv("DVC_ROOT", raising=False)
            patch.chdir(folder)
            mlflow_runs.connect()

    folder, _ = shared_once(tmp_path_factory, "empty_store", make)
    return folder / "mlflow.db"


def description(run, name, content, **settings):
    """`model.json` as `train` writes it."""
    return {
        "name": name,
        "run": run,
        "classes": list(range(10)),
        "input": {"shape": [28, 28, 1], "dtype": "uint8", "polarity": "bright digit on dark"},
        "output": "logits",
        "precision": "float32",
        "sha256": hashlib.sha256(content).hexdigest(),
        "temperature": 1.25,
        "parameters": 7840,
        "metrics": {"val_accuracy": 0.9, "val_loss": 0.3},
        "precisions": {
            precision: {
                "file": file,
                "sha256": hashlib.sha256(content).hexdigest(),
                "temperature": temperature,
                "metrics": {"val_accuracy": 0.9, "val_loss": 0.3, "val_ece": 0.1},
            }
            for precision, file, temperature in (
                ("float32", "model.tflite", 1.25),
                ("int8", "model.int8.tflite", 2.5),
            )
        },
        "data": {"name": "mnist", "sha256": "ab" * 32},
        "settings": {
            "seed": 42,
            "threads": 2,
            "data": "mnist",
            "model": {"filters": 32 * run, "dense": 0},
            "optimizer": {"name": "adam", "learning_rate": 0.002},
            "epochs": 2,
            **settings,
        },
    }


def write_curves(run):
    folder = paths.curves(run) / "plots" / "metrics"
    folder.mkdir(parents=True)
    for place, metric in enumerate(CURVE_METRICS):
        rows = "".join(f"{epoch}\t{0.5 + 0.01 * (epoch + place)}\n" for epoch in (1, 2))
        (folder / f"{metric}.tsv").write_text(f"step\t{metric}\n{rows}")


def write_likelihood(content, threshold=0.25):
    """What `likelihood` leaves, but for its images."""
    digest = hashlib.sha256(content).hexdigest()
    about = {"data": "mnist", "sha256": digest, "threshold": threshold}
    write_json(paths.LIKELIHOOD / "likelihood.json", about)
    (paths.LIKELIHOOD / "likelihood.tflite").write_bytes(content)
    return about


def ood_metrics(description):
    """OOD metrics, as `evaluate` has them."""
    some = np.linspace(0, 1, 8, dtype=np.float32)
    kinds = dict.fromkeys((*examples.KINDS, *examples.DIGITS), some / 2)
    return evaluation.metrics(evaluation.Scores(some, kinds, []), description)


@pytest.fixture
def evaluated(workspace) -> Callable[..., None]:
    """Writes what `train` and `evaluate` leave of a run that misreads the test images `wrong`."""

    def write(run, *, wrong=(), val_accuracy=0.9, val_loss=0.3, images=200, name="made-up"):
        labels = (np.arange(images) % 10).astype(np.uint8)
        answers = labels.copy()
        answers[list(wrong)] = (answers[list(wrong)] + 1) % 10
        probabilities = np.full((images, 10), 0.02, np.float32)
        probabilities[np.arange(images), answers] = np.linspace(0.7, 0.82, images)
        pixels = np.random.default_rng(run).integers(0, 256, (images, SIDE, SIDE), np.uint8)
        test = Split(pixels, labels, np.arange(images, dtype=np.int32))
        content = f"model {run}".encode()
        bundle, folder = paths.model(run), paths.evaluation(run)
        model = description(run, name, content)
        write_json(bundle / "model.json", model)
        for file in ("model.tflite", "model.int8.tflite"):
            (bundle / file).write_bytes(content)
        write_curves(run)
        both = {"float32": probabilities, "int8": probabilities}
        figures = {"by_precision": evaluate.by_precision(bundle, both, test)}
        figures |= evaluate.identity(model, bundle) | evaluate.test_metrics(probabilities, test)
        figures |= {"val_accuracy": val_accuracy, "val_loss": val_loss}
        figures |= ood_metrics(write_likelihood(b"a likelihood"))
        write_json(folder / "metrics.json", figures)
        each = measures.Figures(0.5 + run / 100, 0.1, 0.6 + run / 100, 0.2, 0.05)._asdict()
        kinds = dict.fromkeys(measures.KINDS, each)
        write_json(folder / "corruptions.json", {"images": images, "kinds": kinds, "mean": each})
        write_arrays(folder / "predictions.npz", probabilities=probabilities, labels=labels)
        worst = evaluate.worst_mistakes(probabilities, test)
        write_arrays(folder / "mistakes.npz", **worst)
        taken = drift_reference.build(pixels, probabilities)
        write_arrays(folder / drift_reference.FILE, **taken._asdict())
        pairs = zip(labels, answers, strict=True)
        write_csv(folder / "confusion.csv", ("actual", "predicted"), pairs)
        (folder / "confusion.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
        for picture in ("likelihood", "mistakes", "reliability"):
            (folder / f"{picture}.png").write_bytes(b"a picture")

    return write


@pytest.fixture
def laboratory(workspace, evaluated):
    """A repository to keep experiments in."""
    return Laboratory(workspace, evaluated)


@pytest.fixture(scope="session")
def pipeline_run(tensorflow, configured, tmp_path_factory):
    """A folder in which runs 1 and 3 went through the stages: real models of few, easy images.

    The images are scikit-learn's digits under the name of MNIST, because only that is registered.
    """
    from pipeline.ood import score_network

    small = ["batch_size=32", "model.filters=8", "optimizer.learning_rate=0.01"]
    distortions = ("elastic", "stroke_width", "blurred", "disturbed", "drawn")
    deep = ["epochs=4", "model.blocks=[[16],[16]]"]
    deep += [f"augmentation.{name}=0" for name in distortions]

    def make(folder):
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(determinism, "start", lambda *_: None)  # by `tensorflow`
            patch.setattr(score_network, "_STEPS", 60)
            patch.setattr(examples, "_MAX_DIGITS", 600)
            patch.setattr(examples, "_EVALUATED", 20)
            patch.setattr(measures, "IMAGES", 20)
            patch.setenv("LIVE_LOG", "0")
            for main in (fetch.main, preprocess.main):
                main(configured(1, "data=digits"))
            paths.processed("digits").rename(paths.processed("mnist"))
            likelihood.main(configured(1))
            for run, *more in ((1, "epochs=2"), (3, *deep)):
                for main in (train.main, evaluate.main):
                    main(configured(run, *small, *more))
            compare.main(configured(1, "runs=[1,3]"))

    folder, _ = shared_once(tmp_path_factory, "pipeline_run", make)
    return folder


@pytest.fixture
def built(pipeline_run, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(pipeline_run, tmp_path / "built")
    monkeypatch.chdir(tmp_path / "built")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "built"


@pytest.fixture
def stored(built, empty_store):
    """The same with an MLflow store."""
    shutil.copy(empty_store, built)
    return built


@pytest.fixture(scope="session")
def litert(tensorflow) -> bytes:
    """A real LiteRT file: digit d's logit grows with the brightness of rows 13 - d and 14 + d."""
    weights = np.zeros((SIDE, SIDE, 10), np.float32)
    for digit in range(10):
        weights[[13 - digit, 14 + digit], :, digit] = 1 / 2000
    flat = weights.reshape(-1, 10)
    return litert_file(tensorflow, lambda pixels: pixels @ tensorflow.constant(flat))


@pytest.fixture
def trained(workspace, litert, brightness, monkeypatch) -> Splits:
    """Run 3 as `train` leaves it, and its data: a digit is two bright lines, some are mislabelled.

    Of 30 validation images 3 cannot be read right, of 100 test images 2: an 8 read as 0 that is
    as bright as can be, and a 9 read as 1 that is dim.
    """

    def split(count, mislabelled):
        shown = np.arange(count) % 10
        images = np.zeros((count, SIDE, SIDE), np.uint8)
        for image, digit in zip(images, shown, strict=True):
            image[[13 - digit, 14 + digit], 4:24] = 160  # placed as MNIST's: it stays as it is
        labels = shown.copy()
        for place, label in mislabelled.items():
            labels[place] = label
        return Split(images, labels.astype(np.uint8), np.arange(count, dtype=np.int32))

    test = split(100, {40: 8, 61: 9})
    test.images[40] = np.where(test.images[40] > 0, 255, 0)
    test.images[61] = np.where(test.images[61] > 0, 130, 0)
    splits = Splits(split(10, {}), split(30, {0: 5, 1: 5, 2: 5}), test)
    dataset.save(splits, paths.processed("mnist"))
    write_likelihood(brightness)
    write_arrays(
        paths.ood_examples("mnist"),
        **dict.fromkeys(examples.KINDS, test.images[:20] // 4),
        **dict.fromkeys(examples.DIGITS, test.images[:20]),
    )
    monkeypatch.setattr(measures, "IMAGES", 10)
    bundle = paths.model(3)
    bundle.mkdir(parents=True)
    for file in ("model.tflite", "model.int8.tflite"):
        (bundle / file).write_bytes(litert)
    (bundle / "model.json").write_text(json.dumps(description(3, "optimized", litert)))
    write_curves(3)
    return splits
