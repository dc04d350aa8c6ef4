"""Registers the champion and promotes it if it passes the gates: `python -m pipeline.register`.

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
from pipeline.registry import gates, mlflow_runs, versions
from pipeline.registry.versions import CHAMPION, PREVIOUS
from pipeline.reports import tables
from pipeline.storage import git
from pipeline.storage.files import sha256
from serve.models.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

LOCK = Path("dvc.lock")


def main(arguments: list[str]) -> None:
    """Registers `models/champion` and moves the alias if it may, or with `--rollback` back."""
    options = _options(arguments)
    rules = gates.rules()
    client = mlflow_runs.connect()
    if options.rollback:
        with mlflow_runs.lock("registry"):
            _roll_back(client, rules.model)
        return
    comparison, champion = _built()
    tables.show(comparison)
    data = champion["data"]["name"]
    if data not in rules.data:
        logger.info("\nModels of data=%s are not registered (conf/register.yaml).", data)
        return
    # A stage that DVC restored from its cache did not run, so MLflow may lack what is on disk.
    runs = {int(run): mlflow_runs.ensure_tracked(client, int(run)) for run in comparison["runs"]}
    with mlflow_runs.lock("registry"):
        version = versions.ensure_registered(
            client, rules.model, paths.CHAMPION, runs[champion["run"]], _tags(champion)
        )
        logger.info("\n%s", _decide(client, rules, version, insist=options.promote))
    logger.info(_NEXT, environment.tracking_uri())
    present = versions.aliased(client, rules.model, CHAMPION)
    before = versions.aliased(client, rules.model, PREVIOUS)
    if before and present and present.version == version.version:
        logger.info(_BACK)


_NEXT = """
Next:
  make serve                                the champion, at http://127.0.0.1:8000
                                            (what serves already takes it by itself)
  reports/index.html                        the comparison, in a browser
  dvc exp show                              the same in DVC
  mlflow ui --backend-store-uri %s"""
_BACK = "  python -m pipeline.register --rollback    back to the champion before"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.register", description=__doc__)
    parser.add_argument(
        "--rollback", action="store_true", help="make the previous champion the champion again"
    )
    parser.add_argument(
        "--promote", action="store_true", help="promote also what was rolled back; the gates hold"
    )
    return parser.parse_args(arguments)


def _built() -> tuple[dict[str, Any], dict[str, Any]]:
    """The comparison and the description of the champion that the pipeline left."""
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
            f"run {champion['run']} was trained anew since the comparison: dvc repro"
        )
    return comparison, champion


def _tags(champion: dict[str, Any]) -> dict[str, str]:
    return {
        "run": str(champion["run"]),
        "name": champion["name"],
        "data": champion["data"]["name"],
        "commit": _commit(),
        "dvc.lock": sha256(LOCK) if LOCK.exists() else "",
        "registered_at": versions.now(),
        **{name: str(value) for name, value in champion["metrics"].items()},
    }


def _commit() -> str:
    """The commit that is checked out; nothing where there is no Git."""
    try:
        return git.git("rev-parse", "HEAD")
    except git.GitError:
        return ""


def _decide(
    client: MlflowClient, rules: gates.Rules, version: ModelVersion, *, insist: bool
) -> str:
    """Moves an alias according to the gates, and says in words which and why."""
    title = f"{version.name} version {version.version}"
    present = versions.aliased(client, version.name, CHAMPION)
    if present and present.version == version.version:
        versions.settle(client, version)
        return f"{title} is the champion already."
    if (date := versions.rolled_back(version)) and not insist:
        return (
            f"{title} was rolled back on {date} and is not promoted again.\n"
            "To do so all the same: python -m pipeline.register --promote"
        )
    checks, told = _judged(rules.gates, version, present)
    findings = "".join(f"\n  {'ok' if c.passed else 'NO'}  {c.finding}" for c in checks)
    reasons = _verdicts(checks)
    if told:
        reasons["feedback"] = told
        findings += f"\n      {told}"
    if all(check.passed for check in checks):
        versions.promote(client, version, reasons)
        return f"{title} is the champion{_instead(present)}.{findings}"
    versions.challenge(client, version, reasons)
    kept = f"version {present.version} stays the champion" if present else "there is no champion"
    return f"{title} is registered as challenger; {kept}.{findings}"


def _instead(present: ModelVersion | None) -> str:
    return f", in place of version {present.version}" if present else ""


def _verdicts(checks: list[gates.Check]) -> dict[str, str]:
    """The findings as tags of the version: one for each gate, and what follows from them."""
    failed = "; ".join(check.finding for check in checks if not check.passed)
    return {"decision": f"challenger: {failed}" if failed else "champion: all gates passed"} | {
        f"gate.{check.gate}": f"{'passed' if check.passed else 'failed'}: {check.finding}"
        for check in checks
    }


def _judged(
    limits: gates.Gates, version: ModelVersion, present: ModelVersion | None
) -> tuple[list[gates.Check], str | None]:
    """The version as the registry gives it out: the gates' verdicts, and what users would say."""
    data = paths.processed(version.tags["data"])
    test, told = as_served.load(data, "test"), dataset.load_feedback(data)
    # A champion whose files are lost cannot be served, so there is nothing to compare with.
    comparable = present if present and versions.readable(present) else None
    champion = versions.downloaded(comparable) if comparable else nullcontext()
    with versions.downloaded(version) as candidate, champion as standing:
        checks = list(gates.check(limits, candidate, standing, test))
        return checks, _on_feedback(candidate, standing, told) if told else None


def _on_feedback(candidate: Predictor, standing: Predictor | None, told: Split) -> str:
    """What both make of the users' held-out images; no gate, for users can label as they like."""

    def right(predictor: Predictor) -> int:
        return int((predictor.probabilities(told.images).argmax(axis=1) == told.labels).sum())

    beside = f", champion {right(standing)}" if standing else ""
    return f"of {len(told)} held-out images of feedback {right(candidate)} right{beside}"


def _roll_back(client: MlflowClient, model: str) -> None:
    moved = versions.roll_back(client, model)
    if not moved:
        raise PipelineError(f"{model} has no earlier champion to go back to")
    old, new = moved
    logger.info("%s version %s is the champion again, not %s.", model, new.version, old.version)


if __name__ == "__main__":
    cli.run(main)
