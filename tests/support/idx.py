"""Files in IDX, the format of MNIST."""

import numpy as np


def write_idx(array):
    """The IDX file of an array of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
