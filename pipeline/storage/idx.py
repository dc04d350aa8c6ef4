"""IDX, the file format of MNIST (http://yann.lecun.com/exdb/mnist/, "The IDX file format").

Two zero bytes, the type, the number of dimensions, each dimension as a big-endian 32-bit count, the
data.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PipelineError

_UNSIGNED_BYTES = 0x08


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes: (n, 28, 28) images or (n,) labels.

    It is a PipelineError if the magic number or the announced number of bytes is wrong.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTES:
        raise PipelineError(
            f"{name}: no IDX file of unsigned bytes (its magic number is {content[:4].hex()})"
        )
    end = 4 + 4 * content[3]
    if len(content) < end:
        raise PipelineError(f"{name}: ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(content[4:end], ">u4"))
    expected = math.prod(shape)
    if len(content) - end != expected:
        raise PipelineError(
            f"{name}: announces {shape} = {expected} bytes of data, holds {len(content) - end}"
        )
    return np.frombuffer(content, np.uint8, offset=end).reshape(shape)


def write_idx(array: NDArray[np.uint8]) -> bytes:
    """Return the IDX file of an array of unsigned bytes; the inverse of `read_idx`."""
    header = bytes([0, 0, _UNSIGNED_BYTES, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
