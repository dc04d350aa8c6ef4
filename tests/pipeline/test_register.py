import dataclasses
import json
import re
import shutil
from unittest.mock import Mock

import pytest
from support.bundles import picture

from pipeline import adopt, compare, exps, register, retrain
from pipeline.config import PipelineError, paths
from pipeline.data import dataset
from pipeline.data.dataset import Splits
from pipeline.registry import gates, mlflow_runs, versions
from pipeline.storage import files
from serve.models.predictor import Predictor

MODEL = "mnist-classifier"
LOW = gates.Gates(
    test_accuracy=0.5,
    recall=0.1,
    field_accuracy=0.0,
    latency_ms_p99=1000.0,
    bundle_bytes=10**7,
    mcnemar_p=0.05,
)
FIELD = gates.FieldSets("field", pictures=300)  # which are not there, unless a test makes them


def use(limits, monkeypatch):
    rules = gates.Rules(MODEL, FIELD, limits)
    of = {"mnist": rules, "digits": gates.Rules(None, None, limits)}
    monkeypatch.setattr(gates, "rules", of.__getitem__)


@pytest.fixture
def loose(monkeypatch, built):
    """Gates that a small model passes."""
    use(LOW, monkeypatch)


@pytest.fixture
def easy(loose, stored):
    """The same with a registry that has nothing yet."""


def aliases():
    client = mlflow_runs.connect()
    found = client.search_registered_models(f"name = '{MODEL}'")
    return {k: int(v) for model in found for k, v in model.aliases.items()}


def version(number):
    return mlflow_runs.connect().get_model_version(MODEL, str(number))


def history():
    return versions.history(mlflow_runs.connect(), MODEL)


def choose(configured, *runs):
    """Makes the best of `runs` the pipeline's champion: another bundle than before."""
    compare.main(configured(1, f"runs={list(runs)}"))


def said(caplog, *arguments):
    caplog.clear()
    caplog.set_level("INFO")
    register.main(list(arguments))
    return caplog.text


def test_a_champion_that_passes_is_promoted_once(easy, caplog, capsys):
    text = said(caplog)
    assert f"{MODEL} version 1 is the champion." in text
    assert "ok  test accuracy" in text
    assert "optimized" in capsys.readouterr().out
    assert "make serve" in text
    assert aliases() == {"champion": 1}
    tags = version(1).tags
    assert tags["decision"] == "champion: all gates passed"
    assert tags["gate.latency_ms_p99"].startswith("passed: p99 latency of one image")
    assert tags["run"] == "3"
    assert [line["action"] for line in history()] == ["promote"]

    assert "version 1 is the champion already" in said(caplog)
    assert len(mlflow_runs.connect().search_model_versions(f"name = '{MODEL}'")) == 1
    assert len(history()) == 1


def test_what_users_held_against_either_model_is_said_and_is_no_gate(
    easy, caplog, configured, built
):
    choose(configured, 1)
    said(caplog)
    test = dataset.load(paths.processed("mnist"), "test")
    parts = {name: dataset.load(paths.processed("mnist"), name) for name in dataset.NAMES}
    wrong = dataclasses.replace(test, labels=(test.labels + 1) % 10)
    dataset.save(Splits(**parts, feedback=wrong), paths.processed("mnist"))
    choose(configured, 3)
    text = said(caplog)
    counts = [
        int(
            (Predictor(paths.model(run)).probabilities(test.images).argmax(1) == wrong.labels).sum()
        )
        for run in (3, 1)
    ]
    told = "of 360 held-out images of feedback {} right, champion {}".format(*counts)
    assert f"      {told}" in text
    assert counts[0] < 100, "the labels are wrong, so a good model is"
    assert aliases()["champion"] == 2
    assert version(2).tags["feedback"] == told


def test_what_is_registered_is_the_bundle_and_it_serves(easy, caplog):
    said(caplog)
    client = mlflow_runs.connect()
    with versions.downloaded(version(1)) as served:
        assert served.description == json.loads((paths.CHAMPION / "model.json").read_text())
    run = client.get_run(version(1).run_id)
    assert run.info.run_name == "run-3-optimized"
    assert {item.path for item in client.list_artifacts(run.info.run_id, "champion")} == {
        *("champion/model.json", "champion/model.tflite", "champion/model_card.md"),
        "champion/model.int8.tflite",
        "champion/reference.npz",
        "champion/likelihood.tflite",
    }


