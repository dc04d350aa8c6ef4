"""Formats that hold pixels: IDX as MNIST's files, CSV with an image in each row, NumPy's npz."""

import gzip
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.config.data_schema import Data, Format, Preparation
from pipeline.data.dataset import Images, Labels
from pipeline.reading.published import is_test, places
from pipeline.storage.idx import read_idx
from serve.imaging.placement import centre_digit

_OF_UCI = 16  # grey levels above 0 of the scanned digits, in 8x8 pixels


class Pictures(NamedTuple):
    """Pictures of one size, (n, h, w) or (n, h, w, channels), not prepared, and their classes."""

    pixels: Images
    labels: Labels
    own_test: int


def read(folder: Path, data: Data) -> Pictures:
    """Read the raw files; PipelineError if they do not fit together."""
    if data.split.group:
        raise PipelineError(
            f"data.split.group needs format=folder: {data.format.value} files tell no group"
        )
    form = {Format.idx: _idx, Format.csv: _csv, Format.npz: _npz}[data.format]
    return form(folder, data)


def _idx(folder: Path, data: Data) -> Pictures:
    """Read four files as MNIST's, found by the beginnings of their names."""

    def array(role: str) -> tuple[Path, NDArray[np.uint8]]:
        name = next((name for name in data.files if name.startswith(role)), None)
        if name is None:
            raise PipelineError(f"conf/data/{data.name}.yaml names no file {role}…")
        content = (folder / name).read_bytes()
        return folder / name, read_idx(_unpacked(content, name), name)

    return _joined(
        (*_pair(array(f"{part}-images")[1], array(f"{part}-labels"), data), part == "t10k")
        for part in ("train", "t10k")
    )


def _unpacked(content: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(content) if name.endswith(".gz") else content
    except (OSError, EOFError) as error:
        raise PipelineError(f"{name}: {error}") from None


def _npz(folder: Path, data: Data) -> Pictures:
    """Read arrays `images` and `labels`, or Keras' `x_train`, `y_train`, `x_test` and `y_test`."""
    return _joined(part for name in data.files for part in _arrays(folder / name, data))


def _arrays(file: Path, data: Data) -> Iterable[tuple[Images, Labels, bool]]:
    pairs = {
        ("images", "labels"): is_test(file.name),
        ("x_train", "y_train"): False,
        ("x_test", "y_test"): True,
    }
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = [
                (*_pair(arrays[pixels], (file, arrays[labels]), data), test)
                for (pixels, labels), test in pairs.items()
                if pixels in arrays and labels in arrays
            ]
            names = ", ".join(arrays)
    except (ValueError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise PipelineError(f"{file}: no .npz of plain arrays: {error}") from None
    if not found:
        raise PipelineError(
            f"{file} has the arrays {names}: name them images and labels, or x_train, y_train, "
            "x_test and y_test"
        )
    return found


def _pair(pixels: NDArray[Any], labelled: tuple[Path, NDArray[Any]], data: Data) -> Any:  # noqa: ANN401
    file, labels = labelled
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras has CIFAR's
        labels = labels[:, 0]
    if pixels.dtype != np.uint8:
        raise PipelineError(
            f"{file}: the images are {pixels.dtype}: store bytes, numpy.uint8 from 0 to 255"
        )
    if pixels.ndim not in (3, 4) or labels.ndim != 1 or len(pixels) != len(labels):
        raise PipelineError(f"{file}: images {pixels.shape} for labels {labels.shape}")
    return pixels, places(labels, data, file)


def _joined(parts: Iterable[tuple[Images, Labels, bool]]) -> Pictures:
    ordered = sorted(parts, key=lambda part: part[2])  # stable: the test files come last
    if len({pixels.shape[1:] for pixels, _, _ in ordered}) > 1:
        shapes = " and ".join(str(pixels.shape) for pixels, _, _ in ordered)
        raise PipelineError(f"images of several sizes: {shapes}; format=folder takes any size")
    pixels, labels = (np.concatenate([part[place] for part in ordered]) for place in (0, 1))
    return Pictures(pixels, labels, sum(len(each) for _, each, test in ordered if test))


def _csv(folder: Path, data: Data) -> Pictures:
    """Read rows of pixels and a label, which comes first or last, or is named in a first line."""
    return _joined((*_rows(folder / name, data), is_test(name)) for name in data.files)


def _rows(file: Path, data: Data) -> tuple[Images, Labels]:
    with file.open() as opened:
        first = [cell.strip() for cell in opened.readline().split(",")]
    titled = int(not any(cell.isdigit() for cell in first))
    try:
        column = _titled_column(first, file) if titled else _plain_column(file, len(first), data)
        cells = [place for place in range(len(first)) if place != column]
        values = np.loadtxt(file, np.uint8, delimiter=",", skiprows=titled, usecols=cells, ndmin=2)
        labels = _column(file, column, skiprows=titled)
    except ValueError as error:
        raise PipelineError(
            f"{file}: {error}: rows must be pixels from 0 to 255 and a label"
        ) from None
    return _images(values, data, file), places(labels, data, file)


def _column(file: Path, column: int, skiprows: int = 0) -> NDArray[np.str_]:
    return np.loadtxt(
        file, str, delimiter=",", skiprows=skiprows, usecols=column, ndmin=1, comments=None
    )


def _titled_column(titles: list[str], file: Path) -> int:
    found = [place for place, title in enumerate(titles) if title.lower() in ("label", "class")]
    if not found:
        some = ", ".join(titles[:3])
        raise PipelineError(f"{file}: no column is called label or class, but {some}, …")
    return found[0]


def _plain_column(file: Path, width: int, data: Data) -> int:
    """Return the last column, or the first if only that one holds labels."""
    for column in (width - 1, 0):
        different = set(_column(file, column).tolist())
        numbers = {str(place) for place in range(len(data.classes))}
        if len(different) > 1 and different <= {*data.classes, *numbers}:
            return column
    return width - 1


def _images(values: NDArray[np.uint8], data: Data, file: Path) -> Images:
    height, width, channels = data.shape
    count = values.shape[1]
    if count != math.prod(data.shape):
        height = width = math.isqrt(count // channels)
    if height * width * channels != count:
        wanted = " x ".join(map(str, data.shape))
        raise PipelineError(
            f"{file}: rows must be {wanted} pixels (data.input) or those of a square, and a "
            f"label, not {count + 1} columns"
        )
    images: Images = values.reshape(-1, height, width, channels)
    if channels == 1:
        images = images[..., 0]
    if (height, width, channels) != (8, 8, 1) or images.max(initial=0) > _OF_UCI:
        return images
    images = (images * (255 / _OF_UCI)).round().astype(np.uint8)
    if data.preparation is not Preparation.digit:
        return images
    return np.stack([centre_digit(grey) for grey in images])
