"""What a definition says where the user says nothing: input size, channels, groups, splits."""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from pipeline.config import PipelineError
from pipeline.new_data.survey import Seen, Survey

SIDES = (28, 32, 48, 64, 96)
SHOWN = 20_000  # pictures in an epoch, if there are fewer; the runs are made for 54,000
HELD_OUT = 0.15  # of the pictures, for validation and once more for the test
LEAST_ACCURACY = 0.8
LEAST_RECALL, LEAST_PICTURES = 0.5, 10  # a gate; on fewer test pictures of a class it says little

_LEAST_GROUPS = 6
# Where in a file's name a writer or patient may be: a number at its end, a word at its start.
_GROUPS = (r"[_-](\d+)\.[^.]+$", r"([^/_-]+)[_-][^/]*$")


def side(survey: Survey) -> int:
    """Return the side of the input: the largest that is no larger than half of the pictures."""
    usual = median(max(picture.size) for picture in survey.pictures)
    return max((side for side in SIDES if side <= usual), default=SIDES[0])


def channels(survey: Survey) -> int:
    """Return 3 if any picture is coloured."""
    return 3 if any(picture.coloured for picture in survey.pictures) else 1


def group(pictures: Sequence[Seen]) -> str | None:
    """Return a regular expression of the writer's or patient's part of file names, if they have it.

    That part is in every name. It has several values, and most of them are in most classes.
    """
    labels = {picture.label for picture in pictures}
    for pattern in _GROUPS:
        matches = [(re.search(pattern, picture.name), picture.label) for picture in pictures]
        of_group = defaultdict(set)
        for match, label in matches:
            if match:
                of_group[match[1]].add(label)
        whole = all(match for match, _ in matches)
        often = sum(len(found) >= len(labels) / 2 for found in of_group.values())
        few = _LEAST_GROUPS <= len(of_group) <= len(pictures) / 2
        if whole and few and often >= 0.9 * len(of_group):
            return pattern
    return None


def held_out(survey: Survey) -> int:
    """Return how many pictures to hold out for validation, and as many for the test."""
    return max(len(survey.counts), round(HELD_OUT * len(survey.pictures)))


def repeat(survey: Survey) -> int:
    """Return how often an epoch shows each training picture: few of them need as many steps."""
    training = len(survey.pictures) - 2 * held_out(survey)
    return max(1, round(SHOWN / max(1, training)))


def recall_gate(survey: Survey) -> float:
    """Return the least recall of a class that a model must have to be registered."""
    tested = HELD_OUT * min(survey.counts.values())
    return LEAST_RECALL if tested >= LEAST_PICTURES else 0.0


def classes(labels: Iterable[str], names: str | None) -> tuple[list[str], dict[str, str]]:
    """Return the classes, and which class a label has where they differ.

    `names`: the classes, with commas, in the order of the sorted labels.
    """
    ordered = sorted(labels, key=_in_order)
    given = [name.strip() for name in names.split(",")] if names is not None else ordered
    if odd := [name for name in given if "$" in name]:
        raise PipelineError(f"{odd[0]}: a class's name has no $: rename it, or use --names")
    if len(given) != len(ordered):
        raise PipelineError(
            f"--names has {len(given)} names, but there are {len(ordered)} classes: "
            f"{', '.join(ordered[:5])}, …"
        )
    return given, {label: name for label, name in zip(ordered, given, strict=True) if label != name}


def _in_order(label: str) -> tuple[int, str]:
    return (int(label), label) if label.isdecimal() else (sys.maxsize, label)
