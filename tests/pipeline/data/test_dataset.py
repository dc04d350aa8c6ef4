from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PipelineError
from pipeline.data import dataset
from pipeline.data.dataset import SIDE, Split, Splits, read_idx, write_idx
from serve.imaging import placement


def a_split(size: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    return Split(
        images=random.integers(0, 256, (size, 28, 28), np.uint8),
        labels=random.integers(0, 10, size, np.uint8),
        index=random.permutation(size).astype(np.int32),
    )


def splits() -> Splits:
    return Splits(a_split(30, 1), a_split(5, 2), a_split(7, 3))


@pytest.mark.parametrize("shape", [(3, 28, 28), (5,), (0, 28, 28)])
def test_idx_content_survives_writing_and_reading(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    again = read_idx(write_idx(array), "file")
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, array)


def test_idx_header_is_as_mnist_has_it():
    assert write_idx(np.zeros((2, 28, 28), np.uint8))[:16].hex(" ", 4) == (
        "00000803 00000002 0000001c 0000001c"
    )
    assert write_idx(np.array([7, 9], np.uint8)).hex() == "00000801000000020709"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file: no IDX file"),
        (b"\x1f\x8b\x08\x00 compressed", "file: no IDX file .* 1f8b0800"),
        (b"\0\0\x0d\x01\0\0\0\0", "file: no IDX file .* 00000d01"),  # floats
        (b"\0\0\x08\x03\0\0\0\x01\0", "file: ends within its header"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"file: announces \(5,\) .* holds 3"),
        (b"\0\0\x08\x01\0\0\0\x02abc", r"file: announces \(2,\) .* holds 3"),
    ],
    ids=["empty", "gzip", "floats", "header", "short", "long"],
)
def test_what_is_no_idx_file_is_refused_by_name(content, message):
    with pytest.raises(PipelineError, match=message):
        read_idx(content, "file")


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


def test_equal_splits_are_equal_bytes(tmp_path: Path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    dataset.save(splits(), first)
    dataset.save(splits(), second)
    assert first.read_bytes() == second.read_bytes()


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
