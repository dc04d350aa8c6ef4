"""Train one run and export it: `python -m pipeline.train run=3`."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config, paths, settings, stage
from pipeline.data import dataset, pen_strokes
from pipeline.data.dataset import Split
from pipeline.data.preparation import preparation
from pipeline.evaluation import latency
from pipeline.storage.files import sha256, write_json
from pipeline.training import determinism, precisions
from pipeline.training.live_log import LiveLog, Training, live_log
from serve.imaging import placement
from serve.imaging.preparation import DIGIT, Preparation
from serve.models.predictor import FILES, FLOAT32, INT8

if TYPE_CHECKING:
    import keras


def main(cfg: Config) -> None:
    """Train, calibrate, export and describe the model of `cfg.run`."""
    with live_log() as live:
        train_and_export(cfg, live)


def train_and_export(cfg: Config, live: LiveLog) -> None:
    """Write the outputs of the stage, and tell `live` of the training."""
    source, target = paths.processed(cfg.data.name), paths.model(cfg.run)
    train, validation = dataset.load(source, "train"), dataset.load(source, "validation")
    determinism.start(cfg.seed, cfg.threads, cfg.precision.value)
    # These import TensorFlow, which must find seed and threads set.
    from pipeline.training import checkpoints, fit

    started = time.monotonic()
    # A checkpoint of other code is not resumed.
    here = Path(__file__).parent
    digest = sha256(source)
    drawing = [*(here / "data").glob("pen_strokes.*"), Path(placement.__file__)]
    code = [
        here / "data" / "dataset.py",
        *sorted(drawing),
        *sorted((here / "training").glob("*.py")),
    ]
    checkpoint = checkpoints.folder(settings(cfg), [source, *code])
    with checkpoints.claimed(checkpoint):
        shutil.rmtree(target, ignore_errors=True)  # or it would stand beside curves of another
        training = (cfg.run, cfg.name, cfg.data.name, digest, settings(cfg))
        live.start(Training(str(checkpoint), *training))
        joined = train.joined(drawn(cfg, len(train))) if cfg.data.digits else train
        trained = fit.fit(cfg, joined, validation, checkpoint, live)
        seconds = time.monotonic() - started
        export(cfg, trained, train, validation, target, digest)
        checkpoints.discard(checkpoint)
        live.end("FINISHED")  # before another training can have the checkpoint
    latency.record(cfg.run, train_seconds=seconds)


def drawn(cfg: Config, images: int) -> Split:
    """Return the digits that are drawn in addition to the data set's images."""
    return pen_strokes.split(round(cfg.augmentation.drawn * images), cfg.seed)


def input_of(prepared: Preparation) -> dict[str, Any]:
    """Return `input` of `model.json`, which `Preparation.of` reads."""
    digit = prepared.kind == DIGIT
    more = {"polarity": "digit bright on dark"} if digit else {"preparation": prepared.kind}
    return {"shape": list(prepared.shape), "dtype": "uint8", **more}


def export(
    cfg: Config, trained: keras.Model, train: Split, validation: Split, target: Path, digest: str
) -> None:
    """Write the model in the folder `target`; `digest` is that of its data."""
    from pipeline.training import litert_export, networks

    prepared, labels = preparation(cfg.data), cfg.data.labels
    model = networks.for_inference(trained, cfg.model, prepared, len(labels))
    images = litert_export.range_images(train.images, cfg.seed)
    models = {FLOAT32: litert_export.to_litert(model), INT8: litert_export.to_litert(model, images)}
    litert_export.check_parity(model, models[FLOAT32], validation.images)
    described = precisions.describe(models, validation)
    default = described[FLOAT32]
    metrics = {name: default["metrics"][name] for name in ("val_accuracy", "val_loss")}

    target.mkdir(parents=True)
    model.save_weights(target / "model.weights.h5")
    for precision, content in models.items():
        (target / FILES[precision]).write_bytes(content)
    write_json(
        target / "model.json",
        {
            "name": cfg.name,
            "run": cfg.run,
            "classes": labels,
            "input": input_of(prepared),
            "output": "logits",
            "precision": FLOAT32,
            "sha256": default["sha256"],
            "temperature": default["temperature"],
            "parameters": model.count_params(),
            "metrics": metrics,
            "precisions": described,
            "data": {"name": cfg.data.name, "sha256": digest},
            "settings": settings(cfg),
        },
    )


if __name__ == "__main__":
    stage(main)()
