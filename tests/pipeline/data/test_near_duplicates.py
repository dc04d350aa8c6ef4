import numpy as np

from pipeline.data import near_duplicates


def test_near_are_those_that_comparing_each_pair_finds():
    random = np.random.default_rng(0)
    others = random.integers(0, 256, (40, 28, 28), np.uint8)
    images = np.concatenate([others[:30], random.integers(0, 256, (5, 28, 28), np.uint8)])
    noise = random.normal(0, 1, images.shape) * np.linspace(0, 60, len(images))[:, None, None]
    images = np.rint(images + noise).clip(0, 255).astype(np.uint8)

    def scaled(some):
        flat = some.reshape(len(some), -1) / 1
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    cosine = (scaled(images) @ scaled(others).T).max(axis=1)
    near = int((cosine >= 0.98).sum())
    assert 5 < near < 30
    assert near_duplicates.count(images, others) == {"identical": 1, "near": near}


def test_brightness_makes_no_other_picture_but_place_does():
    bar = np.zeros((1, 28, 28), np.uint8)
    bar[:, 4:24, 12:16] = 100
    others = np.concatenate([2 * bar, np.roll(bar, 1, axis=2)])
    assert near_duplicates.count(bar, others[:1]) == {"identical": 0, "near": 1}
    assert near_duplicates.count(bar, others[1:]) == {"identical": 0, "near": 0}
