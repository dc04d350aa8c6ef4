"""A small repository in which DVC keeps experiments that look as if the pipeline had run."""

import json
import shutil

import numpy as np
from dvc.repo import Repo
from omegaconf import OmegaConf

from pipeline import compare
from pipeline.config import paths
from pipeline.data import dataset
from pipeline.data.dataset import SIDE, Split, Splits
from pipeline.storage.files import write_json
from support.sweep_repo import GitFolder

IMAGES = 200  # of `evaluated`'s test split
# All outputs in one stage: no stage runs here.
STAGES = """\
stages:
  all:
    cmd: "false"
    outs:
      - data/processed
      - models/runs
      - reports/evaluate
      - reports/train
metrics: [reports/metrics.json]
params: [params.yaml, reports/best.yaml]
"""


class Laboratory(GitFolder):
    """The repository in `folder`; `evaluated` is the fixture of that name."""

    def __init__(self, folder, evaluated):
        super().__init__(folder)
        self.evaluated = evaluated
        Repo.init(str(folder)).close()
        (folder / ".gitignore").write_text(
            "/data/\n/models/\n/reports/evaluate/\n/reports/train/\n"
        )
        (folder / "dvc.yaml").write_text(STAGES)
        self.commit("nothing built")

    def experiment(self, name, run=1, *, split=0, validated=0, data="mnist", settings=(), **made):
        """An experiment whose best run is `run`; `made` is what `evaluated` takes.

        Another `split` has other test images, `validated` another validation split of the same.
        """
        for output in ("data", "models", "reports"):
            shutil.rmtree(self.folder / output, ignore_errors=True)
        self.evaluated(run, images=IMAGES, **made)
        dataset.save(splits(split), paths.processed(data))
        path = paths.model(run) / "model.json"
        model = json.loads(path.read_bytes())
        model["data"] = {"name": data, "sha256": f"{data}-{split}-{validated}"}
        model["settings"] |= {"data": data, "seed": 42 + split + validated, **dict(settings)}
        write_json(path, model)
        figures = json.loads((paths.evaluation(run) / "metrics.json").read_bytes())
        write_json(paths.METRICS, {key: figures[key] for key in compare.METRICS})
        compare.write_settings(paths.BEST, model)
        picks = {"data": data, "runs": [run], "seed": model["settings"]["seed"], "threads": 2}
        OmegaConf.save(picks, "params.yaml")
        with Repo(str(self.folder)) as repo:
            saved = repo.experiments.save(name=name, include_untracked=["dvc.lock", "reports"])
        self.git("checkout", "-q", "--force", "HEAD")
        self.git("clean", "-q", "--force", "-d")
        return saved


def splits(seed):
    """Few images, other ones for another seed."""
    labels = (np.arange(IMAGES) % 10).astype(np.uint8)
    pixels = np.random.default_rng(seed).integers(0, 256, (IMAGES, SIDE, SIDE), np.uint8)
    test = Split(pixels, labels, np.arange(IMAGES, dtype=np.int32))
    return Splits(test, test, test)
