import json

import pytest
from support import sweep_repo
from support.processes import refused
from support.sweep_repo import conf, edited

from pipeline import adopt
from pipeline.config import PipelineError

FILE = "conf/run/3.yaml"
NAME = "run3-epochs=9-abc123"


@pytest.fixture
def repository(workspace):
    return sweep_repo.Repository(workspace)


def as_dvc_left_it(repository):
    """Run 3 with other settings; the comments are there."""
    text = repository.git("show", f"HEAD:{FILE}") + "\n"
    return edited(edited(text, "epochs", 97), "learning_rate", 0.123)


def tried(repository, picks="data: mnist\nruns: [3]\nseed: 42\nthreads: 2\n"):
    """An experiment with those settings."""
    changed = {
        FILE: as_dvc_left_it(repository),
        "conf/run/1.yaml": "name: another\n",
        "params.yaml": picks,
        "reports/metrics.json": json.dumps({"run": 3, "val_accuracy": 0.99}),
    }
    repository.experiment(NAME, changed)


def test_its_file_is_taken_over_to_the_byte_and_nothing_else(repository, capsys):
    tried(repository)
    expected = as_dvc_left_it(repository)
    adopt.main([NAME])
    assert (repository.folder / FILE).read_text() == expected
    assert "  # " in expected
    assert repository.git("status", "--porcelain") == f"M {FILE}"
    shown = capsys.readouterr().out
    assert f"--- a/{FILE}\n+++ b/{FILE}\n" in shown
    changes = [line for line in shown.splitlines() if line[0] in "+-"][2:]
    assert [line[1:].split("#")[0].strip() for line in changes] == [
        f"learning_rate: {conf(3, 'optimizer.learning_rate')}",
        "learning_rate: 0.123",
        f"epochs: {conf(3, 'epochs')}",
        "epochs: 97",
    ]
    assert "".join(line[0] for line in changes) == "-+-+"
    assert "dvc repro   builds run 3" in shown
    assert "note:" not in shown


def test_changes_that_would_be_lost_are_refused(repository):
    tried(repository)
    repository.edit(FILE, "batch_size", 64)
    mine = (repository.folder / FILE).read_text()
    with pytest.raises(PipelineError, match=f"git restore {FILE}"):
        adopt.main([NAME])
    assert (repository.folder / FILE).read_text() == mine


def test_picks_that_differ_are_noted_and_stay(repository, capsys):
    tried(repository, picks="data: digits\nruns: [3]\nseed: 7\nthreads: 2\n")
    adopt.main([NAME])
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert notes == [
        "note: the experiment had data=digits, params.yaml has mnist: another model",
        "note: the experiment had seed=7, params.yaml has 42: another model",
    ]
    assert "params.yaml" not in repository.git("status", "--porcelain")


@pytest.mark.parametrize(
    "file", ["pipeline/train.py", "serve/imaging/normalise.py", "conf/data/mnist.yaml", "dvc.yaml"]
)
def test_files_that_decide_a_model_too_are_noted(repository, capsys, file):
    tried(repository)
    for changed in (file, "README.md", "serve/static/style.css", "pipeline/exps.py"):
        path = repository.folder / changed
        path.parent.mkdir(exist_ok=True, parents=True)
        with path.open("a") as content:
            content.write("# newer\n")
    repository.commit("go on")
    adopt.main([NAME])
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert notes == [f"note: the experiment had another {file}: another model"]


def test_what_is_there_already_is_left_alone(repository, capsys):
    tried(repository)
    adopt.main([NAME])
    capsys.readouterr()
    changed = (repository.folder / FILE).stat().st_mtime_ns
    adopt.main([NAME])
    assert capsys.readouterr().out == f"{FILE} has these settings already.\n"
    assert (repository.folder / FILE).stat().st_mtime_ns == changed


def test_as_typed_an_error_is_one_line_and_exit_code_1(repository):
    said = refused("pipeline.adopt", "nothing")
    assert said.startswith("error: there is no experiment or commit nothing")


def test_the_run_is_the_best_one_of_a_branch_and_may_be_new(repository, capsys):
    new = "conf/run/5.yaml"
    changed = {new: "name: fifth\n", "reports/metrics.json": json.dumps({"run": 5})}
    repository.git("branch", "better", repository.experiment("fifth", changed))
    repository.edit("conf/run/2.yaml", "epochs", 98)
    adopt.main(["better"])
    assert (repository.folder / new).read_text() == "name: fifth\n"
    assert "+name: fifth" in capsys.readouterr().out
    status = repository.git("status", "--porcelain", "--untracked-files=all").splitlines()
    assert [line.split()[-1] for line in status] == ["conf/run/2.yaml", new]
