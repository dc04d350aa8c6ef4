"""Training proper: from a run's settings and two splits to a trained Keras model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf
from dvclive.live import Live
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.config import Config, Schedule, paths
from pipeline.data.dataset import Split
from pipeline.training import augmentation, checkpoints, networks
from pipeline.training.checkpoints import History

logger = logging.getLogger(__name__)

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
_VALIDATION_BATCH = 500


def fit(cfg: Config, train: Split, validation: Split, checkpoint: Path) -> keras.Model:
    """The trained model of `cfg.run`, from where `checkpoint` left off.

    Writes the curves after each epoch. A training that goes on in another process ends with the
    weights that an undisturbed one would have.
    """
    per_epoch = augmentation.steps(len(train), cfg.batch_size)
    model = compiled(cfg, per_epoch)
    epoch_batches = augmentation.stream(train, cfg.batch_size, cfg.augmentation, cfg.seed)
    held_out = tf.data.Dataset.from_tensor_slices((validation.images[..., None], validation.labels))
    held_out = held_out.batch(_VALIDATION_BATCH)
    patience = cfg.early_stopping.patience

    history = checkpoints.restore(checkpoint, model)
    if history:
        logger.info("goes on after epoch %d of %d", len(history), cfg.epochs)
    with _curves(cfg.run, history) as curves, _display() as display:
        while len(history) < cfg.epochs and not stopped(history, patience):
            rate = float(model.optimizer.learning_rate)
            title = f"run {cfg.run} ({cfg.name}), epoch {len(history) + 1}/{cfg.epochs}"
            bar = _bar(display, title, per_epoch)
            images = epoch_batches(len(history))
            fitted = model.fit(images, shuffle=False, verbose=0, callbacks=[bar]).history
            held = model.evaluate(held_out, verbose=0, return_dict=True)
            history.append(
                {
                    "train_loss": fitted["loss"][0],
                    "train_accuracy": fitted["accuracy"][0],
                    "val_loss": held["loss"],
                    "val_accuracy": held["accuracy"],
                    "learning_rate": rate,
                }
            )
            checkpoints.save(checkpoint, model, history, best=best_epoch(history))
            _record(curves, len(history), history[-1])
            display.console.print(_line(len(history), cfg.epochs, history[-1]), soft_wrap=True)
    if patience:
        checkpoints.restore_best(checkpoint, model, best_epoch(history))
        logger.info("keeps epoch %d, the best on validation", best_epoch(history))
    return model


def compiled(cfg: Config, per_epoch: int) -> keras.Model:
    """The network of the run with its loss, optimiser and schedule."""
    keras.config.set_dtype_policy(cfg.precision.value)
    model = networks.build(cfg.model, training=True)
    model.compile(
        _OPTIMIZERS[cfg.optimizer.name.value](learning_rate(cfg, per_epoch)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # Several steps per call from Python: at run 1's 5 ms a step, the calls would show.
        steps_per_execution=min(16, per_epoch),
        jit_compile=False,
    )
    # Now, not in the first step: a checkpoint can only be restored into state that exists.
    model.optimizer.build(model.trainable_variables)
    return model


def learning_rate(cfg: Config, per_epoch: int) -> keras.optimizers.schedules.CosineDecay:
    """The rate of each step: a linear warm-up, then constant or half a cosine down to 0.

    After Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    peak, warmup = cfg.optimizer.learning_rate, round(cfg.optimizer.warmup_epochs * per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else peak,
        max(1, cfg.epochs * per_epoch - warmup),
        # The share of the peak that is left at the end: a constant rate keeps all of it.
        alpha=1.0 if cfg.optimizer.schedule is Schedule.constant else 0.0,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )


def best_epoch(history: History) -> int:
    """The epoch, from 1, with the lowest `val_loss`; the earlier one of equals."""
    losses = [row["val_loss"] for row in history]
    return losses.index(min(losses)) + 1


def stopped(history: History, patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; never if `patience` is 0."""
    return bool(patience and history) and len(history) - best_epoch(history) >= patience


@contextmanager
def _curves(run: int, history: History) -> Iterator[Live]:
    folder = str(paths.curves(run))
    with Live(folder, dvcyaml=None, save_dvc_exp=False, report=None) as live:
        for epoch, row in enumerate(history, 1):
            _record(live, epoch, row)
        yield live


def _record(live: Live, epoch: int, row: dict[str, float]) -> None:
    live.step = epoch
    for name, value in row.items():
        live.log_metric(name, value)


def _display() -> Progress:
    """A bar per epoch on a terminal, nothing but what is printed elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(highlight=False)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _bar(display: Progress, title: str, steps: int) -> keras.callbacks.Callback:
    """Moves a new bar of `display` with the steps of an epoch."""
    for finished in display.task_ids:
        display.remove_task(finished)
    task = display.add_task(title, total=steps)

    def advance(batch: int, logs: object) -> None:
        display.update(task, completed=min(batch + 1, steps))

    return keras.callbacks.LambdaCallback(on_train_batch_end=advance)


def _line(epoch: int, epochs: int, row: dict[str, float]) -> str:
    return (
        f"epoch {epoch}/{epochs}  train {row['train_accuracy']:.4f} (loss {row['train_loss']:.4f})"
        f"  validation {row['val_accuracy']:.4f} (loss {row['val_loss']:.4f})"
    )
