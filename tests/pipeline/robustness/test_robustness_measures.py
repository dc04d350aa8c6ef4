import numpy as np
import pytest

from pipeline.data.dataset import Split
from pipeline.robustness import measures


@pytest.fixture
def bars():
    """Thirty pictures of a 1."""
    images = np.zeros((30, 28, 28), np.uint8)
    images[:, 4:24, 12:16] = 255
    return Split(images, np.ones(30, np.uint8), np.arange(30, dtype=np.int32))


def by_ground(images):
    """Read a 1 on black ground, else a 0; probability 0.91 in both cases."""
    probabilities = np.full((len(images), 10), 0.01, np.float32)
    probabilities[np.arange(len(images)), (images[:, 0, 0] == 0).astype(int)] = 0.91
    return probabilities


def test_each_kind_is_measured_alone_and_as_served(bars):
    found = measures.measure(by_ground, bars, 12)
    assert found["images"] == 12
    assert tuple(found["kinds"]) == measures.KINDS
    brighter, darker = found["kinds"]["brightness"], found["kinds"]["shot_noise"]
    assert (brighter["accuracy"], brighter["served_accuracy"], brighter["no_digit"]) == (0, 1, 0)
    assert (brighter["ece"], brighter["served_ece"]) == pytest.approx((0.91, 0.09))
    assert (darker["accuracy"], darker["served_accuracy"]) == (1, 1)
    for name, mean in found["mean"].items():
        values = [figures[name] for figures in found["kinds"].values()]
        assert mean == pytest.approx(np.mean(values))


def test_all_models_are_asked_about_the_same_pictures(bars):
    asked: list[list[bytes]] = [[], []]
    for seen in asked:

        def predict(images, seen=seen):
            seen.append(images.tobytes())
            return by_ground(images)

        measures.measure(predict, bars, 6)
    assert asked[0] == asked[1]
    assert len(set(asked[0])) > 15


def test_what_shows_no_digit_is_misread_but_has_no_confidence(bars):
    dark = Split(np.zeros_like(bars.images), bars.labels, bars.index)
    found = measures.measure(by_ground, dark, 30)["kinds"]["translate"]
    assert (found["accuracy"], found["served_accuracy"], found["no_digit"]) == (1, 0, 1)
    assert (found["ece"], found["served_ece"]) == pytest.approx((0.09, 0))
