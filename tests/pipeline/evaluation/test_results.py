import json
import shutil

import numpy as np
import pytest

from pipeline.config import PipelineError, paths
from pipeline.evaluation import results


def test_results_are_what_the_stages_wrote_in_the_order_of_runs(evaluated):
    evaluated(3, wrong=[7], val_accuracy=0.96)
    evaluated(1, images=20)
    found = results.read([3, 1, 3], "mnist")
    assert list(found) == [1, 3]
    third = found[3]
    assert third.metrics["val_accuracy"] == 0.96
    assert third.model["run"] == 3
    assert third.curves == {
        "step": [1, 2],
        "train_loss": [0.51, 0.52],
        "train_accuracy": [0.52, 0.53],
        "val_loss": [0.53, 0.54],
        "val_accuracy": [0.54, 0.55],
        "learning_rate": [0.55, 0.56],
    }
    assert third.labels.tolist() == [*range(10)] * 20
    assert np.flatnonzero(third.answers != third.labels).tolist() == [7]
    assert np.flatnonzero(~third.right).tolist() == [7]
    assert third.mistakes["actual"].tolist() == [7]
    assert third.plots.keys() == {"confusion"}


def test_results_can_lie_elsewhere(evaluated, workspace, monkeypatch):
    evaluated(2)
    (workspace / "elsewhere").mkdir()
    monkeypatch.chdir(workspace / "elsewhere")
    assert list(results.read([2], "mnist", workspace)) == [2]


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        (paths.MODELS, "train"),
        (paths.CURVES, "train"),
        (paths.EVALUATIONS, "evaluate"),
        (paths.evaluation(2) / "mistakes.npz", "evaluate"),
    ],
)
def test_what_is_missing_names_the_command_that_makes_it(evaluated, missing, command):
    evaluated(2)
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    remedy = rf"run 2: {missing}.* is missing: python -m pipeline\.{command} run=2 data=mnist$"
    with pytest.raises(PipelineError, match=remedy):
        results.read([2], "mnist")


def test_an_evaluation_of_an_older_model_is_refused(evaluated):
    evaluated(1)
    path = paths.model(1) / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "0" * 64}))
    with pytest.raises(PipelineError, match=r"after it was evaluated.*pipeline\.evaluate run=1"):
        results.read([1], "mnist")


def test_runs_of_another_data_set_are_refused(evaluated):
    evaluated(1)
    with pytest.raises(PipelineError, match=r"mnist.*pipeline\.train run=1 data=digits"):
        results.read([1], "digits")
