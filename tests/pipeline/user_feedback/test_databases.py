"""Merging the feedback databases of several replicas."""

import sqlite3

import numpy as np
import pytest
from support.feedback_entries import database, entry, noise

from pipeline.config import PipelineError
from pipeline.user_feedback import databases
from serve.prediction.feedback_store import NO_DIGIT


def merge(*entries):
    return databases.merge(entries)


def test_images_are_sorted_by_their_bytes_in_any_order_of_entries():
    entries = [entry(number) for number in range(20)]
    one, other = merge(*entries), merge(*reversed(entries))
    for first, second in zip(one.export, other.export, strict=True):
        np.testing.assert_array_equal(first, second)
    images = [image.tobytes() for image in one.export.images]
    assert images == sorted(images)
    expected = {noise(number).tobytes(): number % 10 for number in range(20)}
    assert dict(zip(images, one.export.labels, strict=True)) == expected


def test_an_image_with_two_entries_is_exported_once():
    corrected = entry(4, prediction=5)
    found = merge(entry(1), entry(2, image=noise(1), label=1, prediction=7), entry(3), corrected)
    assert len(found.export) == 3
    assert (found.requests, found.repeated, found.disputed) == (4, 1, 0)
    assert found.confirmed == 2  # the repeated one by the first of its two entries


def test_an_image_with_two_labels_is_dropped_and_counted():
    found = merge(entry(1), entry(2, image=noise(1), label=4), entry(3))
    assert [*found.export.labels] == [3]
    assert found.disputed == 1


@pytest.mark.parametrize(
    "bad", [entry(1, label=10), entry(1, label=-2), entry(1, image=np.zeros((28, 28), np.uint8))]
)
def test_an_unusable_entry_is_dropped_and_counted(bad):
    found = merge(bad, entry(2))
    assert [*found.export.labels] == [2]
    assert found.unusable == 1


def test_what_is_none_of_the_digits_is_exported_apart():
    found = merge(
        entry(1, label=NO_DIGIT), entry(2), entry(3), entry(4, image=noise(3), label=NO_DIGIT)
    )
    assert [*found.export.labels] == [2]
    np.testing.assert_array_equal(found.export.nondigits, [noise(1)])
    assert found.disputed == 1


def test_no_entries_are_an_empty_export():
    images, labels, nondigits = merge().export
    assert images.shape == nondigits.shape == (0, 28, 28)
    assert labels.shape == (0,)
    assert images.dtype == labels.dtype == nondigits.dtype == np.uint8


def timed(path, entries):
    """Write a database whose entries were given at the years that are their keys."""
    database(path, entries.values())
    with sqlite3.connect(path) as connection:
        for year, each in entries.items():
            row = (f"{year}-01-01T00:00:00+00:00", each.request_id)
            connection.execute("UPDATE feedback SET given_at = ? WHERE request_id = ?", row)
    return path


@pytest.mark.parametrize("last", [3, 8], ids=["lower label", "higher label"])
def test_the_latest_feedback_on_a_request_counts(tmp_path, last):
    first = timed(tmp_path / "1.db", {2021: entry(1, label=11 - last), 2022: entry(2)})
    second = timed(tmp_path / "2.db", {2020: entry(3), 2023: entry(1, label=last)})
    for order in ((first, second), (second, first)):
        labels = {each.request_id: each.label for each in databases.read(order)}
        assert labels == {"request-1": last, "request-2": 2, "request-3": 3}


def test_entries_are_read_from_the_oldest_to_the_latest(tmp_path):
    """Neither by request, nor by label, nor by database."""
    one = timed(tmp_path / "1.db", {2023: entry(1, label=0), 2020: entry(9)})
    other = timed(tmp_path / "2.db", {2021: entry(4), 2022: entry(2)})
    for order in ((one, other), (other, one)):
        read = [each.request_id for each in databases.read(order)]
        assert read == ["request-9", "request-4", "request-2", "request-1"]


def test_a_missing_database_is_named_with_where_to_look(tmp_path):
    with pytest.raises(PipelineError, match=r"feedback\.db is missing: .*STATE_DIR/feedback\.db"):
        databases.read([tmp_path / "feedback.db"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be one" * 99])
def test_another_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "other.db").write_bytes(content)
    with pytest.raises(PipelineError, match=r"other\.db cannot be read as feedback"):
        databases.read([tmp_path / "other.db"])
    with pytest.raises(PipelineError, match="cannot be read as feedback"):
        databases.read([tmp_path])
