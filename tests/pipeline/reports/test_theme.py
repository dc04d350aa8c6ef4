"""Whether readers can tell the colours of runs from the page and from each other."""

import itertools

import numpy as np
import pytest

from pipeline.reports import theme

# In linear RGB, severity 1: Machado et al., "A Physiologically-based Model for Simulation of Color
# Vision Deficiency", IEEE Trans. Visualization and Computer Graphics 2009.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
RUNS = [f"run-{number}" for number in range(1, 7)]
DAY_AND_NIGHT = pytest.mark.parametrize("scheme", [0, 1], ids=["day", "night"])


def linear(name, scheme):
    """The colour in linear RGB."""
    code = theme.COLOURS[name][scheme]
    values = np.array([int(code[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """The colour in CIELAB, where distance is how different two colours look."""
    share = TO_XYZ @ rgb.clip(0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@DAY_AND_NIGHT
@pytest.mark.parametrize("vision", VISION)
def test_colour_blind_readers_tell_runs_apart(vision, scheme):
    seen = {run: lab(VISION[vision] @ linear(run, scheme)) for run in RUNS}
    for one, other in itertools.combinations(RUNS, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)


@DAY_AND_NIGHT
@pytest.mark.parametrize("ground", ["page", "surface"])
def test_every_colour_stands_out_from_its_ground(ground, scheme):
    # WCAG 2.2, 1.4.11: 3 to 1.
    below = TO_XYZ[1] @ linear(ground, scheme)
    for run in RUNS:
        darker, lighter = sorted((below, TO_XYZ[1] @ linear(run, scheme)))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, run
