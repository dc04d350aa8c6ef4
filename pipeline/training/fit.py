"""Model fitting: from a run's settings and two splits to a trained Keras model."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf
from dvclive.live import Live

from pipeline.config import Config, paths
from pipeline.config.terminal import Bar
from pipeline.data.dataset import Split, with_channels
from pipeline.data.preparation import preparation
from pipeline.training import augmentation, checkpoints, networks
from pipeline.training.checkpoints import History
from pipeline.training.learning_rate_schedule import learning_rate_schedule
from pipeline.training.live_log import LiveLog
from serve.imaging.preparation import DIGIT

logger = logging.getLogger(__name__)

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
_VALIDATION_BATCH = 500
_SUMMARY = (
    "  train {train_accuracy:.4f} (loss {train_loss:.4f})"
    "  validation {val_accuracy:.4f} (loss {val_loss:.4f})"
)


def fit(
    cfg: Config, train: Split, validation: Split, checkpoint: Path, live: LiveLog
) -> keras.Model:
    """Return the trained model of `cfg.run`, resumed from `checkpoint` if there is one.

    Writes the curves after each epoch, also to `live`. A resumed training ends with the same
    weights as one that was never interrupted.
    """
    shown = len(train) * (cfg.data.augmentation.repeat or 1)
    steps = augmentation.steps_per_epoch(shown, cfg.batch_size)
    model = compiled(cfg, steps)
    epoch_batches = augmentation.batches(
        train,
        cfg.batch_size,
        augmentation.limits_of(cfg),
        cfg.seed,
        cfg.data.augmentation,
        black=preparation(cfg.data).kind == DIGIT,
    )
    held_out = tf.data.Dataset.from_tensor_slices(
        (with_channels(validation.images), validation.labels)
    )
    held_out = held_out.batch(_VALIDATION_BATCH)
    patience = cfg.early_stopping.patience

    history = checkpoints.restore(checkpoint, model)
    if history:
        logger.info("resumes after epoch %d of %d", len(history), cfg.epochs)
    title, total = f"run {cfg.run} ({cfg.name})", cfg.epochs * steps
    with _curves(cfg.run, history, live) as curves, Bar(title, total) as bar:

        def advance(batch: int, logs: object) -> None:
            bar.move(len(history) * steps + min(batch + 1, steps))

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=advance)
        while len(history) < cfg.epochs and not stops_early(history, patience):
            rate = float(model.optimizer.learning_rate)
            images = epoch_batches(len(history))
            fitted = model.fit(images, shuffle=False, verbose=0, callbacks=[callback]).history
            evaluated = model.evaluate(held_out, verbose=0, return_dict=True)
            history.append(
                {
                    "train_loss": fitted["loss"][0],
                    "train_accuracy": fitted["accuracy"][0],
                    "val_loss": evaluated["loss"],
                    "val_accuracy": evaluated["accuracy"],
                    "learning_rate": rate,
                }
            )
            checkpoints.save(checkpoint, model, history, best=best_epoch(history))
            _log(curves, live, len(history), history[-1])
            summary = _SUMMARY.format(**history[-1])
            bar.console.print(f"epoch {len(history)}/{cfg.epochs}{summary}", soft_wrap=True)
    if patience:
        checkpoints.restore_best(checkpoint, model, best_epoch(history))
        logger.info("keeps epoch %d, the best on validation", best_epoch(history))
    return model


def compiled(cfg: Config, steps_per_epoch: int) -> keras.Model:
    """Return the network of the run with its loss, optimiser and learning-rate schedule."""
    keras.config.set_dtype_policy(cfg.precision.value)
    classes = len(cfg.data.classes)
    model = networks.build(cfg.model, preparation(cfg.data), classes, training=True)
    model.compile(
        _OPTIMIZERS[cfg.optimizer.name.value](learning_rate_schedule(cfg, steps_per_epoch)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # Several steps per call from Python: run 1's steps take 5 ms, so the calls would show.
        steps_per_execution=min(16, steps_per_epoch),
        jit_compile=False,
    )
    # Now, not in the first step: a checkpoint can only be restored into state that exists.
    model.optimizer.build(model.trainable_variables)
    return model


def best_epoch(history: History) -> int:
    """Return the epoch, from 1, with the lowest `val_loss`; the earlier one of equals."""
    losses = [row["val_loss"] for row in history]
    return losses.index(min(losses)) + 1


def stops_early(history: History, patience: int) -> bool:
    """Return whether `patience` epochs have passed since the best one; never for 0."""
    return bool(patience and history) and len(history) - best_epoch(history) >= patience


@contextmanager
def _curves(run: int, history: History, live: LiveLog) -> Iterator[Live]:
    """Open the run's curves, with the epochs before a checkpoint written again."""
    with Live(str(paths.curves(run)), dvcyaml=None, save_dvc_exp=False, report=None) as curves:
        for epoch, row in enumerate(history, 1):
            _log(curves, live, epoch, row)
        yield curves


def _log(curves: Live, live: LiveLog, epoch: int, row: dict[str, float]) -> None:
    curves.step = epoch
    for name, value in row.items():
        curves.log_metric(name, value)
    live.log(epoch, row)
