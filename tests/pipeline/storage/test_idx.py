import numpy as np
import pytest

from pipeline.config import PipelineError
from pipeline.storage.idx import read_idx, write_idx


@pytest.mark.parametrize("shape", [(3, 28, 28), (5,), (0, 28, 28)])
def test_idx_content_survives_writing_and_reading(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    again = read_idx(write_idx(array), "file")
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, array)


def test_idx_header_is_as_mnist_has_it():
    assert write_idx(np.zeros((2, 28, 28), np.uint8))[:16].hex(" ", 4) == (
        "00000803 00000002 0000001c 0000001c"
    )
    assert write_idx(np.array([7, 9], np.uint8)).hex() == "00000801000000020709"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file: no IDX file"),
        (b"\x1f\x8b\x08\x00 compressed", "file: no IDX file .* 1f8b0800"),
        (b"\0\0\x0d\x01\0\0\0\0", "file: no IDX file .* 00000d01"),  # floats
        (b"\0\0\x08\x03\0\0\0\x01\0", "file: ends within its header"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"file: announces \(5,\) .* holds 3"),
        (b"\0\0\x08\x01\0\0\0\x02abc", r"file: announces \(2,\) .* holds 3"),
    ],
    ids=["empty", "gzip", "floats", "header", "short", "long"],
)
def test_what_is_no_idx_file_is_refused_by_name(content, message):
    with pytest.raises(PipelineError, match=message):
        read_idx(content, "file")
