"""Register the champion and promote it if it passes the gates: `python -m pipeline.register`.

A command, not a stage: promotion is a decision, and a stage restored from DVC's cache would leave
a new registry empty.
"""

import argparse
import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from omegaconf import OmegaConf

from pipeline.config import CONF, PARAMS, PipelineError, cli, paths
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import latency
from pipeline.registry import gates, mlflow_runs, model_runs, versions
from pipeline.registry.versions import CHAMPION, PREVIOUS
from pipeline.reports import tables
from pipeline.scoring import field
from pipeline.storage import git
from pipeline.storage.files import sha256
from serve.models.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

LOCK = Path("dvc.lock")


def main(arguments: list[str]) -> None:
    """Register `models/champion` and promote it if it may be; with `--rollback` go back."""
    options = _options(arguments)
    if options.rollback or options.history:
        model = _registered(options.data or str(OmegaConf.load(CONF.parent / PARAMS).data))
        _roll_back(model) if options.rollback else _show_history(model)
        return
    comparison, champion = _built()
    tables.show(comparison)
    tables.show_precisions(comparison, latency.recorded())
    data = champion["data"]["name"]
    rules = gates.rules(data)
    if not rules.model:
        logger.info("\nModels of data=%s are not registered (conf/data/%s.yaml).", data, data)
        return
    client = mlflow_runs.connect()
    # A stage that DVC restored from its cache did not run, so MLflow may lack what is on disk.
    runs = {int(run): model_runs.ensure_tracked(client, int(run)) for run in comparison["runs"]}
    with mlflow_runs.lock("registry"):
        version = versions.ensure_registered(
            client, rules.model, paths.CHAMPION, runs[champion["run"]], _tags(champion)
        )
        logger.info("\n%s", _decide(client, rules, version, again=options.promote))
    _say_next(client, version)


def _registered(data: str) -> str:
    """Return the name under which models of this data set are registered."""
    if model := gates.rules(data).model:
        return model
    raise PipelineError(f"models of data={data} are not registered (conf/data/{data}.yaml)")


def _say_next(client: MlflowClient, version: ModelVersion) -> None:
    present = versions.aliased(client, version.name, CHAMPION)
    logger.info("\nNext:")
    if present:
        logger.info("  make serve            the champion, at http://127.0.0.1:8000")
        logger.info("                        (a running service switches to it on its own)")
    logger.info("  reports/index.html    the comparison, in a browser")
    logger.info("  dvc exp show          the same in DVC")
    logger.info("  %s", mlflow_runs.where_shown())
    before = versions.aliased(client, version.name, PREVIOUS)
    if before and present and present.version == version.version:
        logger.info("  python -m pipeline.register --rollback    back to the champion before")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.register", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rollback", action="store_true", help="go back to the champion before")
    moves = "list when which version became the champion"
    parser.add_argument("--history", action="store_true", help=moves)
    other = "of which --rollback and --history speak (default: that of params.yaml)"
    parser.add_argument("--data", metavar="NAME", help=f"the data set {other}")
    again = "promote a model that was rolled back too, if it passes the gates"
    parser.add_argument("--promote", action="store_true", help=again)
    return parser.parse_args(arguments)


def _built() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the comparison and the champion's description.

    Git keeps the comparison, DVC the models and evaluations: a `git checkout` without
    `dvc checkout`, or a stage that was cut off, leaves those of different builds side by side. It
    is a PipelineError if something is missing, or is not what was compared.
    """
    try:
        comparison = json.loads(paths.COMPARISON.read_bytes())
        champion = Predictor(paths.CHAMPION).description
        for run, compared in comparison["runs"].items():
            evaluated = json.loads((paths.evaluation(int(run)) / "metrics.json").read_bytes())
            trained = json.loads((paths.model(int(run)) / "model.json").read_bytes())
            if evaluated["sha256"] != trained["sha256"]:
                raise PipelineError(f"run {run} was trained again after its evaluation: dvc repro")
            _must_match(f"the evaluation of run {run}", evaluated, compared)
        best = comparison["best"]
        digest = json.loads((paths.model(best) / "model.json").read_bytes())["sha256"]
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename} is missing: dvc repro") from None
    except BundleError as error:
        raise PipelineError(f"{error}: dvc repro") from error
    expected = {**comparison["runs"][str(best)], "sha256": digest}
    # Its `precision` is that of numbers, the comparison's that of each digit.
    described = {key: champion[key] for key in ("run", "name", "sha256", "parameters")}
    title = f"{paths.CHAMPION} (run {champion['run']})"
    _must_match(title, described | champion["metrics"], expected)
    return comparison, champion


def _must_match(what: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    differing = [key for key in expected.keys() & found.keys() if found[key] != expected[key]]
    if differing:
        raise PipelineError(
            f"{what} is not as in {paths.COMPARISON}: its {min(differing)} differs: dvc repro"
        )


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
    if (date := version.tags.get(versions.ROLLED_BACK)) and not again:
        return (
            f"{title} was rolled back on {date} and is not promoted again.\n"
            "To promote it all the same: python -m pipeline.register --promote"
        )
    checks, on_feedback = _measured(rules, version, present)
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
    rules: gates.Rules, version: ModelVersion, present: ModelVersion | None
) -> tuple[list[gates.Check], str]:
    """Download the version, return the gates' checks and a sentence on held-out feedback."""
    data = paths.processed(version.tags["data"])
    test, held_out = dataset.load(data, "test"), dataset.load_feedback(data)
    # A champion whose files are lost cannot be served, so there is nothing to compare with.
    comparable = present if present and versions.readable(present) else None
    opened = versions.downloaded(comparable) if comparable else nullcontext()
    with versions.downloaded(version) as candidate, opened as champion:
        checks = list(gates.check(rules.gates, candidate, champion, test))
        asked = rules.field_sets
        if asked and (found := field.read(Path(asked.folder), asked.pictures, candidate)):
            checks.append(gates.check_field(rules.gates, *found))
        return checks, _on_feedback(candidate, champion, held_out) if held_out else ""


def _on_feedback(candidate: Predictor, champion: Predictor | None, held_out: Split) -> str:
    """Return how both read the users' held-out images; no gate, for users may label anything."""

    def right(predictor: Predictor) -> int:
        predicted = predictor.probabilities(held_out.images).argmax(axis=1)
        return int((predicted == held_out.labels).sum())

    same = champion and gates.comparable(candidate, champion)
    beside = f", champion {right(champion)}" if champion and same else ""
    return f"of {len(held_out)} held-out images of feedback {right(candidate)} right{beside}"


def _roll_back(model: str) -> None:
    moved = None
    if mlflow_runs.store_exists():
        client = mlflow_runs.connect()
        with mlflow_runs.lock("registry"):
            moved = versions.roll_back(client, model)
    if not moved:
        raise PipelineError(f"{model} has no earlier champion to go back to")
    old, new = moved
    instead = f", not {old.version}" if old else "; there was none"
    logger.info("%s version %s is the champion again%s.", model, new.version, instead)


def _show_history(model: str) -> None:
    moves = versions.history(mlflow_runs.connect(), model) if mlflow_runs.store_exists() else []
    for move in moves:
        logger.info("%(at)s  %(action)-8s  version %(version)s  bundle %(bundle).12s", move)
    if not moves:
        logger.info("%s has not had a champion yet.", model)


if __name__ == "__main__":
    cli.run(main)
