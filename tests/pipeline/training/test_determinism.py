import os
import subprocess
import sys
from pathlib import Path

import pytest

CONVOLVE = """
from pipeline.training import determinism
determinism.start(1, 1, "{}")
import tensorflow as tf
tf.nn.conv2d(tf.ones((1, 28, 28, 8)), tf.ones((3, 3, 8, 8)), 1, "SAME")
"""


@pytest.mark.skipif("avx512" not in Path("/proc/cpuinfo").read_text(), reason="no AVX-512 to avoid")
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_processor_with_avx512_gives_the_weights_of_one_without(precision):
    said = subprocess.run(
        [sys.executable, "-c", CONVOLVE.format(precision)],
        env={**os.environ, "ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ("cpu,isa:Intel AVX2\n" in said) == (precision == "float32")
