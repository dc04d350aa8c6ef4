"""Experiments on the same test images: which is better, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import LEVEL, Discordance
from pipeline.evaluation.results import Result
from pipeline.reports import tables
from pipeline.storage.dvc_experiments import Experiment

MOST = 12  # in one comparison: what letters, colours and readers can tell apart


@dataclass(frozen=True)
class Contender:
    """The best run of an experiment, the images it was tested on, its place in the comparison."""

    experiment: Experiment
    result: Result
    test: Split
    place: int = 0

    @property
    def name(self) -> str:
        """That of the experiment."""
        return self.experiment.name

    @property
    def letter(self) -> str:
        """What sentences and pictures call it."""
        return ascii_uppercase[self.place]


def ranked(contenders: Iterable[Contender]) -> list[list[Contender]]:
    """The contenders by the images they were tested on, each group from the best to the worst.

    The best has the highest validation accuracy; of equals the lower loss. Groups come in the
    order of their best.
    """
    groups: list[list[Contender]] = []
    for contender in sorted(contenders, key=_rank):
        for group in groups:
            if _same(group[0].test, contender.test):
                group.append(contender)
                break
        else:
            groups.append([contender])
    places = iter(range(sum(map(len, groups))))
    return [[replace(contender, place=next(places)) for contender in group] for group in groups]


def _rank(contender: Contender) -> tuple[float, float, str]:
    figures = contender.result.figures
    return -figures["val_accuracy"], figures["val_loss"], contender.name


def _same(first: Split, second: Split) -> bool:
    return np.array_equal(first.images, second.images) and np.array_equal(
        first.labels, second.labels
    )


def labels(groups: Sequence[Sequence[Contender]]) -> list[str]:
    """What tells each group's test images from the others', in as few words as do."""
    first = [group[0] for group in groups]
    names: list[str] = [c.result.model["data"]["name"] for c in first]
    seeds = [c.result.model["settings"]["seed"] for c in first]
    seeded = [f"{name}, seed {seed}" for name, seed in zip(names, seeds, strict=True)]
    hashed = [f"{name}, {_split(c)[:12]}" for name, c in zip(names, first, strict=True)]
    kinds = (names, seeded, hashed)
    return [
        next((kind[g] for kind in kinds if kind.count(kind[g]) == 1), hashed[g])
        for g in range(len(groups))
    ]


def twins(everyone: Sequence[Contender]) -> list[list[Contender]]:
    """Those whose models are the same file, together."""
    by_hash: dict[str, list[Contender]] = {}
    for contender in everyone:
        by_hash.setdefault(contender.result.model["sha256"], []).append(contender)
    return [same for same in by_hash.values() if len(same) > 1]


def validated_alike(group: Sequence[Contender]) -> bool:
    """Whether all were chosen on the same validation images; their test images are the same."""
    return len({_split(contender) for contender in group}) == 1


def _split(contender: Contender) -> str:
    """The hash of the data that it was trained on, split as it was."""
    found: str = contender.result.model["data"]["sha256"]
    return found


@dataclass(frozen=True)
class Duel:
    """The best of a group against another; `p` is corrected for the number of duels."""

    best: Contender
    other: Contender
    found: Discordance
    p: float

    @property
    def differs(self) -> bool:
        """Whether the test images tell the two apart."""
        return self.p < 1 - LEVEL


def fought(groups: Iterable[Sequence[Contender]]) -> list[Duel]:
    """McNemar's test of each group's best against its others."""
    pairs = [(best, other) for best, *others in groups for other in others]
    found = [metrics.mcnemar(best.result.right, other.result.right) for best, other in pairs]
    corrected = holm([discordance.p for discordance in found])
    return [
        Duel(best, other, discordance, p)
        for (best, other), discordance, p in zip(pairs, found, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values as they count when there are several: Holm, Scand. J. Statistics 1979."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, (len(p_values) - rank) * p_values[place])
        corrected[place] = min(least, 1.0)
    return corrected


def verdict(duel: Duel) -> tuple[str, str]:
    """The duel in words: the finding, its grounds."""
    first, second = duel.best.letter, duel.other.letter
    if np.array_equal(duel.best.result.answers, duel.other.result.answers):
        same = duel.best.result.model["sha256"] == duel.other.result.model["sha256"]
        grounds = "they are the same file" if same else "though they are different models"
        return f"{first} and {second} give the same answer to every test image", grounds
    won, lost = duel.found.only_first, duel.found.only_second
    if won == lost == 0:
        grounds = "some as different digits; which is better cannot be told from them"
        return f"{first} and {second} misread the same test images", grounds
    grounds = (
        f"{first} misreads {_images(lost)} that {second} reads right, "
        f"{second} {won:,} that {first} reads right: "
    )
    p = tables.equals(duel.p)
    if not duel.differs:
        finding = f"No significant difference between {first} and {second}"
        return finding, f"{grounds}with p {p} that could well be chance"
    finding = f"{first} reads better than {second}"
    if won < lost:
        finding = f"{second} reads better than {first}, although worse on validation images"
    return finding, f"{grounds}with p {p} the difference is unlikely to be chance"


def _images(number: int) -> str:
    return f"{number:,} image" if number == 1 else f"{number:,} images"


def disputed(one: Contender, other: Contender) -> NDArray[np.int64]:
    """Places of the test images that `one` alone reads right, the biggest difference first.

    The difference is that between the probabilities which the two give to the true digit.
    """
    places = np.flatnonzero(one.result.right & ~other.result.right)
    truth = one.result.labels[places]
    gap = one.result.probabilities[places, truth] - other.result.probabilities[places, truth]
    return places[np.argsort(-gap, kind="stable")]
