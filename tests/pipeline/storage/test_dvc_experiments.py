import json
import shutil

import pytest

from pipeline.config import PARAMS, PipelineError, paths
from pipeline.storage import dvc_experiments, git


def names(found):
    return [experiment.name for experiment in found]


def test_experiments_are_listed_without_dvcs_bookkeeping(laboratory):
    laboratory.experiment("first")
    laboratory.experiment("run1-learning_rate=0.01-ab12cd")
    assert "exec/EXEC_HEAD" in laboratory.git("for-each-ref")
    found = dvc_experiments.every()
    assert sorted(names(found)) == ["first", "run1-learning_rate=0.01-ab12cd"]
    assert {experiment.baseline for experiment in found} == {laboratory.git("rev-parse", "HEAD")}


def test_an_experiment_a_branch_and_a_commit_are_found(laboratory):
    commit = laboratory.experiment("tried")
    assert dvc_experiments.find("tried").commit == commit
    head = laboratory.git("rev-parse", "HEAD")
    for name in ("main", "HEAD", head[:8]):
        assert dvc_experiments.find(name) == dvc_experiments.Experiment(name, head, head)


def test_of_namesakes_that_of_head_is_meant(laboratory):
    laboratory.experiment("twice")
    laboratory.commit("next")
    assert dvc_experiments.of_head() == []
    ours = laboratory.experiment("twice", wrong=[1])
    assert names(dvc_experiments.of_head()) == ["twice"]
    assert dvc_experiments.find("twice").commit == ours
    laboratory.commit("and next")
    with pytest.raises(PipelineError, match=f"several.*twice; take one of .*{ours[:9]}"):
        dvc_experiments.find("twice")


def test_what_is_not_there_is_told_with_what_is_near(laboratory):
    laboratory.experiment("run1-epochs=3")
    with pytest.raises(PipelineError, match="no experiment or commit run1-epoch=3; did you mean"):
        dvc_experiments.find("run1-epoch=3")
    with pytest.raises(PipelineError, match="no experiment or commit xyz\n`make exps`"):
        dvc_experiments.find("xyz")


def test_files_that_git_tracks_are_read_from_the_commit(laboratory):
    laboratory.experiment("tried", run=2, val_accuracy=0.97, split=1)
    found = dvc_experiments.find("tried")
    assert not paths.METRICS.exists()
    assert dvc_experiments.metrics(found)["val_accuracy"] == 0.97
    assert dvc_experiments.picks(found) == {"data": "mnist", "runs": [2], "seed": 43, "threads": 2}
    assert dvc_experiments.read(found, PARAMS).startswith(b"data: mnist")
    with pytest.raises(PipelineError, match=r"main has no reports/metrics\.json"):
        dvc_experiments.metrics(dvc_experiments.find("main"))


def test_outputs_come_out_of_the_cache_whole_or_in_part(laboratory, tmp_path):
    laboratory.experiment("tried", run=2, wrong=[7])
    folder = tmp_path / "data" / "out"  # which Git ignores
    dvc_experiments.checkout(
        dvc_experiments.find("tried"), folder, paths.model(2) / "model.json", paths.evaluation(2)
    )
    figures = json.loads((folder / paths.evaluation(2) / "metrics.json").read_bytes())
    assert figures["errors"] == 1
    assert [path.name for path in (folder / paths.model(2)).iterdir()] == ["model.json"]
    assert laboratory.git("status", "--porcelain") == ""
    shutil.rmtree(laboratory.folder / ".dvc" / "cache")
    with pytest.raises(PipelineError, match="tried: reports/train is not in DVC's cache: dvc"):
        dvc_experiments.checkout(dvc_experiments.find("tried"), tmp_path / "out", paths.CURVES)


def test_git_says_no_in_its_own_words(workspace, monkeypatch):
    with pytest.raises(git.GitError, match="not a git repository"):
        git.git("rev-parse", "HEAD")
    monkeypatch.setenv("PATH", str(workspace))
    with pytest.raises(git.GitError, match="Git is not installed"):
        git.git("rev-parse", "HEAD")


def test_git_runs_in_the_true_root_and_keeps_bytes(laboratory, tmp_path, monkeypatch):
    (laboratory.folder / "bytes").write_bytes(b"\xff\x00\n\n")
    laboratory.commit("bytes")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("DVC_ROOT", str(laboratory.folder))
    assert git.content("show", "HEAD:bytes") == b"\xff\x00\n\n"
    assert git.git("log", "-1", "--format=%s") == "bytes"
