from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PipelineError
from pipeline.data import dataset
from pipeline.data.dataset import SIDE, Split, Splits
from serve.imaging import placement

ROOT = Path(__file__).parents[3]


def a_split(size: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    return Split(
        images=random.integers(0, 256, (size, 28, 28), np.uint8),
        labels=random.integers(0, 10, size, np.uint8),
        index=random.permutation(size).astype(np.int32),
    )


def splits() -> Splits:
    return Splits(a_split(30, 1), a_split(5, 2), a_split(7, 3))


def test_splits_survive_saving_and_loading(tmp_path: Path):
    saved, path = splits(), tmp_path / "new/folder/data.npz"
    dataset.save(saved, path)
    for name in dataset.NAMES:
        loaded, original = dataset.load(path, name), getattr(saved, name)
        assert len(loaded) == len(original)
        for array in ("images", "labels", "index"):
            assert getattr(loaded, array).dtype == getattr(original, array).dtype
            np.testing.assert_array_equal(getattr(loaded, array), getattr(original, array))
    assert [path.name for path in path.parent.iterdir()] == ["data.npz"]
    dataset.save(splits(), tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_loading_one_part_does_not_read_another(tmp_path: Path):
    path, damaged = tmp_path / "data.npz", tmp_path / "damaged.npz"
    dataset.save(splits(), path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(damaged, "w") as copy:
        for member in whole.namelist():
            content = whole.read(member)
            copy.writestr(member, content[:-1] if member.startswith("test") else content)
    assert len(dataset.load(damaged, "train")) == 30
    with pytest.raises(ValueError, match="expected 5488 bytes got 5487"):
        dataset.load(damaged, "test")


def test_pipeline_and_service_have_images_of_the_same_side():
    assert placement.SIDE == SIDE


def test_missing_data_names_the_command_that_makes_it(tmp_path: Path):
    message = r"data\.npz is missing: python -m pipeline\.preprocess"
    with pytest.raises(PipelineError, match=message):
        dataset.load(tmp_path / "data.npz", "train")


def test_the_readme_of_data_lists_the_hashes_of_the_configuration(configured):
    listed = re.findall(r"\| `(\S+)` \| `([0-9a-f]{64})` \|", (ROOT / "data/README.md").read_text())
    files = [configured(1, f"data={data}").data.files for data in ("mnist", "digits")]
    assert dict(listed) == files[0] | files[1]


def test_git_has_the_readme_of_data_and_none_of_its_data():
    paths = ["data/README.md", "data/feedback.npz.dvc", "data/feedback.npz", "data/raw/mnist"]
    command = ["git", "check-ignore", "--no-index", *paths, "dvc_plots/index.html"]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ignored.split() == [*paths[2:], "dvc_plots/index.html"]
