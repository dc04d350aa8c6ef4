import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from serve.imaging.connected_components import connected_components


@settings(max_examples=150, deadline=None, database=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0, 0.05, 0.3, 0.4, 0.6, 1]),
)
def test_as_scipy_finds_them(seed, height, width, density):
    chance = np.random.default_rng(seed)
    mask = chance.random((height, width)) < density
    weights = chance.random((height, width)).astype(np.float32)
    found = connected_components(mask, weights)
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    assert len(found.mass) == n
    pairs = set(zip(labels[mask].tolist(), found.labels[mask].tolist(), strict=True))
    assert len(pairs) == n
    assert not found.labels[~mask].any()
    for part, place in enumerate(ndimage.find_objects(found.labels)):
        box = (place[0].start, place[1].start, place[0].stop, place[1].stop)
        assert tuple(found.boxes[part]) == box
        assert found.mass[part] == pytest.approx(weights[found.labels == part + 1].sum())


def test_a_spiral_is_one():
    spiral = np.zeros((101, 101), bool)
    for ring in range(0, 48, 4):
        spiral[ring, ring : 101 - ring] = spiral[ring : 101 - ring, 100 - ring] = True
        spiral[100 - ring, ring : 101 - ring] = spiral[ring + 4 : 101 - ring, ring] = True
        spiral[ring + 4, ring : ring + 4] = True
    assert len(connected_components(spiral, spiral.astype(np.float32)).mass) == 1
