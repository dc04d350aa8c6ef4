"""Register the champion and promote it if it passes the gates: `python -m pipeline.register`.

A command, not a stage: promotion is a decision, and a stage restored from DVC's cache would leave
a new registry empty.
"""

from __future__ import annotations

import argparse
import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.config import PipelineError, cli, environment, paths
from pipeline.data import as_served, dataset
from pipeline.data.dataset import Split
from pipeline.registry import gates, mlflow_runs, rollback, versions
from pipeline.registry.versions import CHAMPION, PREVIOUS
from pipeline.reports import tables
from pipeline.storage import git
from pipeline.storage.files import sha256
from serve.models.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

LOCK = Path("dvc.lock")
_NEXT = """
Next:
  make serve                                the champion, at http://127.0.0.1:8000
                                            A service that is already running switches to it
                                            on its own.
  reports/index.html                        the comparison, in a browser
  dvc exp show                              the same in DVC
  mlflow ui --backend-store-uri %s"""
_BACK = "  python -m pipeline.register --rollback    back to the champion before"


def main(arguments: list[str]) -> None:
    """Register `models/champion` and promote it if it may be; with `--rollback` go back."""
    options = _options(arguments)
    rules = gates.rules()
    if options.rollback:
        _roll_back(rules.model)
        return
    comparison, champion = _built()
    tables.show(comparison)
    data = champion["data"]["name"]
    if data not in rules.data:
        logger.info("\nModels of data=%s are not registered (conf/register.yaml).", data)
        return
    client = mlflow_runs.connect()
    # A stage that DVC restored from its cache did not run, so MLflow may lack what is on disk.
    runs = {int(run): mlflow_runs.ensure_tracked(client, int(run)) for run in comparison["runs"]}
    with mlflow_runs.lock("registry"):
        version = versions.ensure_registered(
            client, rules.model, paths.CHAMPION, runs[champion["run"]], _tags(champion)
        )
        logger.info("\n%s", _decide(client, rules, version, again=options.promote))
    logger.info(_NEXT, environment.tracking_uri())
    present = versions.aliased(client, rules.model, CHAMPION)
    before = versions.aliased(client, rules.model, PREVIOUS)
    if before and present and present.version == version.version:
        logger.info(_BACK)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.register", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rollback", action="store_true", help="go back to the champion before")
    again = "promote a model that was rolled back too, if it passes the gates"
    parser.add_argument("--promote", action="store_true", help=again)
    return parser.parse_args(arguments)


def _built() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the comparison and the champion's description; PipelineError if they are outdated."""
    try:
        comparison = json.loads(paths.COMPARISON.read_bytes())
        champion = Predictor(paths.CHAMPION).description
        trained = json.loads((paths.model(champion["run"]) / "model.json").read_bytes())
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename} is missing: dvc repro") from None
    except BundleError as error:
        raise PipelineError(f"{error}: dvc repro") from error
    if champion["sha256"] != trained["sha256"]:
        raise PipelineError(
            f"run {champion['run']} was trained again after the comparison: dvc repro"
        )
    return comparison, champion


def _tags(champion: dict[str, Any]) -> dict[str, str]:
    try:
        commit = git.git("rev-parse", "HEAD")
    except git.GitError:
        commit = ""
    return {
        "run": str(champion["run"]),
        "name": champion["name"],
        "data": champion["data"]["name"],
        "commit": commit,
        "dvc.lock": sha256(LOCK) if LOCK.exists() else "",
        "registered_at": versions.now(),
        **{name: str(value) for name, value in champion["metrics"].items()},
    }


def _decide(client: MlflowClient, rules: gates.Rules, version: ModelVersion, *, again: bool) -> str:
    """Move an alias according to the gates and return which and why, in words."""
    title = f"{version.name} version {version.version}"
    present = versions.aliased(client, version.name, CHAMPION)
    if present and present.version == version.version:
        versions.finish(client, version)
        return f"{title} is the champion already."
    if (date := rollback.rolled_back_at(version)) and not again:
        return (
            f"{title} was rolled back on {date} and is not promoted again.\n"
            "To promote it all the same: python -m pipeline.register --promote"
        )
    checks, on_feedback = _measured(rules.gates, version, present)
    findings = "".join(f"\n  {'ok' if c.passed else 'NO'}  {c.finding}" for c in checks)
    failed = "; ".join(check.finding for check in checks if not check.passed)
    reasons = {
        "decision": f"challenger: {failed}" if failed else "champion: all gates passed",
        **{f"gate.{c.gate}": f"{'passed' if c.passed else 'failed'}: {c.finding}" for c in checks},
    }
    if on_feedback:
        reasons["feedback"] = on_feedback
        findings += f"\n      {on_feedback}"
    if failed:
        versions.challenge(client, version, reasons)
        stays = (
            f"version {present.version} stays the champion" if present else "there is no champion"
        )
        return f"{title} is registered as challenger; {stays}.{findings}"
    versions.promote(client, version, reasons)
    replaced = f", in place of version {present.version}" if present else ""
    return f"{title} is the champion{replaced}.{findings}"


def _measured(
    limits: gates.Gates, version: ModelVersion, present: ModelVersion | None
) -> tuple[list[gates.Check], str]:
    """Download the version, return the gates' checks and a sentence on held-out feedback."""
    data = paths.processed(version.tags["data"])
    test, held_out = as_served.load(data, "test"), dataset.load_feedback(data)
    # A champion whose files are lost cannot be served, so there is nothing to compare with.
    comparable = present if present and versions.readable(present) else None
    opened = versions.downloaded(comparable) if comparable else nullcontext()
    with versions.downloaded(version) as candidate, opened as champion:
        checks = list(gates.check(limits, candidate, champion, test))
        return checks, _on_feedback(candidate, champion, held_out) if held_out else ""


def _on_feedback(candidate: Predictor, champion: Predictor | None, held_out: Split) -> str:
    """Return how both read the users' held-out images; no gate, for users may label anything."""

    def right(predictor: Predictor) -> int:
        predicted = predictor.probabilities(held_out.images).argmax(axis=1)
        return int((predicted == held_out.labels).sum())

    beside = f", champion {right(champion)}" if champion else ""
    return f"of {len(held_out)} held-out images of feedback {right(candidate)} right{beside}"


def _roll_back(model: str) -> None:
    moved = None
    if mlflow_runs.store_exists():
        client = mlflow_runs.connect()
        with mlflow_runs.lock("registry"):
            moved = rollback.roll_back(client, model)
    if not moved:
        raise PipelineError(f"{model} has no earlier champion to go back to")
    old, new = moved
    logger.info("%s version %s is the champion again, not %s.", model, new.version, old.version)


if __name__ == "__main__":
    cli.run(main)
