"""How a data set is split in three: stratified, seeded, groups kept together, no copies across."""

import hashlib
import logging

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PipelineError, paths
from pipeline.config.data_schema import Data
from pipeline.data.dataset import NAMES, Images, Labels, Split, Splits
from pipeline.reading.mapped import taken
from pipeline.reading.published import Published

log = logging.getLogger(__name__)

Index = NDArray[np.int32]

_DRAWS = 200  # of groups; the one with the evenest classes is taken
_TOLD = 3  # copies named in the log


def split(published: Published, data: Data, seed: int) -> Splits:
    """Return the splits in the order of the files; PipelineError if a size is impossible.

    Copies of validation or test images are left out of what is trained on.
    """
    sizes, own_test = data.split, published.own_test
    if bool(sizes.test) == bool(own_test):
        raise PipelineError(
            f"data.split.test is {sizes.test}, but the data set has {own_test} test images of its "
            "own: one of the two must be 0, the other not"
        )
    index = np.arange(len(published.labels), dtype=np.int32)
    rest, tested = np.split(index, [len(index) - own_test])
    if sizes.group and own_test:
        raise PipelineError(
            f"data.split.group is {sizes.group}, but the data set has test images of its own, "
            "whose groups are not kept apart: set it to null, or put all images in one archive"
        )
    _require_enough(published.labels[rest], data, parts=2 if own_test else 3)
    if sizes.test:
        rest, tested = _hold_out(rest, published, sizes.test, seed, "data.split.test", data)
    train, validated = _hold_out(
        rest, published, sizes.validation, seed, "data.split.validation", data
    )
    train, validated = _without_copies(train, validated, tested, published, data)
    room = paths.processed(data.name).parent
    splits = [
        Split(taken(published.images, index, room), published.labels[index], index)
        for index in (train, validated, tested)
    ]
    _require_all_classes(splits, data)
    return Splits(*splits)


def _require_enough(labels: Labels, data: Data, parts: int) -> None:
    """Refuse a class that cannot be in each part."""
    counts = np.bincount(labels, minlength=len(data.classes))
    for name, count in zip(data.classes, counts.tolist(), strict=True):
        if count < parts:
            raise PipelineError(
                f"too few images of class {name}: {count}, but {parts} splits need one each; add "
                f"some, or take the class out of conf/data/{data.name}.yaml"
            )


def _require_all_classes(splits: list[Split], data: Data) -> None:
    for part, each in zip(NAMES, splits, strict=True):
        counts = np.bincount(each.labels, minlength=len(data.classes))
        for name, count in zip(data.classes, counts.tolist(), strict=True):
            if not count:
                raise PipelineError(
                    f"too few images of class {name}: none is in the {part} images of data="
                    f"{data.name}: add some, or hold out other numbers (data.split)"
                )


def _hold_out(
    index: Index, published: Published, size: int, seed: int, field: str, data: Data
) -> tuple[Index, Index]:
    """Return the positions left and about `size` positions held out, stratified by class.

    A PipelineError names the configuration's `field` if not every class could be in both.
    """
    classes = len(data.classes)
    most = len(index) - classes
    if not classes <= size <= most:
        raise PipelineError(
            f"{field} is {size}, but must be from {classes} (one per class) to {most} "
            f"(of {len(index)} images, leave one per class)"
        )
    if len(published.groups):
        return _hold_out_groups(index, published, size, seed, field)
    from sklearn.model_selection import train_test_split  # takes 1.5 s to import

    strata = published.labels[index]
    try:
        parts = train_test_split(index, test_size=size, stratify=strata, random_state=seed)
    except ValueError as error:
        raise PipelineError(f"{field} is {size}, seed is {seed}: {error}") from error
    left, held_out = (np.sort(part) for part in parts)
    return left, held_out


def _hold_out_groups(
    index: Index, published: Published, size: int, seed: int, field: str
) -> tuple[Index, Index]:
    """Hold out whole groups: of many draws, the one whose classes are nearest to `size` images.

    scikit-learn's splitters of groups take a number of folds or of groups. Here the size is given.
    """
    groups, of_image = np.unique(np.array(published.groups)[index], return_inverse=True)
    if len(groups) < 2:
        raise PipelineError(
            f"{field}: all {len(index)} images are of one group, {groups[0]}: see data.split.group"
        )
    classes = int(published.labels.max()) + 1
    counts = np.zeros((len(groups), classes), int)
    np.add.at(counts, (of_image, published.labels[index]), 1)
    wanted = counts.sum(axis=0) * (size / len(index))
    random = np.random.default_rng(seed)
    best, least = np.array([], int), np.inf
    for _ in range(_DRAWS):
        order = random.permutation(len(groups))
        sums = counts[order].sum(axis=1).cumsum()
        drawn = order[: min(int(np.abs(sums - size).argmin()) + 1, len(groups) - 1)]
        distance = float(np.abs(counts[drawn].sum(axis=0) - wanted).sum())
        if distance < least:
            best, least = drawn, distance
    held_out = np.isin(of_image, best)
    log.info(
        "%s: %d images asked for, %d held out, of %d of %d groups",
        *(field, size, int(held_out.sum()), len(best), len(groups)),
    )
    return index[~held_out], index[held_out]


def _without_copies(
    train: Index, validated: Index, tested: Index, published: Published, data: Data
) -> tuple[Index, Index]:
    """Leave out training images that are validation or test images, and validation that are test.

    They would make the test easier than it is.
    """
    known = {_digest(published.images[place]): int(place) for place in tested}
    validated = _new(validated, known, published, data)
    known |= {_digest(published.images[place]): int(place) for place in validated}
    return _new(train, known, published, data), validated


def _digest(image: Images) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _new(index: Index, known: dict[bytes, int], published: Published, data: Data) -> Index:
    same = [known.get(_digest(published.images[place])) for place in index]
    copies = [
        (int(place), other) for place, other in zip(index, same, strict=True) if other is not None
    ]
    if copies:
        told = ", ".join(_told(place, other, published, data) for place, other in copies[:_TOLD])
        more = f" and {len(copies) - _TOLD} more" if len(copies) > _TOLD else ""
        log.warning(
            "%d images are copies of images that are held out, and are left out: %s%s",
            *(len(copies), told, more),
        )
    return index[[other is None for other in same]]


def _told(place: int, other: int, published: Published, data: Data) -> str:
    first, second = (data.classes[published.labels[each]] for each in (place, other))
    classes = f" (class {first} and {second})" if first != second else ""
    return f"{published.name(place)} = {published.name(other)}{classes}"
