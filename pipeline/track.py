"""Log each trained model to MLflow that it does not have yet: `python -m pipeline.track`."""

from pipeline.config import Config, environment, paths, stage
from pipeline.registry import mlflow_runs, model_runs
from pipeline.storage.files import write_json


def main(cfg: Config) -> None:
    """Ensure an MLflow run for each model of `cfg.runs` (idempotent)."""
    client = mlflow_runs.connect()
    parent, label = environment.sweep_job()
    for run in cfg.runs:
        model_runs.ensure_tracked(client, run, parent, label)
    write_json(paths.TRACKED, {str(run): model_runs.digest(run) for run in cfg.runs})


if __name__ == "__main__":
    stage(main)()
