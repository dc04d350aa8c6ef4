"""`fetch`: which mirrors are asked, the users' feedback, and what is left in the folder."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from support.processes import python

from pipeline import fetch
from pipeline.config import PipelineError
from pipeline.storage.idx import write_idx

RAW = Path("data/raw/mnist")
FEEDBACK = Path("data/raw/mnist_feedback")
PUBLISHED = {
    "train-images-idx3-ubyte": write_idx(np.zeros((6, 28, 28), np.uint8)),
    "train-labels-idx1-ubyte": write_idx(np.arange(6, dtype=np.uint8)),
}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in PUBLISHED.items()}


@pytest.fixture(autouse=True)
def root(workspace, monkeypatch):
    """An empty repository, with a mirror beside it."""
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    monkeypatch.delenv("MNIST_MIRROR", raising=False)
    write_folder(workspace / "mirror", PUBLISHED)
    return workspace


@pytest.fixture
def fetch_from(configured):
    """Fetches files of a few bytes, as the real configuration fetches MNIST."""

    def run(*mirrors, data="mnist", feedback=None):
        config = configured(1, f"data={data}")
        config.data.mirrors = list(mirrors)
        if data != "digits":
            config.data.files = HASHES
        if config.data.feedback:
            config.data.feedback.sha256 = feedback
        fetch.main(config)

    return run


def contents(folder=RAW):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_folder(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_the_folder_holds_the_published_files_and_nothing_else(fetch_from, root):
    write_folder(RAW, {"tmp0123": b"partial", "notes.txt": b"old"})
    write_folder(RAW / "folder", {"file": b"old"})
    write_folder(root / "outside", {"kept": b"mine"})
    (RAW / "link").symlink_to(root / "outside")
    fetch_from("mirror")
    assert contents() == PUBLISHED
    assert contents(root / "outside") == {"kept": b"mine"}


def test_own_mirror_is_asked_first(fetch_from, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("MNIST_MIRROR", "mirror")
    fetch_from("nowhere")
    assert contents() == PUBLISHED
    assert "nowhere" not in caplog.text


def test_own_mirror_of_mnist_is_not_asked_for_other_data(configured, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("MNIST_MIRROR", "nowhere")
    config = configured(1, "data=digits")
    fetch.main(config)
    files = contents(Path("data/raw/digits"))
    assert {n: hashlib.sha256(c).hexdigest() for n, c in files.items()} == config.data.files
    assert files["digits.csv"].count(b"\n") == 1797
    assert "nowhere" not in caplog.text


def test_own_mirror_of_mnist_is_not_asked_for_other_idx_files(configured, monkeypatch):
    monkeypatch.setenv("MNIST_MIRROR", "mirror")
    config = configured(1, "data.preparation=fit")
    config.data.mirrors = ["nowhere"]
    with pytest.raises(PipelineError, match="Other places can be named") as failure:
        fetch.main(config)
    assert "mirror:" not in str(failure.value)


def test_pictures_that_changed_are_described_anew_by_a_command(configured):
    config = configured(1, "data.format=folder", "data.name=mine")
    config.data.files, config.data.mirrors = {"mine.zip": "0" * 64}, ["mirror"]
    with pytest.raises(PipelineError, match=r"pipeline\.new_data mine PATH --force"):
        fetch.main(config)


def test_without_a_mirror_the_error_names_the_way_out(fetch_from):
    with pytest.raises(PipelineError) as failure:
        fetch_from("nowhere")
    assert "  nowhere: no such folder" in str(failure.value)
    for hope in ("MNIST_MIRROR=<folder or URL>", "data=digits", "make demo"):
        assert hope in str(failure.value)
    with pytest.raises(PipelineError, match=r"conf/data/digits\.yaml") as failure:
        fetch_from("nowhere", data="digits")
    assert "MNIST_MIRROR" not in str(failure.value)


def test_a_folder_that_cannot_be_written_is_named_with_the_fix(fetch_from):
    write_folder(RAW.parent, {RAW.name: b"a file in its place"})
    with pytest.raises(PipelineError, match=rf"{RAW.absolute()}.* must be a folder"):
        fetch_from("mirror")


def test_a_full_disk_is_no_fault_of_the_mirror(fetch_from, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(PipelineError, match=r"cannot write to .* No space left on device"):
        fetch_from("mirror")


def test_the_command_says_where_each_file_came_from(root):
    hashes = [f"data.files.{name}={digest}" for name, digest in HASHES.items()]
    others = [f"~data.files.t10k-{rest}" for rest in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    done = python("-m", "pipeline.fetch", "data.mirrors=[mirror]", *hashes, *others)
    assert done.stderr == ""
    lines = [f"{name}: from mirror" for name in PUBLISHED]
    assert done.stdout.splitlines() == [*lines, f"{RAW} is complete"]


# Feedback


EXPORT = b"an export"
DIGEST = hashlib.sha256(EXPORT).hexdigest()


@pytest.fixture
def export(root):
    write_folder(root / "data", {"feedback.npz": EXPORT})
    return root / "data/feedback.npz"


def test_feedback_is_copied_beside_the_published_files(fetch_from, export, monkeypatch, tmp_path):
    """From the true root, also where DVC runs the stage in a temporary copy."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "temporary")
    fetch_from("mirror", data="mnist_feedback", feedback=DIGEST)
    assert contents(FEEDBACK) == {**PUBLISHED, "feedback.npz": EXPORT}
    (FEEDBACK / "feedback.npz").write_bytes(b"damaged")
    fetch_from(data="mnist_feedback", feedback=DIGEST)
    assert contents(FEEDBACK)["feedback.npz"] == EXPORT
    export.unlink()
    fetch_from(data="mnist_feedback", feedback=DIGEST)
    assert contents(FEEDBACK)["feedback.npz"] == EXPORT, "a right copy needs no export"


def test_another_export_than_the_configured_one_is_refused(fetch_from, export):
    export.write_bytes(b"a later export")
    with pytest.raises(PipelineError, match=r"dvc pull data/feedback\.npz\.dvc"):
        fetch_from("mirror", data="mnist_feedback", feedback=DIGEST)
    assert "feedback.npz" not in contents(FEEDBACK)


def test_without_an_export_the_command_that_makes_it_is_named(fetch_from):
    with pytest.raises(PipelineError, match=r"python -m pipeline\.feedback"):
        fetch_from("mirror", data="mnist_feedback")