def test_a_model_that_fails_a_gate_is_the_challenger_and_why_is_said(easy, caplog, monkeypatch):
    use(dataclasses.replace(LOW, test_accuracy=1.01), monkeypatch)
    text = said(caplog)
    assert f"{MODEL} version 1 is registered as challenger; there is no champion." in text
    assert "NO  test accuracy" in text
    assert "make serve" not in text
    assert aliases() == {"challenger": 1}
    assert version(1).tags["decision"].startswith("challenger: test accuracy")
    assert version(1).tags["gate.test_accuracy"].startswith("failed: ")
    assert version(1).tags["gate.bundle_bytes"].startswith("passed: ")
    assert history() == []


def test_field_sets_are_a_gate_where_they_are_present(easy, built, caplog, monkeypatch):
    ones = built / "field" / "others" / "1"
    ones.mkdir(parents=True)
    (ones / "a.png").write_bytes(picture())
    (ones / "b.png").write_bytes(b"no picture")
    use(dataclasses.replace(LOW, field_accuracy=0.95), monkeypatch)
    text = said(caplog)
    assert "version 1 is registered as challenger" in text
    assert re.search(r"NO  field accuracy 0\.\d000 on 2 pictures of 1 set, at least 0\.95", text)
    assert aliases() == {"challenger": 1}
    assert version(1).tags["decision"].startswith("challenger: field accuracy")
    assert version(1).tags["gate.field_accuracy"].startswith("failed: field accuracy")

    shutil.rmtree(built / "field")
    assert "field" not in said(caplog)
    assert aliases() == {"champion": 1}
    assert "gate.field_accuracy" not in version(1).tags


