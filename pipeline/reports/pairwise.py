"""Pairwise tests: which candidate is best, and could its lead over another be chance?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.evaluation import metrics, significance
from pipeline.evaluation.results import Result
from pipeline.reports import tables

MAX_CANDIDATES = 12  # in one comparison: as many as letters and colours keep apart for a reader


@dataclass(frozen=True)
class Candidate:
    """A model in a comparison: a run, or the best run of an experiment.

    Sentences and plots call it by its `label`, "run 3" or "A". `place` is where it stands in
    tables and plots, `colour` the number of its colour (`theme.line_style`). `test` holds the
    images it was tested on, where they are at hand.
    """

    name: str
    result: Result
    label: str = ""
    place: int = 0
    colour: int = 1
    note: str = ""
    test: Split | None = None


Group = Sequence[Candidate]  # tested on the same images, the best first


def of_runs(runs: Mapping[int, Result]) -> list[Candidate]:
    """Return the runs, the best first; a run keeps its colour whichever runs are beside it."""
    return [
        Candidate(runs[run].metrics["name"], runs[run], f"run {run}", run - 1, run)
        for run in sorted(runs, key=lambda run: metrics.rank(runs[run].metrics, run))
    ]


def of_experiments(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Group candidates by their test images, each group from best to worst, and letter them.

    The groups come in the order of their best. The best of each run has the run's colour.
    """
    groups: dict[tuple[bytes, bytes], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: metrics.rank(c.result.metrics, c.name)):
        assert candidate.test
        images = candidate.test.images.tobytes(), candidate.test.labels.tobytes()
        groups.setdefault(images, []).append(candidate)
    everyone = [candidate for group in groups.values() for candidate in group]
    colours = list(_colours([candidate.result.model["run"] for candidate in everyone]))
    lettered = (
        replace(candidate, label=ascii_uppercase[place], place=place, colour=colours[place])
        for place, candidate in enumerate(everyone)
    )
    return [[next(lettered) for _ in group] for group in groups.values()]


def _colours(runs: Sequence[int]) -> Iterator[int]:
    """Yield a colour each: the first of a run has the run's, the others one of no run here."""
    last, shown = max(runs, default=0), set(runs)
    spare = (n for n in (*range(last + 1, MAX_CANDIDATES + 1), *range(1, last)) if n not in shown)
    for place, run in enumerate(runs):
        yield next(spare) if run in runs[:place] else run


def labels(groups: Sequence[Group]) -> list[str]:
    """Name each group's test images: the data set, and seed or hash where that is ambiguous."""
    models = [group[0].result.model for group in groups]
    names = [model["data"]["name"] for model in models]
    seeded = [f"{model['data']['name']}, seed {model['settings']['seed']}" for model in models]
    hashed = [f"{model['data']['name']}, {model['data']['sha256'][:12]}" for model in models]
    return [
        next((kind[g] for kind in (names, seeded, hashed) if kind.count(kind[g]) == 1), hashed[g])
        for g in range(len(groups))
    ]


def identical(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Return those whose models are the same file, together."""
    by_hash: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_hash.setdefault(candidate.result.model["sha256"], []).append(candidate)
    return [same for same in by_hash.values() if len(same) > 1]


def same_validation(group: Group) -> bool:
    """Return whether all were ranked by the same validation images."""
    return len({candidate.result.model["data"]["sha256"] for candidate in group}) == 1


@dataclass(frozen=True)
class PairwiseTest:
    """McNemar's test of a group's best against another; `p` is corrected for all tests (Holm)."""

    best: Candidate
    other: Candidate
    found: significance.Discordance
    p: float

    @property
    def significant(self) -> bool:
        """Whether the difference is unlikely to be chance."""
        return significance.is_significant(self.p)


def compare_pairs(groups: Iterable[Group]) -> list[PairwiseTest]:
    """Test each group's best against its others."""
    pairs = [(best, other) for best, *others in groups for other in others]
    found = [significance.mcnemar(best.result.right, other.result.right) for best, other in pairs]
    corrected = significance.holm([discordance.p for discordance in found])
    return [
        PairwiseTest(best, other, discordance, p)
        for (best, other), discordance, p in zip(pairs, found, corrected, strict=True)
    ]


def verdict(test: PairwiseTest) -> tuple[str, str]:
    """Return the test in words: the finding and its grounds."""
    first, second = test.best.label, test.other.label
    won, lost, p = test.found.only_first, test.found.only_second, tables.equals(test.p)
    grounds = (
        f"{first} misreads {_images(lost)} that {second} reads right, "
        f"{second} misreads {_images(won)} that {first} reads right: "
    )
    if np.array_equal(test.best.result.answers, test.other.result.answers):
        same = test.best.result.model["sha256"] == test.other.result.model["sha256"]
        finding = f"{first} and {second} give the same answer to every test image"
        grounds = "they are the same file" if same else "though they are different models"
    elif won == lost == 0:
        finding = f"{first} and {second} misread the same test images"
        grounds = "they read some of them as different digits, which does not say which is better"
    elif not test.significant:
        finding = f"no significant difference between {first} and {second}"
        grounds += f"with p {p} (Holm) that could well be chance"
    else:
        finding = f"{first} reads better than {second}"
        if won < lost:
            finding = f"{second} reads better than {first}, although worse on validation images"
        grounds += f"with p {p} (Holm) the difference is unlikely to be chance"
    return finding[0].upper() + finding[1:], grounds[0].upper() + grounds[1:]


def _images(number: int) -> str:
    return f"{number:,} image" if number == 1 else f"{number:,} images"


def disputed(one: Candidate, other: Candidate) -> NDArray[np.int64]:
    """Return the test images that `one` alone reads right, as indices, the clearest first.

    Clearest by the difference between the probabilities that the two give to the true digit.
    """
    places = np.flatnonzero(one.result.right & ~other.result.right)
    truth = one.result.labels[places]
    gap = one.result.probabilities[places, truth] - other.result.probabilities[places, truth]
    return places[np.argsort(-gap, kind="stable")]
