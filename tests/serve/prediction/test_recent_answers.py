import numpy as np
import pytest

from serve.prediction import recent_answers
from serve.prediction.recent_answers import RecentAnswers

SHARES = np.linspace(0, 0.2, 10, dtype=np.float32)


def add(recent, request_id, version, digit, image, shares=SHARES, likelihood=np.nan):
    answer = {"request_id": request_id, "model_version": version, "prediction": digit}
    recent.add(answer | {"probabilities": shares, "digit_likelihood": likelihood}, image)


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
    assert recent.find("id0") is None
    assert recent.find("id1") is None
    for number in range(2, 6):
        seen = recent.find(f"id{number}")
        assert (seen.prediction, seen.model_version) == (number, "3")
        assert (seen.image == number).all()


def test_of_an_id_that_is_used_again_the_latest_counts(ring):
    one, two = ring(), ring()
    for digit, recent in enumerate((one, one, two, one)):
        add(recent, "again", "3", digit, image(digit))
        assert two.find("again").prediction == digit


def test_an_id_is_whole(ring):
    recent = ring()
    add(recent, "abc", "3", 1, image(1))
    assert recent.find("ab") is None
    assert recent.find("abcd") is None
    assert recent.find("") is None


def test_another_worker_finds_it(ring):
    one, two = ring(), ring()
    add(one, "from-one", "3", 1, image(1))
    add(two, "from-two", "4", 2, image(2))
    assert two.find("from-one").prediction == 1
    assert one.find("from-two").prediction == 2


def test_the_next_worker_writes_on_and_files_do_not_grow(ring, tmp_path):
    add(ring(4), "first", "3", 1, image(1))
    size = (tmp_path / "0.ring").stat().st_size
    first = RecentAnswers(tmp_path, 4)  # a second one, because the first still runs
    add(first, "second", "3", 2, image(2))
    first.close()
    again = ring(4)
    add(again, "third", "3", 3, image(3))
    assert [again.find(name).prediction for name in ("first", "second", "third")] == [1, 2, 3]
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {size}


def test_a_torn_image_is_not_found(ring, tmp_path):
    add(ring(4), "whole", "3", 1, image(1))
    path = tmp_path / "0.ring"
    content = bytearray(path.read_bytes())
    content[64 + 64 + 48 + 8 + 100] ^= 1
    path.write_bytes(content)
    assert ring(4).find("whole") is None


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
    assert [len(part) for part in recent.window(100)] == [0] * 6
    for number in range(6):
        add(recent, "id", "3", number, image(number))
    assert recent.window(100).predictions.tolist() == [2, 3, 4, 5]
    assert recent.window(2).predictions.tolist() == [4, 5]


def test_of_a_long_ring_only_its_end_is_read(ring, tmp_path):
    recent = ring(1000)
    for number in range(1300):
        add(recent, "id", "3", number % 10, image(number % 251))
    content = bytearray((tmp_path / "0.ring").read_bytes())
    content[64 + 953 * 300 :] = b"\xff" * (953 * 700)  # all but the latest 300
    (tmp_path / "0.ring").write_bytes(content)
    assert recent_answers._read(tmp_path / "0.ring", 5)["prediction"].tolist() == [5, 6, 7, 8, 9]
    assert len(recent.window(400).times) == 300  # the others, from before the end, are corrupt


@pytest.mark.parametrize("place", [3, 64, 112, 113, 121, 161, 165, 165 + 784])
def test_the_window_is_without_what_is_half_written(ring, tmp_path, place):
    recent = ring(4)
    for number in range(3):
        add(recent, f"id{number}", "3", number, image(number))
    content = bytearray((tmp_path / "0.ring").read_bytes())
    content[64 + 953 + place] ^= 1  # of the second slot
    (tmp_path / "0.ring").write_bytes(content)
    assert recent.window(100).predictions.tolist() == [0, 2]


def test_rings_of_another_version_of_this_code_are_left_alone(ring, tmp_path):
    (tmp_path / "5.ring").write_bytes(b"digits2\0".ljust(5000, b"1"))
    recent = ring(4)
    add(recent, "id", "3", 1, image(1))
    assert recent.window(100).predictions.tolist() == [1]
    assert recent.find("id").prediction == 1


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
