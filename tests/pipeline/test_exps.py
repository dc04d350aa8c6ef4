from datetime import datetime
from types import SimpleNamespace

import pytest

from pipeline import exps
from pipeline.config import PipelineError, short
from pipeline.exps import Row
from pipeline.reports import tables

NOW = datetime(2026, 11, 23, 12, 0)
NONE = "\N{EN DASH}"


@pytest.fixture
def printed(capsys, monkeypatch, caplog):
    """What the command prints in a terminal so wide, and what it logs."""

    def run(*arguments, room=1000):
        monkeypatch.setattr(tables, "room", lambda: room)
        capsys.readouterr()
        caplog.clear()
        with caplog.at_level("INFO", "pipeline.exps"):
            exps.main(list(arguments))
        return capsys.readouterr().out, "".join(caplog.messages)

    return run


def test_head_comes_first_then_its_experiments_the_best_on_top(laboratory, printed):
    laboratory.git("branch", "-m", "x")
    laboratory.experiment("fair", val_accuracy=0.91, wrong=[1, 2])
    laboratory.experiment("good", val_accuracy=0.95, wrong=[1], settings={"epochs": 7})
    laboratory.experiment("bad", val_accuracy=0.5)
    lines = printed()[0].splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["x", "good", "fair", "bad"]
    assert lines[2].split()[1:4] == ["95.00", "99.50", "7"]
    assert lines[1].split()[1:3] == [NONE, NONE]


def test_only_what_differs_is_a_column(laboratory, printed):
    laboratory.experiment("one")
    laboratory.experiment("two", run=3, split=1, settings={"epochs": 7})
    head = printed()[0].splitlines()[0].split()
    assert head[5:] == ["run", "seed", "filters", "epochs", "created"]


def test_other_commits_are_shown_when_asked_for(laboratory, printed):
    laboratory.experiment("old")
    laboratory.commit("between")
    laboratory.commit("now")
    table_, log = printed()
    assert "old" not in table_
    assert "--all" in log
    assert "train.py -m run=1,2,3" in log
    table_, log = printed("--all")
    assert [line.split()[0] for line in table_.splitlines()[1:]] == [
        "main",
        laboratory.git("rev-parse", "HEAD~2")[:7],
        "old",
    ]
    assert log == ""


@pytest.mark.parametrize("room", [80, 100, 120, 1000])
def test_no_name_and_no_number_is_cut_off(laboratory, printed, room):
    tried = {"a_long_setting": 1, "another_long_setting": 2, "yet_another_setting": 3}
    laboratory.experiment("run1-epochs=3-learning_rate=0.001-ab12cd34ef56", settings=tried)
    different = {name: value + 0.5 for name, value in tried.items()}
    laboratory.experiment("run3-with-a-name-of-more-than-40-letters", run=3, settings=different)
    output, log = printed(room=room)
    assert "\N{HORIZONTAL ELLIPSIS}" not in output
    assert max(map(len, output.splitlines())) <= room
    assert ("more settings differ; `dvc exp show` has them all" in log) == (room <= 120)


def test_what_was_tried_most_comes_first_after_what_makes_incomparable():
    settings = [
        {"epochs": "6", "dense": "0", "seed": "1", "run": "1"},
        {"epochs": "5", "dense": "64", "seed": "2", "run": "3"},
        {"epochs": "5", "dense": "128", "seed": "2", "run": "3"},
        {"epochs": "5", "seed": "1"},
    ]
    assert exps.varying(settings) == ["run", "seed", "dense", "epochs"]
    assert exps.varying(settings[:1]) == []


def test_keys_are_short_where_that_is_clear():
    keys = ["name", "optimizer.name", "optimizer.learning_rate", "model.size", "batch.size"]
    assert short(keys) == {
        "name": "name",
        "optimizer.name": "optimizer.name",
        "optimizer.learning_rate": "learning_rate",
        "model.size": "model.size",
        "batch.size": "batch.size",
    }


def made(state):
    """An experiment as DVC shows it, with the files of the commit it started from."""
    data = SimpleNamespace(
        timestamp=NOW,
        metrics={"reports/metrics.json": {"data": {"val_accuracy": 0.9, "test_accuracy": 0.8}}},
        params={
            "params.yaml": {"data": {"seed": 7, "runs": [1]}},
            "reports/best.yaml": {"data": {"run": 3, "name": "n", "model": {"dense": 64}}},
        },
    )
    executor = SimpleNamespace(state=state) if state else None
    revision = SimpleNamespace(name="it", rev="ab" * 20, data=data)
    return SimpleNamespace(revs=[revision], executor=executor)


@pytest.mark.parametrize("state", ["queued", "running", "failed"])
def test_what_is_not_finished_shows_its_picks_and_no_stale_figures(state):
    commit = SimpleNamespace(**vars(made(None).revs[0]), experiments=[made(state), made("success")])
    head, finished, unfinished = exps.rows_of(commit)
    assert head.settings == finished.settings == {"seed": "7", "run": "3", "model.dense": "64"}
    assert (finished.state, unfinished.state) == ("", state)
    assert unfinished.settings == {"seed": "7"}
    assert unfinished.metrics == {}
    columns = {c.title: c.cells for c in exps.columns_of([head, finished, unfinished])}
    assert columns["state"] == ["", "", state]
    assert columns["val %"] == ["90.00", "90.00", NONE]
    assert "state" not in {c.title for c in exps.columns_of([head, finished])}
    unreadable = SimpleNamespace(name=None, rev="ab" * 20, data=None, experiments=None)
    assert list(exps.rows_of(unreadable)) == [Row("abababa", 0, None, {}, {}, "unreadable")]


def test_outside_of_dvc_it_says_so(workspace):
    with pytest.raises(PipelineError, match="DVC repository"):
        exps.main([])
