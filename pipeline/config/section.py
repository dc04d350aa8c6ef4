"""A section of the configuration, and the limits of its numbers."""

import math
from collections.abc import Callable
from typing import ClassVar

from pipeline.config.errors import PipelineError


def _rules() -> dict[str, tuple[str, Callable[[float], bool]]]:
    """Return for each key of a number what it must be, in words and as a test."""
    positive = "threads batch_size epochs model.contrast model.filters model.kernel model.pool "
    positive += "optimizer.learning_rate data.feedback.least trials processes "
    positive += "data.augmentation.repeat"
    not_negative = "model.dense optimizer.warmup_epochs early_stopping.patience "
    not_negative += "augmentation.rotation augmentation.shift augmentation.shear "
    not_negative += "augmentation.elastic pruner.startup_trials pruner.warmup_epochs"
    rates = "model.dropout model.dense_dropout"
    shares = "augmentation.stroke_width augmentation.blurred augmentation.disturbed "
    shares += "augmentation.drawn"
    return {
        **dict.fromkeys(positive.split(), ("positive", lambda value: value > 0)),
        **dict.fromkeys(not_negative.split(), ("0 or positive", lambda value: value >= 0)),
        **dict.fromkeys(rates.split(), ("from 0 to 0.9", lambda rate: 0 <= rate <= 0.9)),
        "seed": ("from 0 to 2147483647", lambda seed: 0 <= seed < 2**31),
        **dict.fromkeys(
            ("data.input.height", "data.input.width"),
            ("from 8 to 512 pixels", lambda side: 8 <= side <= 512),
        ),
        "data.input.channels": ("1 (grey) or 3 (colour)", lambda channels: channels in (1, 3)),
        "data.augmentation.flip": ("from 0 to 0.5", lambda share: 0 <= share <= 0.5),
        "data.augmentation.colour": ("from 0 to 1", lambda share: 0 <= share <= 1),
        **dict.fromkeys(shares.split(), ("from 0 to 1", lambda share: 0 <= share <= 1)),
        "augmentation.zoom": ("0 or positive, and below 1", lambda zoom: 0 <= zoom < 1),
        # Something stays on both sides, and what was published outweighs feedback.
        "data.feedback.held_out": ("above 0, at most 0.9", lambda share: 0 < share <= 0.9),
        "data.feedback.largest_share": ("above 0, at most 0.5", lambda share: 0 < share <= 0.5),
    }


_RULES = _rules()


def require(condition: bool, key: str, words: str, value: object) -> None:
    """Refuse a value that breaks a rule, with a message that names the key."""
    if not condition:
        raise PipelineError(f"{key} must be {words}, not {value}")


class Section:
    """A part of the configuration; refuses numbers out of their range when it is made."""

    prefix: ClassVar[str]  # of its keys

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (rule := _RULES.get(self.prefix + name)):
                words, allowed = rule
                require(math.isfinite(value), self.prefix + name, "finite", value)
                require(allowed(value), self.prefix + name, words, value)
