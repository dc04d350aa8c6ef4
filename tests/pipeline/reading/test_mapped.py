"""Data sets larger than memory: what is read, split and saved is never in memory as a whole."""

import tracemalloc

import numpy as np
import pytest

from pipeline.data import dataset
from pipeline.preprocess import statistics
from pipeline.reading.mapped import mapped, taken
from pipeline.reading.published import Published
from pipeline.reading.splits import split

SHAPE = (256, 256, 3)  # 0.2 MB


def images(count):
    for number in range(count):
        yield np.full(SHAPE, number, np.uint8)


@pytest.fixture
def peak():
    """Starts to count; returns what tells the most bytes that were allocated at once."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_images_are_those_that_were_given_and_leave_no_file(tmp_path):
    found = mapped(images(5), SHAPE, tmp_path / "new")
    np.testing.assert_array_equal(found, np.stack(list(images(5))))
    some = taken(found, np.array([3, 1], np.int32), tmp_path)
    np.testing.assert_array_equal(some[:, 0, 0, 0], [3, 1])
    assert list((tmp_path / "new").iterdir()) == list(tmp_path.glob("*.*")) == []
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_what_is_in_memory_stays_there(tmp_path):
    given = np.arange(6, dtype=np.uint8).reshape(3, 2)
    assert not isinstance(taken(given, np.array([2], np.int32), tmp_path), np.memmap)


def test_no_images_are_an_empty_array(tmp_path):
    assert mapped(iter(()), SHAPE, tmp_path).shape == (0, *SHAPE)


def test_a_large_set_is_split_and_saved_in_little_memory(tmp_path, monkeypatch, configured, peak):
    monkeypatch.chdir(tmp_path)
    overrides = ("data.classes=[a,b]", "data.split.validation=20", "data.split.test=20")
    data = configured(1, *overrides).data
    labels = np.arange(200, dtype=np.uint8) % 2
    published = Published(mapped(images(200), SHAPE, tmp_path), labels, 0)
    from sklearn import model_selection  # noqa: F401  its import takes memory of its own

    tracemalloc.reset_peak()
    before = peak()
    splits = split(published, data, 1)
    dataset.save(splits, tmp_path / "all.npz")
    for name in dataset.NAMES:
        statistics(getattr(splits, name), data.classes)
    assert peak() - before < published.images.nbytes / 2
    assert len(dataset.load(tmp_path / "all.npz", "train")) == 160
