"""Learning-rate schedule: a linear warm-up, then a constant rate or cosine decay."""

from keras.optimizers.schedules import CosineDecay

from pipeline.config import Config
from pipeline.config.schema import Schedule


def learning_rate_schedule(cfg: Config, steps_per_epoch: int) -> CosineDecay:
    """Return the learning rate of each step; cosine decay ends at 0.

    After Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    peak = cfg.optimizer.learning_rate
    warmup = round(cfg.optimizer.warmup_epochs * steps_per_epoch)
    return CosineDecay(
        0.0 if warmup else peak,
        max(1, cfg.epochs * steps_per_epoch - warmup),
        # The share of the peak that is left at the end: a constant rate keeps all of it.
        alpha=1.0 if cfg.optimizer.schedule is Schedule.constant else 0.0,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
