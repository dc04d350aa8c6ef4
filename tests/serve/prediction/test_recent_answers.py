import multiprocessing
import tracemalloc

import numpy as np
import pytest

from serve.models.image_format import ImageFormat
from serve.prediction.recent_answers import RecentAnswers

SHARES = np.linspace(0, 0.2, 10, dtype=np.float32)


def add(recent, request_id, version, digit, image, shares=SHARES, likelihood=np.nan, owner="me"):
    answer = {"request_id": request_id, "model_version": version, "prediction": digit}
    recent.add(answer | {"probabilities": shares, "digit_likelihood": likelihood}, image, owner)


def image(value):
    return np.full((28, 28), value, np.uint8)


@pytest.fixture
def ring(tmp_path):
    opened = []

    def make(slots=4):
        opened.append(RecentAnswers(tmp_path, slots))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_the_latest_are_found_and_the_oldest_are_gone(ring):
    recent = ring(4)
    for number in range(6):
        add(recent, f"id{number}", "3", number, image(number))
    assert recent.find("id0", "me") is None
    assert recent.find("id1", "me") is None
    for number in range(2, 6):
        seen = recent.find(f"id{number}", "me")
        assert (seen.prediction, seen.model_version) == (number, "3")
        assert (seen.image == number).all()


def test_of_an_id_that_is_used_again_the_latest_counts(ring):
    one, two = ring(), ring()
    for digit, recent in enumerate((one, one, two, one)):
        add(recent, "again", "3", digit, image(digit))
        assert one.find("again", "me").prediction == digit
        assert two.find("again", "me").prediction == digit


def test_large_images_are_searched_without_holding_all_of_them(tmp_path):
    recent = RecentAnswers(tmp_path, 150, ImageFormat((256, 256, 3), ("a", "b")))
    shares = np.array([0.5, 0.5], np.float32)
    for number in range(151):
        colour = np.full((256, 256, 3), number, np.uint8)
        add(recent, f"id{number}", "3", "b", colour, shares)
    tracemalloc.start()
    for number in (1, 150):
        assert (recent.find(f"id{number}", "me").image == number).all()
    assert tracemalloc.get_traced_memory()[1] < 20e6  # of 30 MB in the ring buffer
    tracemalloc.stop()
    recent.close()


def test_an_id_belongs_to_who_got_it(ring):
    recent = ring()
    for digit, owner in enumerate(("one", "other", "one", "other")):
        add(recent, "same", "3", digit, image(digit), owner=owner)
    assert recent.find("same", "one").prediction == 2
    assert recent.find("same", "other").prediction == 3
    assert recent.find("same", "on") is None


def test_it_is_allocated_also_where_an_older_version_left_holes(ring, tmp_path):
    """A write to a hole of a mapped file kills the process if the disk is full."""
    size = 64 + 969 * 1000
    for path in (tmp_path / "0.ring", tmp_path / "1.ring"):
        with path.open("wb") as file:
            file.write(b"digits3\0")
            file.truncate(size if path.name == "0.ring" else 10)
        ring(1000)
        assert path.stat().st_size == size
        assert path.stat().st_blocks * 512 >= size


def test_an_id_is_whole(ring):
    recent = ring()
    add(recent, "abc", "3", 1, image(1))
    assert recent.find("ab", "me") is None
    assert recent.find("abcd", "me") is None
    assert recent.find("", "me") is None


def test_the_next_worker_writes_on_and_files_do_not_grow(ring, tmp_path):
    add(ring(4), "first", "3", 1, image(1))
    size = (tmp_path / "0.ring").stat().st_size
    first = RecentAnswers(tmp_path, 4)  # a second one, because the first still runs
    add(first, "second", "3", 2, image(2))
    first.close()
    again = ring(4)
    add(again, "third", "3", 3, image(3))
    assert [again.find(name, "me").prediction for name in ("first", "second", "third")] == [1, 2, 3]
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {size}


def test_a_torn_image_is_not_found(ring, tmp_path):
    add(ring(4), "whole", "3", 1, image(1))
    path = tmp_path / "0.ring"
    content = bytearray(path.read_bytes())
    content[64 + 64 + 16 + 48 + 8 + 100] ^= 1
    path.write_bytes(content)
    assert ring(4).find("whole", "me") is None


