"""What several replicas were told, as one set of images with their digits."""

import sqlite3

import numpy as np
import pytest
from support.feedback_entries import database, drawn, told

from pipeline.config import PipelineError
from pipeline.user_feedback import databases


def resolved(*entries):
    return databases.resolve(entries)


def test_images_come_in_the_order_of_their_bytes_whoever_was_told_first():
    entries = [told(number) for number in range(20)]
    one, other = resolved(*entries), resolved(*reversed(entries))
    for first, second in zip(one.corrections, other.corrections, strict=True):
        np.testing.assert_array_equal(first, second)
    images = [image.tobytes() for image in one.corrections.images]
    assert images == sorted(images)
    expected = {drawn(number).tobytes(): number % 10 for number in range(20)}
    assert dict(zip(images, one.corrections.labels, strict=True)) == expected


def test_an_image_that_was_told_of_twice_is_there_once():
    found = resolved(told(1), told(2, image=drawn(1), label=1, said=7), told(3))
    assert len(found.corrections) == 2
    assert (found.told, found.repeated, found.disputed) == (3, 1, 0)
    assert found.confirmed == 2  # by the first of the two


def test_an_image_that_is_said_to_be_two_digits_is_dropped_and_counted():
    found = resolved(told(1), told(2, image=drawn(1), label=4), told(3))
    assert [*found.corrections.labels] == [3]
    assert found.disputed == 1


def test_corrections_and_confirmations_are_told_apart():
    found = resolved(told(1), told(2, said=5), told(3, said=5))
    assert len(found.corrections) == 3
    assert found.confirmed == 1


@pytest.mark.parametrize(
    "bad", [told(1, label=10), told(1, label=-1), told(1, image=np.zeros((28, 28), np.uint8))]
)
def test_what_is_no_digit_or_no_picture_is_dropped_and_counted(bad):
    found = resolved(bad, told(2))
    assert [*found.corrections.labels] == [2]
    assert found.unusable == 1


def test_nothing_told_is_no_image():
    images, labels = resolved().corrections
    assert images.shape == (0, 28, 28)
    assert labels.shape == (0,)
    assert images.dtype == labels.dtype == np.uint8


def test_the_last_that_any_replica_was_told_of_a_request_counts(tmp_path):
    first = database(tmp_path / "1/feedback.db", [told(1, label=3), told(2)])
    second = database(tmp_path / "2/feedback.db", [told(1, label=8), told(3)])
    with sqlite3.connect(second) as connection:
        connection.execute("UPDATE feedback SET given_at = '2999-01-01T00:00:00+00:00'")
    for order in ((first, second), (second, first)):
        found = {entry.request_id: entry.label for entry in databases.read(order)}
        assert found == {"request-1": 8, "request-2": 2, "request-3": 3}


def test_a_missing_database_is_named_with_where_to_look(tmp_path):
    with pytest.raises(PipelineError, match=r"feedback\.db is missing: .*STATE_DIR/feedback\.db"):
        databases.read([tmp_path / "feedback.db"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be one" * 99])
def test_another_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "other.db").write_bytes(content)
    with pytest.raises(PipelineError, match=r"other\.db cannot be read as feedback"):
        databases.read([tmp_path / "other.db"])


def test_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(PipelineError, match="cannot be read as feedback"):
        databases.read([tmp_path])


def test_images_of_another_size_are_refused(tmp_path):
    with sqlite3.connect(tmp_path / "odd.db") as connection:
        connection.execute(
            "CREATE TABLE feedback (request_id, label, prediction, model_version, image, given_at)"
        )
        connection.execute("INSERT INTO feedback VALUES ('a', 1, 1, '1', x'0102', '2026')")
    with pytest.raises(PipelineError, match=r"odd\.db cannot be read as feedback"):
        databases.read([tmp_path / "odd.db"])


@pytest.mark.parametrize("odd", ["NULL", "7", "x'00'"])
def test_rows_with_odd_types_are_refused(tmp_path, odd):
    """Two, because it is between rows that the time is compared."""
    with sqlite3.connect(tmp_path / "odd.db") as connection:
        connection.execute(
            "CREATE TABLE feedback (request_id, label, prediction, model_version, image, given_at)"
        )
        for name, at in (("a", "'2026'"), ("b", odd)):
            row = f"('{name}', 1, 1, '1', zeroblob(784), {at})"
            connection.execute(f"INSERT INTO feedback VALUES {row}")  # noqa: S608 - both are ours
    with pytest.raises(PipelineError, match=r"odd\.db cannot be read as feedback"):
        databases.read([tmp_path / "odd.db"])
