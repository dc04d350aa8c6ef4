import os
import subprocess
import sys

import pytest

CONVOLVE = """
import os
from pipeline.training import determinism
determinism.start(1, 1, "{}")
print(os.environ.get("ONEDNN_MAX_CPU_ISA"))
import tensorflow as tf
tf.nn.conv2d(tf.ones((1, 28, 28, 8)), tf.ones((3, 3, 8, 8)), 1, "SAME")
"""


@pytest.mark.parametrize(("precision", "limit"), [("float32", "AVX2"), ("mixed_bfloat16", "None")])
def test_a_processor_with_avx512_gives_the_weights_of_one_without(precision, limit):
    given = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    said = subprocess.run(
        [sys.executable, "-c", CONVOLVE.format(precision)],
        env={**given, "ONEDNN_VERBOSE": "1"},  # oneDNN names the instructions that it uses
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert limit in said.splitlines()
    assert precision != "float32" or "AVX-512" not in said
