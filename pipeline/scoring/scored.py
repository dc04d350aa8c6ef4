"""What a model says of pictures, as the service would: of one source, or of several together."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.archives.sources import Read, shown
from pipeline.config.terminal import Bar
from pipeline.data.dataset import Labels
from pipeline.evaluation.metrics import Probabilities
from pipeline.reports import theme
from pipeline.scoring import pictures
from pipeline.scoring.pictures import LIMITS
from serve.imaging.preparation import Preparation
from serve.models.predictor import Predictor


class Scored(NamedTuple):
    """What a model says of pictures: of all in `table`, of those with a known class as arrays.

    `contents`: for each picture what reads its content again, or says why there is none.
    `table`: a row per picture; `detail` says why it was refused, and the rest is empty then.
    `places`: (n,), the rows of the pictures with a known class that were read.
    """

    contents: list[Callable[[], bytes | str]]
    table: pd.DataFrame
    classes: list[str]
    places: NDArray[np.int64]
    labels: Labels
    probabilities: Probabilities
    preparation: Preparation

    @property
    def noun(self) -> str:
        """What a class is called."""
        return theme.noun(self.classes, self.preparation.kind)


def score(names: Sequence[str], read: Read, predictor: Predictor) -> Scored:
    """Return what the model says of the pictures, as the service would."""
    classes = predictor.description["classes"]
    probabilities = np.full((len(names), len(classes)), np.nan, np.float32)
    likelihoods = np.full(len(names), np.nan, np.float32)
    details: list[str | None] = []
    with Bar("reading", len(names)) as bar:
        for chunk in pictures.inputs(names, read, predictor.preparation):
            reasons = [found if isinstance(found, str) else None for found in chunk]
            if images := [found for found in chunk if not isinstance(found, str)]:
                places = [len(details) + i for i, reason in enumerate(reasons) if reason is None]
                stacked = np.stack(images)
                probabilities[places], likelihoods[places] = predictor.predict(stacked)
            details += reasons
            bar.move(len(details))
    labels = np.array(pictures.labels(names, [str(each) for each in classes]))
    refused = np.isnan(probabilities[:, 0])
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    threshold = predictor.likelihood.threshold if predictor.likelihood else np.float32(0)
    table = pd.DataFrame(  # the columns are named as in the results of serve.client
        {
            "file": [shown(name) for name in names],
            "label": pd.Series([classes[n] if n >= 0 else None for n in labels], dtype=object),
            "prediction": pd.Series([classes[n] for n in predicted], dtype=object).mask(refused),
            "confidence": confidence,
            "uncertain": pd.Series(
                confidence < np.float32(LIMITS.confidence_threshold), dtype="boolean"
            ).mask(refused),
            "digit_likelihood": likelihoods,
            "not_digit": pd.Series(likelihoods < threshold, dtype="boolean").mask(refused),
            "detail": pd.Series(details, dtype=object),
        }
    )
    table[["label", "prediction"]] = table[["label", "prediction"]].convert_dtypes()
    known = np.flatnonzero((labels >= 0) & ~refused)
    truth = labels[known].astype(np.uint8)
    contents: list[Callable[[], bytes | str]] = [partial(read, name) for name in names]
    named = [str(each) for each in classes]
    return Scored(contents, table, named, known, truth, probabilities[known], predictor.preparation)


def together(sets: Mapping[str, Scored]) -> Scored:
    """Return several sets as one: `set` names each row's, and `file` begins with it."""
    tables = []
    for name, scored in sets.items():
        table = scored.table.assign(file=f"{name}/" + scored.table["file"])
        table.insert(0, "set", name)
        tables.append(table)
    starts = np.cumsum([0, *map(len, tables[:-1])])
    found = list(sets.values())
    return Scored(
        [content for scored in found for content in scored.contents],
        pd.concat(tables, ignore_index=True),
        found[0].classes,
        np.concatenate(
            [scored.places + start for scored, start in zip(found, starts, strict=True)]
        ),
        np.concatenate([scored.labels for scored in found]),
        np.concatenate([scored.probabilities for scored in found]),
        found[0].preparation,
    )
