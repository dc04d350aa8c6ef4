"""Field sets: labelled pictures of other people, on which a model is measured and never fitted."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.config import PipelineError
from pipeline.scoring import pictures
from pipeline.scoring.scored import score
from serve.models.predictor import Predictor


class Reading(NamedTuple):
    """How many pictures of how many field sets a model reads right; the refused are misread."""

    right: int
    pictures: int
    sets: int


def read(folder: Path, most: int, predictor: Predictor) -> Reading | None:
    """Return how the model reads `most` pictures of each set; None if there is no such folder.

    Each folder and zip in `folder` is a set. It is a PipelineError if a set is damaged or has no
    labelled picture, or if there is no set: a gate that is wanted is not left out unseen.
    """
    if not folder.exists():
        return None
    sources = sources_in(folder)
    if not sources:
        raise PipelineError(f"{folder} has no field set: put folders or zips in, or remove it")
    right, asked = zip(*(_read(source, most, predictor) for source in sources), strict=True)
    return Reading(sum(right), sum(asked), len(sources))


def sources_in(folder: Path) -> list[Path]:
    """Return the folders and zips in `folder`, sorted by name; hidden ones are left out."""
    return sorted(
        path for path in folder.glob("[!.]*") if path.is_dir() or path.suffix.lower() == ".zip"
    )


def _read(source: Path, most: int, predictor: Predictor) -> tuple[int, int]:
    classes = [str(each) for each in predictor.description["classes"]]
    with pictures.opened(source) as (names, content):
        known = pictures.labels(names, classes)
        labelled = [name for name, label in zip(names, known, strict=True) if label >= 0]
        if not labelled:
            raise PipelineError(f"{source} has no picture in a folder of its class, such as 0/")
        # Names are sorted by class: evenly spread, each class has its share.
        places = np.linspace(0, len(labelled) - 1, min(most, len(labelled))).round().astype(int)
        asked = [labelled[place] for place in places]
        scored = score(asked, content, predictor)
    return int((scored.probabilities.argmax(axis=1) == scored.labels).sum()), len(asked)