def test_the_window_is_the_latest_of_all_workers_in_their_order(ring):
    one, two = ring(4), ring(4)
    for number in range(6):
        worker = one if number % 2 else two
        add(worker, "id", f"{3 + number // 4}", number, image(number), SHARES * number, 0.5)
    add(two, "id", "4", 6, image(6), SHARES * 6)
    window = one.window(100)
    assert window.predictions.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert window.versions.tolist() == ["3", "3", "3", "3", "4", "4", "4"]
    assert (window.images == np.arange(7)[:, None, None]).all()
    np.testing.assert_array_equal(window.probabilities, np.outer(np.arange(7, dtype="f4"), SHARES))
    assert (np.diff(window.times) > 0).all()
    assert (window.likelihoods[:6] == 0.5).all()
    assert np.isnan(window.likelihoods[6])
    assert [part.dtype for part in window[:3]] == [np.uint8, np.float32, np.uint8]
    assert two.window(3).predictions.tolist() == [4, 5, 6]


def test_the_window_forgets_and_may_be_empty(ring):
    recent = ring(4)
    assert [len(part) for part in recent.window(100)[:6]] == [0] * 6
    for number in range(6):
        add(recent, "id", "3", number, image(number))
    assert recent.window(100).predictions.tolist() == [2, 3, 4, 5]
    assert recent.window(2).predictions.tolist() == [4, 5]


def test_of_a_long_ring_only_its_end_is_read(ring, tmp_path):
    recent = ring(1000)
    for number in range(1300):
        add(recent, "id", "3", number % 10, image(number % 251))
    content = bytearray((tmp_path / "0.ring").read_bytes())
    content[64 + 969 * 300 :] = b"\xff" * (969 * 700)  # all but the latest 300
    (tmp_path / "0.ring").write_bytes(content)
    (read,) = recent._read(tmp_path / "0.ring", 5)
    assert read["prediction"].tolist() == [5, 6, 7, 8, 9]
    assert len(recent.window(400).times) == 300  # the others, from before the end, are corrupt


@pytest.mark.parametrize("place", [3, 64, 80, 128, 129, 137, 177, 181, 181 + 784])
def test_the_window_is_without_what_is_half_written(ring, tmp_path, place):
    recent = ring(4)
    for number in range(3):
        add(recent, f"id{number}", "3", number, image(number))
    content = bytearray((tmp_path / "0.ring").read_bytes())
    content[64 + 969 + place] ^= 1  # of the second slot
    (tmp_path / "0.ring").write_bytes(content)
    assert recent.window(100).predictions.tolist() == [0, 2]


def test_rings_of_another_version_of_this_code_are_left_alone(ring, tmp_path):
    (tmp_path / "5.ring").write_bytes(b"digits3\0".ljust(5000, b"1"))
    recent = ring(4)
    add(recent, "id", "3", 1, image(1))
    assert recent.window(100).predictions.tolist() == [1]
    assert recent.find("id", "me").prediction == 1


@pytest.mark.parametrize("slots", [3, 5])
def test_a_ring_of_another_number_of_slots_begins_anew(tmp_path, slots):
    """Its slots would be read in another order."""
    for number, size in enumerate((4, 4, 4, slots)):
        recent = RecentAnswers(tmp_path, size)
        if size == slots:
            assert recent.window(100).predictions.tolist() == []
        add(recent, "id", "3", number, image(number))
        recent.close()
    assert recent.window(100).predictions.tolist() == [3]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_reader_never_sees_a_header_that_is_being_written(ring, tmp_path):
    recent = ring(4)
    add(recent, "first", "3", 3, image(3))
    context = multiprocessing.get_context("fork")
    done = context.Event()

    def write():
        while not done.is_set():
            for _ in range(1000):
                add(recent, "again", "3", 3, image(3))

    writer = context.Process(target=write)
    writer.start()
    try:
        headers = {(tmp_path / "0.ring").read_bytes()[:16] for _ in range(20_000)}
    finally:
        done.set()
        writer.join()
    assert len(headers) == 1
