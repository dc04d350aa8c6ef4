"""Experiments on the same test images: which is better, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.evaluation import significance
from pipeline.evaluation.results import Result
from pipeline.reports import tables
from pipeline.storage.dvc_experiments import Experiment

MAX_CANDIDATES = 12  # in one comparison: what letters, colours and readers can tell apart


@dataclass(frozen=True)
class Candidate:
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


def ranked(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """The candidates by the images they were tested on, each group from the best to the worst.

    The best has the highest validation accuracy; of equals the lower loss. Groups come in the
    order of their best.
    """
    groups: list[list[Candidate]] = []
    for candidate in sorted(candidates, key=_rank):
        for group in groups:
            if _same(group[0].test, candidate.test):
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    places = iter(range(sum(map(len, groups))))
    return [[replace(candidate, place=next(places)) for candidate in group] for group in groups]


def _rank(candidate: Candidate) -> tuple[float, float, str]:
    figures = candidate.result.metrics
    return -figures["val_accuracy"], figures["val_loss"], candidate.name


def _same(first: Split, second: Split) -> bool:
    return np.array_equal(first.images, second.images) and np.array_equal(
        first.labels, second.labels
    )


def labels(groups: Sequence[Sequence[Candidate]]) -> list[str]:
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


def twins(everyone: Sequence[Candidate]) -> list[list[Candidate]]:
    """Those whose models are the same file, together."""
    by_hash: dict[str, list[Candidate]] = {}
    for candidate in everyone:
        by_hash.setdefault(candidate.result.model["sha256"], []).append(candidate)
    return [same for same in by_hash.values() if len(same) > 1]


def validated_alike(group: Sequence[Candidate]) -> bool:
    """Whether all were chosen on the same validation images; their test images are the same."""
    return len({_split(candidate) for candidate in group}) == 1


def _split(candidate: Candidate) -> str:
    """The hash of the data that it was trained on, split as it was."""
    found: str = candidate.result.model["data"]["sha256"]
    return found


@dataclass(frozen=True)
class PairwiseTest:
    """The best of a group against another; `p` is corrected for the number of pairwise tests."""

    best: Candidate
    other: Candidate
    found: significance.Discordance
    p: float

    @property
    def differs(self) -> bool:
        """Whether the test images tell the two apart."""
        return self.p < 1 - significance.CONFIDENCE_LEVEL


def compare_pairs(groups: Iterable[Sequence[Candidate]]) -> list[PairwiseTest]:
    """McNemar's test of each group's best against its others."""
    pairs = [(best, other) for best, *others in groups for other in others]
    found = [significance.mcnemar(best.result.right, other.result.right) for best, other in pairs]
    corrected = significance.holm([discordance.p for discordance in found])
    return [
        PairwiseTest(best, other, discordance, p)
        for (best, other), discordance, p in zip(pairs, found, corrected, strict=True)
    ]


def verdict(test: PairwiseTest) -> tuple[str, str]:
    """The test in words: the finding, its grounds."""
    first, second = test.best.letter, test.other.letter
    if np.array_equal(test.best.result.answers, test.other.result.answers):
        same = test.best.result.model["sha256"] == test.other.result.model["sha256"]
        grounds = "they are the same file" if same else "though they are different models"
        return f"{first} and {second} give the same answer to every test image", grounds
    won, lost = test.found.only_first, test.found.only_second
    if won == lost == 0:
        grounds = "some as different digits; which is better cannot be told from them"
        return f"{first} and {second} misread the same test images", grounds
    grounds = (
        f"{first} misreads {_images(lost)} that {second} reads right, "
        f"{second} {won:,} that {first} reads right: "
    )
    p = tables.equals(test.p)
    if not test.differs:
        finding = f"No significant difference between {first} and {second}"
        return finding, f"{grounds}with p {p} that could well be chance"
    finding = f"{first} reads better than {second}"
    if won < lost:
        finding = f"{second} reads better than {first}, although worse on validation images"
    return finding, f"{grounds}with p {p} the difference is unlikely to be chance"


def _images(number: int) -> str:
    return f"{number:,} image" if number == 1 else f"{number:,} images"


def disputed(one: Candidate, other: Candidate) -> NDArray[np.int64]:
    """Places of the test images that `one` alone reads right, the biggest difference first.

    The difference is that between the probabilities which the two give to the true digit.
    """
    places = np.flatnonzero(one.result.right & ~other.result.right)
    truth = one.result.labels[places]
    gap = one.result.probabilities[places, truth] - other.result.probabilities[places, truth]
    return places[np.argsort(-gap, kind="stable")]