def test_a_damaged_field_set_stops_the_promotion_until_it_is_mended(easy, built, caplog):
    (built / "field").mkdir()
    (built / "field" / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(PipelineError, match=r"field/bad\.zip is no sound zip"):
        register.main([])
    assert aliases() == {}
    shutil.rmtree(built / "field")
    assert "version 1 is the champion." in said(caplog)


def test_a_significantly_worse_model_does_not_replace_the_champion(easy, configured, caplog):
    said(caplog)
    choose(configured, 1)
    text = said(caplog)
    assert "version 2 is registered as challenger; version 1 stays the champion." in text
    assert "significantly worse than the present champion" in text
    assert aliases() == {"champion": 1, "challenger": 2}


def test_rollback_goes_back_and_stays_back(easy, configured, caplog):
    choose(configured, 1)
    said(caplog)
    choose(configured, 1, 3)
    promoted = said(caplog)
    assert "version 2 is the champion, in place of version 1." in promoted
    assert "pipeline.register --rollback    back to the champion before\n" in promoted
    assert aliases() == {"champion": 2, "previous": 1}

    assert "version 1 is the champion again, not 2" in said(caplog, "--rollback")
    assert aliases() == {"champion": 1}
    assert "version 2 was rolled back on 20" in said(caplog)
    assert aliases() == {"champion": 1}

    assert "version 2 is the champion, in place of version 1." in said(caplog, "--promote")
    assert aliases() == {"champion": 2, "previous": 1}
    assert versions.ROLLED_BACK not in version(2).tags
    listed = re.findall(r"(promote|rollback) +version (\d)", said(caplog, "--history"))
    assert listed == [("promote", "1"), ("promote", "2"), ("rollback", "1"), ("promote", "2")]


def test_a_promotion_that_was_cut_off_is_finished(easy, caplog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(versions, "finish", lambda *_: None)
        said(caplog)
    assert history() == []
    said(caplog)
    assert [line["action"] for line in history()] == ["promote"]


def test_what_the_pipeline_did_not_build_is_not_registered(easy):
    described = json.loads((paths.model(3) / "model.json").read_text())
    files.write_json(paths.model(3) / "model.json", described | {"sha256": "another"})
    with pytest.raises(PipelineError, match="run 3 was trained again"):
        register.main([])
    (paths.CHAMPION / "model.tflite").write_bytes(b"spoilt")
    with pytest.raises(PipelineError, match=r"model\.tflite is not the file .*: dvc repro"):
        register.main([])
    assert aliases() == {}


@pytest.mark.fault(
    "`git checkout` without `dvc checkout`, then `register`",
    "0",
    '"models/champion … differs: dvc repro"; nothing is registered',
)
@pytest.mark.parametrize("others", [[1], [1, 3]])
def test_a_champion_of_another_build_than_the_comparison_is_not_registered(
    loose, built, configured, others
):
    choose(configured, *others)
    of_another = paths.COMPARISON.read_bytes()
    choose(configured, *([3] if others == [1] else [1]))
    paths.COMPARISON.write_bytes(of_another)  # as `git checkout` does without `dvc checkout`
    with pytest.raises(PipelineError, match=r"models/champion .* differs: dvc repro"):
        register.main([])
    assert not (built / "mlflow.db").exists()


@pytest.mark.fault(
    "evaluation older than its model", "0", '"its test_loss differs"; nothing is registered'
)
def test_an_evaluation_of_another_build_is_not_registered(loose, built):
    of_run = paths.evaluation(1) / "metrics.json"
    files.write_json(of_run, json.loads(of_run.read_text()) | {"test_loss": 0.1})
    with pytest.raises(PipelineError, match=r"evaluation of run 1 .* its test_loss differs"):
        register.main([])
    assert not (built / "mlflow.db").exists()


@pytest.mark.fault(
    "`compare` killed between its outputs",
    "0",
    '"comparison.json is missing: dvc repro"; nothing is registered',
)
def test_a_comparison_that_was_cut_off_is_not_registered(loose, configured, monkeypatch):
    monkeypatch.setattr(compare, "write_bundle", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        choose(configured, 1)
    with pytest.raises(PipelineError, match=r"comparison\.json is missing: dvc repro"):
        register.main([])


@pytest.mark.fault(
    "alias `champion` deleted, then `--rollback`", "0", "the last champion comes back"
)
def test_rollback_brings_back_a_champion_whose_alias_was_deleted(easy, configured, caplog):
    choose(configured, 1)
    said(caplog)
    choose(configured, 1, 3)
    said(caplog)
    mlflow_runs.connect().delete_registered_model_alias(MODEL, "champion")
    assert "version 2 is the champion again; there was none" in said(caplog, "--rollback")
    assert aliases() == {"champion": 2, "previous": 1}
    assert versions.ROLLED_BACK not in version(2).tags
    assert "version 1 is the champion again, not 2" in said(caplog, "--rollback")


def test_a_new_registry_is_filled_again(easy, built, caplog, monkeypatch, tmp_path):
    said(caplog)
    (tmp_path / "new").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "new"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # which MLflow has set
    assert "version 1 is the champion." in said(caplog)
    assert aliases() == {"champion": 1}
    names = {run.info.run_name for run in mlflow_runs.connect().search_runs(["1"])}
    assert names == {"run-1-baseline", "run-3-optimized"}


def test_a_spoilt_champion_does_not_stand_in_the_way(easy, built, configured, caplog):
    choose(configured, 1)
    said(caplog)
    for spoilt in (built / "mlartifacts").rglob("champion/model.tflite"):
        spoilt.write_bytes(b"spoilt")
    choose(configured, 1, 3)
    assert "version 2 is the champion, in place of version 1." in said(caplog)


def test_another_data_set_is_not_registered_and_makes_no_store(loose, built, caplog):
    described = json.loads((paths.CHAMPION / "model.json").read_text())
    described["data"]["name"] = "digits"
    files.write_json(paths.CHAMPION / "model.json", described)
    assert "Models of data=digits are not registered" in said(caplog)
    assert not (built / "mlflow.db").exists()


def test_without_a_registry_the_history_is_empty_and_no_store_is_made(
    workspace, monkeypatch, caplog
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "has not had a champion yet" in said(caplog, "--history")
    assert not (workspace / "mlflow.db").exists()


@pytest.mark.parametrize(("options", "reason"), [([], "dvc repro"), (["--rollback"], "no earlier")])
def test_before_the_pipeline_has_run_it_refuses_and_makes_no_store(
    workspace, monkeypatch, options, reason
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(PipelineError, match=reason):
        register.main(options)
    assert not (workspace / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("command", "typed"),
    [(register, ["--promot"]), (retrain, ["--chec"]), (adopt, ["--hel"]), (exps, ["--hel"])],
)
def test_a_part_of_an_option_is_not_taken_for_it(capsys, command, typed):
    with pytest.raises(SystemExit) as ended:
        command.main(typed)
    assert ended.value.code == 2
    assert "usage: " in capsys.readouterr().err
