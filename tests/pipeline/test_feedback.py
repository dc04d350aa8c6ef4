"""`python -m pipeline.feedback`: a file, DVC's record of it, and its name in the configuration."""

import hashlib
import logging
import subprocess

import numpy as np
import pytest
from dvc.repo import Repo
from omegaconf import OmegaConf
from support.feedback_entries import database, entry

from pipeline import feedback
from pipeline.config import CONF, PipelineError, paths
from pipeline.user_feedback import export_file
from serve.prediction.feedback_store import NO_DIGIT


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty repository with the configuration of the data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    Repo.init().close()
    feedback.CONFIGURATION.parent.mkdir(parents=True)
    feedback.CONFIGURATION.write_text((CONF / "data/mnist_feedback.yaml").read_text())
    (tmp_path / ".gitignore").write_text((CONF.parent / ".gitignore").read_text())
    return tmp_path


def named():
    return OmegaConf.load(feedback.CONFIGURATION).feedback.sha256


def export(*databases):
    feedback.main([str(path) for path in databases])


def test_the_configuration_names_what_was_exported(repository):
    before = feedback.CONFIGURATION.read_text()
    export(database(repository / "feedback.db", map(entry, range(120))))
    assert named() == hashlib.sha256(paths.FEEDBACK.read_bytes()).hexdigest()
    assert len(export_file.load(paths.FEEDBACK)) == 120
    lines = (text.splitlines() for text in (before, feedback.CONFIGURATION.read_text()))
    ((old, new),) = [pair for pair in zip(*lines, strict=True) if len(set(pair)) > 1]
    assert new.endswith(old.partition("null")[2]), "its comment is gone"


def test_dvc_keeps_the_export_and_git_sees_its_record_alone(repository):
    export(database(repository / "feedback.db", map(entry, range(120))))
    content = paths.FEEDBACK.read_bytes()
    paths.FEEDBACK.unlink()
    with Repo() as repo:
        repo.checkout([f"{paths.FEEDBACK}.dvc"])
    assert paths.FEEDBACK.read_bytes() == content
    command = ["git", "ls-files", "--others", "--exclude-standard", "data"]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert seen.split() == [f"{paths.FEEDBACK}.dvc"]


def test_the_same_feedback_is_the_same_export_whichever_replica_has_it(repository, caplog):
    caplog.set_level(logging.INFO)
    one = database(repository / "1.db", [entry(n) for n in range(120) if n % 2])
    other = database(repository / "2.db", [entry(n) for n in range(119, -1, -1) if not n % 2])
    export(one, other)
    first = named()
    caplog.clear()
    export(other, one)
    assert named() == first
    assert "has not changed" in caplog.text
    export(database(repository / "1.db", [entry(500)]), other)
    assert named() != first


def test_it_says_what_comes_in_and_what_does_not(repository, caplog):
    caplog.set_level(logging.INFO)
    odd = [
        entry(200, label=11),
        entry(201, image=np.zeros((28, 28), np.uint8)),
        entry(202, label=3, image=entry(1).image),
        entry(203, label=2, image=entry(2).image),
        entry(204, label=NO_DIGIT, prediction=3),
    ]
    right, wrong = map(entry, range(90)), (entry(n, prediction=0) for n in range(101, 120))
    export(database(repository / "feedback.db", [*right, *wrong, *odd]))
    for line in (
        "114 requests with feedback",
        "2 requests repeat an image",
        "2 requests with another label or an empty picture: dropped",
        "1 images with several labels: dropped",
        "108 images: 90 confirmed, 18 corrected",
        "0: 10, 1: 10, 2: 11, ",
        "1 images that are none of the digits",
    ):
        assert line in caplog.text, line
    assert "request-" not in caplog.text


def test_too_little_leaves_the_last_export(repository):
    export(database(repository / "feedback.db", map(entry, range(120))))
    before, name = paths.FEEDBACK.read_bytes(), named()
    few = database(repository / "few.db", map(entry, range(99)))
    with pytest.raises(
        PipelineError, match=r"^99 images of feedback can be used, but .* wants 100"
    ):
        export(few)
    assert (paths.FEEDBACK.read_bytes(), named()) == (before, name)


def test_without_dvc_it_says_so_and_names_nothing(repository):
    (repository / ".dvc/config").unlink()
    (repository / ".dvc").rename(repository / "gone")
    with pytest.raises(PipelineError, match=r"dvc add data/feedback\.npz: ERROR"):
        export(database(repository / "feedback.db", map(entry, range(120))))
    assert named() is None
