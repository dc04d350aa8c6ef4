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


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def done(accuracy, loss=0.5, **known):
    state = {"experiment": f"exp-{accuracy}-{loss}", "seconds": 30.4} | known
    return State("done", 0.0, val_accuracy=accuracy, val_loss=loss, **state)


@pytest.fixture(autouse=True)
def pipe(monkeypatch):
    """Whoever runs the tests may have asked for colours."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


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


def test_a_pipe_gets_a_line_for_each_change(found, folder, screen):
    first, second, third = found
    log = sweep_job.log_of(folder, first)
    with progress.shown(found, folder):
        sweep_job.write(folder, first, State("running", time.time()))
        screen.wait_for("starts")
        sweep_job.write(folder, first, done(0.98765))
        sweep_job.write(folder, second, done(0.9, reused=True))
        screen.wait_for("before")
        failed = State("failed", 0.0, seconds=300, reason="ValueError: [red]no[/red]")
        sweep_job.write(folder, third, failed)
    assert screen.read().splitlines() == [
        f"[1/3] run 1 epochs=9: starts; log: {log}",
        "[1/3] run 1 epochs=9: done in 30 s, validation accuracy 98.77 %",
        "[2/3] run 2 epochs=9: was done before, validation accuracy 90.00 %",
        "[3/3] run 3 epochs=9: failed after 5 min: ValueError: [red]no[/red]",
    ]


def test_a_sweep_that_is_done_at_once_is_shown_too(found, folder, screen):
    with progress.shown(found, folder):
        for job in found:
            sweep_job.write(folder, job, done(0.9))
    assert len(screen.read().splitlines()) == 3


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "150", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


EPOCHS = "Running stage 'train@1':\nepoch 1/9  train 0.5\nepoch 2/9  train 0.6\n"


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (None, "starts"),
        ("Reproducing experiment", "starts"),
        ("Running stage 'fetch':\n", "fetch"),
        (EPOCHS, "train@1, epoch 2/9"),
        (EPOCHS + "Running stage 'evaluate@1':\n", "evaluate@1"),
        ("Running stage 'train@1':\n" + "epoch 8/900  train 0.5\n" * 900, "train@1, epoch 8/900"),
    ],
    ids=["no log", "no stage", "fetch", "train", "evaluate", "long"],
)
def test_a_terminal_shows_what_each_job_is_at(found, folder, screen, terminal, log, shown):
    if log:
        sweep_job.log_of(folder, found[0]).write_text(log)
    with progress.shown(found, folder):
        sweep_job.write(folder, found[0], State("running", time.time() - 70, pid=1))
        screen.wait_for(f"run 1 epochs=9  {shown} ")
        screen.wait_for("run 2 epochs=9  waits ")
        screen.wait_for(" 7")


def test_a_terminal_shows_what_became_of_each_job(found, folder, screen, terminal):
    sweep_job.write(folder, found[0], done(0.98))
    sweep_job.write(folder, found[1], done(0.97, reused=True))
    sweep_job.write(folder, found[2], State("failed", 0.0, seconds=3.0, reason="x"))
    with progress.shown(found, folder):
        screen.wait_for("run 3")
    rows = {re.sub(r" {2,}", "|", line.strip()) for line in screen.text.splitlines()}
    assert {
        "run 1 epochs=9|done|98.00|30 s",
        "run 2 epochs=9|done before|97.00|30 s",
        "run 3 epochs=9|failed|3 s",
    } <= rows


def test_the_results_are_sorted_by_accuracy_and_then_loss(found, folder, screen):
    states = [done(0.9, 0.2), done(0.95, 0.4), done(0.95, 0.3, reused=True)]
    progress.show_results(list(zip(found, states, strict=True)), folder)
    lines = [line.split() for line in screen.read().splitlines()]
    assert lines == [
        ["name", "validation", "%", "loss", "time"],
        ["exp-0.95-0.3", "95.00", "0.3000", "before"],
        ["exp-0.95-0.4", "95.00", "0.4000", "30", "s"],
        ["exp-0.9-0.2", "90.00", "0.2000", "30", "s"],
    ]


def test_the_results_name_the_culprit_its_reason_and_its_log(found, folder, screen):
    failed = State("failed", 0.0, seconds=7, reason="ValueError: [bold]" + "so long" * 50)
    stopped = State("stopped", 0.0, seconds=2)
    progress.show_results(list(zip(found, [failed, stopped, None], strict=True)), folder)
    assert screen.read().splitlines() == [
        f"run 1 epochs=9 failed after 7 s: ValueError: [bold]{'so long' * 50}",
        f"  {sweep_job.log_of(folder, found[0])}",
        "run 2 epochs=9 stopped after 2 s",
        f"  {sweep_job.log_of(folder, found[1])}",
        "run 3 epochs=9 did not begin",
    ]


def test_long_names_are_whole_in_a_pipe(found, folder, screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "run3-epochs=9-learning_rate=0.001-batch_size=128-filters=64-ab12cd"
    progress.show_results([(found[0], done(0.9, experiment=name))], folder)
    assert name in screen.read()


def test_what_did_not_begin_has_no_state(found, folder):
    sweep_job.write(folder, found[1], done(0.9))
    assert progress.outcomes(found, folder) == [
        (found[0], None),
        (found[1], done(0.9)),
        (found[2], None),
    ]
