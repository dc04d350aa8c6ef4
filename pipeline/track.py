"""Makes sure that MLflow has a run for each trained model: `python -m pipeline.track`."""

from __future__ import annotations

from pipeline import environment, paths, tracking
from pipeline.config import Config, stage
from pipeline.files import write_json


def main(cfg: Config) -> None:
    """Logs the models of `cfg.runs` that MLflow does not have yet."""
    client = tracking.connect()
    parent, label = environment.sweep_job()
    for run in cfg.runs:
        tracking.ensure_tracked(client, run, parent, label)
    write_json(paths.TRACKED, {str(run): tracking.digest(run) for run in cfg.runs})


if __name__ == "__main__":
    stage(main)()
