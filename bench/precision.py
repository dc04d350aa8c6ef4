"""The champion's int8 file against its float32 file: `python -m bench.precision [--record]`.

One thread, in turn, so that the ratio holds on a shared machine. Accuracies are of the last build.
"""

import json

import numpy as np
from rich.table import Table

from docs.tools.recorded import show
from pipeline.config import paths
from pipeline.data import dataset
from pipeline.evaluation import latency
from pipeline.reports import tables
from serve.models.predictor import Predictor, each_precision

ROUNDS = 9
BATCH = 256


def milliseconds(predictors: list[Predictor], batch: int, calls: int) -> list[float]:
    """Return each predictor's median for a batch, in the round that others disturbed least."""
    data = json.loads((paths.CHAMPION / "model.json").read_bytes())["data"]["name"]
    images = dataset.load(paths.processed(data), "validation").images
    rounds = [
        [latency.latency(each.probabilities, images, batch, calls)[0] for each in predictors]
        for _ in range(ROUNDS)
    ]
    return [float(median) for median in np.min(rounds, axis=0)]


def main() -> None:
    """Measure both files and print the table; with `--record` it goes into the docs."""
    predictors = each_precision(paths.CHAMPION)
    single, several = milliseconds(predictors, 1, 1000), milliseconds(predictors, BATCH, 20)
    table = Table("file", "size", "validation %", "ECE %", "one image", "256 images", "to float32")
    for place, predictor in enumerate(predictors):
        about = predictor.description["precisions"][predictor.precision]
        table.add_row(
            predictor.precision,
            tables.size(about["size_bytes"]),
            tables.hundredths(about["metrics"]["val_accuracy"]),
            tables.hundredths(about["metrics"]["val_ece"]),
            f"{single[place]:.3f} ms",
            f"{several[place]:.1f} ms",
            f"{single[place] / single[0]:.2f}, {several[place] / several[0]:.2f}",
        )
    show(table, "precision", "python -m bench.precision", 100)


if __name__ == "__main__":
    main()
