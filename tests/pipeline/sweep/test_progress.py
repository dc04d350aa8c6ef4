import re
import time

import pytest
from support import sweep_repo
from support.sweep_repo import jobs

from pipeline.sweep import job as sweep_job
from pipeline.sweep import progress
from pipeline.sweep.job import State

PLAIN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with sweep_repo.inside(tmp_path_factory.mktemp("found")):
        return jobs("run=1,2,3", "epochs=9")


def done(accuracy, loss=0.5, **known):
    state = {"experiment": f"exp-{accuracy}-{loss}", "seconds": 30.4} | known
    return State("done", 0.0, val_accuracy=accuracy, val_loss=loss, **state)


FAILED = State("failed", 0.0, seconds=300, reason="ValueError: [red]no[/red]")


@pytest.fixture(autouse=True)
def pipe(monkeypatch):
    """Whoever runs the tests may have asked for colours."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(progress, "_INTERVAL", 0.05)


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "200", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


class Screen:
    """What was printed so far."""

    def __init__(self, capsys):
        self.capsys, self.text = capsys, ""

    def read(self):
        self.text += PLAIN.sub("", self.capsys.readouterr().out)
        return self.text

    def wait_for(self, words):
        deadline = time.monotonic() + 60
        while words not in self.read():
            assert time.monotonic() < deadline, f"never printed {words!r} but:\n{self.text}"
            time.sleep(0.02)


@pytest.fixture
def screen(capsys):
    return Screen(capsys)


def test_each_change_of_a_job_is_a_line(found, tmp_path, screen):
    first, second, third = found
    with progress.shown(found, tmp_path):
        sweep_job.write(tmp_path, first, State("running", time.time()))
        screen.wait_for("starts")
        sweep_job.write(tmp_path, first, done(0.98765))
        screen.wait_for("done")
        sweep_job.write(tmp_path, second, done(0.9, reused=True))
        sweep_job.write(tmp_path, third, FAILED)
    assert screen.read().splitlines() == [
        f"[1/3] run 1 epochs=9: starts; log: {sweep_job.log_of(tmp_path, first)}",
        "[1/3] run 1 epochs=9: done in 30 s, validation accuracy 98.77 %",
        "[2/3] run 2 epochs=9: was done before, validation accuracy 90.00 %",
        "[3/3] run 3 epochs=9: failed after 5 min: ValueError: [red]no[/red]",
    ]


def test_a_terminal_has_a_bar_for_each_running_job(found, tmp_path, screen, terminal):
    log = sweep_job.log_of(tmp_path, found[0])
    with progress.shown(found, tmp_path):
        sweep_job.write(tmp_path, found[0], State("running", time.time(), pid=1))
        screen.wait_for("0/3")
        log.write_text("Running stage 'train@1':\nepoch 1/9  train 0.5\nepoch 2/9  train 0.6\n")
        screen.wait_for("2/9 train@1")
        sweep_job.write(tmp_path, found[0], done(0.9))
        screen.wait_for("1/3")


EPOCHS = "Running stage 'train@1':\nepoch 1/9  train 0.5\nepoch 2/9  train 0.6\n"


@pytest.mark.parametrize(
    ("text", "doing"),
    [
        (None, (0, None, "starts")),
        ("Reproducing experiment", (0, None, "starts")),
        ("Running stage 'fetch':\n", (0, None, "fetch")),
        (EPOCHS, (2, 9, "train@1")),
        (EPOCHS + "Running stage 'evaluate@1':\n", (0, None, "evaluate@1")),
        ("Running stage 'train@1':\n" + "epoch 8/900  train 0.5\n" * 900, (8, 900, "train@1")),
    ],
    ids=["no log", "no stage", "fetch", "train", "evaluate", "long"],
)
def test_stage_and_epoch_come_from_the_log(tmp_path, text, doing):
    log = tmp_path / "log"
    if text:
        log.write_text(text)
    assert progress._doing(log) == doing


def test_results_are_sorted_by_accuracy_and_then_loss(found, tmp_path, screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "run3-epochs=9-learning_rate=0.001-batch_size=128-filters=64-ab12cd"
    states = [done(0.9, 0.2), done(0.95, 0.4), done(0.95, 0.3, reused=True, experiment=name)]
    progress.show_results(list(zip(found, states, strict=True)), tmp_path)
    assert [line.split() for line in screen.read().splitlines()] == [
        ["name", "validation", "%", "loss", "time"],
        [name, "95.00", "0.3000", "before"],
        ["exp-0.95-0.4", "95.00", "0.4000", "30", "s"],
        ["exp-0.9-0.2", "90.00", "0.2000", "30", "s"],
    ]


def test_results_name_each_failed_job_with_reason_and_log(found, tmp_path, screen):
    sweep_job.write(tmp_path, found[0], FAILED)
    sweep_job.write(tmp_path, found[1], State("stopped", 0.0, seconds=2))
    progress.show_results(progress.outcomes(found, tmp_path), tmp_path)
    assert screen.read().splitlines() == [
        "run 1 epochs=9 failed after 5 min: ValueError: [red]no[/red]",
        f"  {sweep_job.log_of(tmp_path, found[0])}",
        "run 2 epochs=9 stopped after 2 s",
        f"  {sweep_job.log_of(tmp_path, found[1])}",
        "run 3 epochs=9 did not begin",
    ]
