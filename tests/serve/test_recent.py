import numpy as np
import pytest

from serve.recent import Recent


def image(value):
    return np.full((28, 28), value, np.uint8)


@pytest.fixture
def ring(tmp_path):
    opened = []

    def make(slots=4):
        opened.append(Recent(tmp_path, slots))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_the_latest_are_found_and_the_oldest_are_gone(ring):
    recent = ring(4)
    for number in range(6):
        recent.add(b"id%d" % number, b"3", number, image(number))
    assert recent.find("id0") is None
    assert recent.find("id1") is None
    for number in range(2, 6):
        seen = recent.find(f"id{number}")
        assert (seen.prediction, seen.model_version) == (number, "3")
        assert (seen.image == number).all()


def test_of_an_id_that_is_used_again_the_latest_counts(ring):
    one, two = ring(), ring()
    for digit, recent in enumerate((one, one, two, one)):
        recent.add(b"again", b"3", digit, image(digit))
        assert two.find("again").prediction == digit


def test_an_id_is_whole(ring):
    recent = ring()
    recent.add(b"abc", b"3", 1, image(1))
    assert recent.find("ab") is None
    assert recent.find("abcd") is None
    assert recent.find("") is None


def test_another_worker_finds_it(ring):
    one, two = ring(), ring()
    one.add(b"from-one", b"3", 1, image(1))
    two.add(b"from-two", b"4", 2, image(2))
    assert two.find("from-one").prediction == 1
    assert one.find("from-two").prediction == 2


def test_the_next_worker_writes_on_and_files_do_not_grow(ring, tmp_path):
    ring(4).add(b"first", b"3", 1, image(1))
    size = (tmp_path / "0.ring").stat().st_size
    first = Recent(tmp_path, 4)  # a second one, because the first still runs
    first.add(b"second", b"3", 2, image(2))
    first.close()
    again = ring(4)
    again.add(b"third", b"3", 3, image(3))
    assert [again.find(name).prediction for name in ("first", "second", "third")] == [1, 2, 3]
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {size}


def test_a_torn_image_is_not_found(ring, tmp_path):
    ring(4).add(b"whole", b"3", 1, image(1))
    path = tmp_path / "0.ring"
    content = bytearray(path.read_bytes())
    content[64 + 64 + 48 + 8 + 100] ^= 1
    path.write_bytes(content)
    assert ring(4).find("whole") is None
