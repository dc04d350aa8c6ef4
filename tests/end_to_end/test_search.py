"""`python -m pipeline.search` as typed, with the real stages and train.py."""

import csv
import json
import re
import signal
from pathlib import Path

import pytest
from support.processes import until

SEARCH = (
    *("python", "-m", "pipeline.search", "search=optimized", "data=digits", "threads=1"),
    *("trials=2", "processes=2", "fixed.epochs=2", "pruner.startup_trials=2"),
)


def trials(clone):
    with (clone.folder / "reports/search/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.nightly
def test_the_pipeline_trains_the_winner_to_the_same_figures(module_clone):
    clone = module_clone
    output = clone.run(*SEARCH)
    assert [trial["state"] for trial in trials(clone)] == ["complete"] * 2
    name = re.search(r"python -m pipeline.adopt (\S+)   copy the best", output)[1]
    read = "import json, sys; from pipeline.storage import dvc_experiments as e; "
    read += "print(json.dumps(e.metrics(e.find(sys.argv[1]))))"
    figures = json.loads(clone.run("python", "-c", read, name))
    assert figures["val_loss"] == min(float(trial["val_loss"]) for trial in trials(clone))
    assert clone.run("git", "status", "--porcelain") == ""

    again = clone.run(*SEARCH)
    assert not re.search(r"^trial \d+: ", again, re.MULTILINE)
    assert f"pipeline.adopt {name} " in again

    clone.run("python", "-m", "pipeline.adopt", name)
    assert clone.run("git", "status", "--porcelain").split() == ["M", "conf/run/3.yaml"]
    clone.run("git", "checkout", "conf/run/3.yaml")


def trainings(clone):
    """The trials' processes that live."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            folder = (process / "cwd").readlink()
        except OSError:
            continue
        if words[1:3] == [b"-m", b"pipeline.train"] and clone.folder in folder.parents:
            found.append(process.name)
    return found


@pytest.mark.slow
def test_a_stopped_search_leaves_no_process_and_goes_on(module_clone):
    clone = module_clone
    command = (*SEARCH, "experiment=false", "fixed.epochs=9")
    logs = clone.folder / "logs/search"
    older = set(logs.glob("*/trial-*.log"))
    search = clone.start(*command)

    def at_work():
        texts = [log.read_text() for log in set(logs.glob("*/trial-*.log")) - older]
        return sum("epoch 1/9" in text for text in texts) == 2

    until(at_work, "two trials in training")
    search.send_signal(signal.SIGINT)
    output, _ = search.communicate(timeout=120)
    assert search.returncode == 130, output
    until(lambda: not trainings(clone), "the end of the trainings")

    output = clone.run(*command)
    assert len(re.findall(r"^trial [23]: ", output, re.MULTILINE)) == 2
    assert "2 best of 2 completed trials" in output
