"""Tensors of the Open Inference Protocol: from a request to images, from answers to outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.http.inference_schemas import InferRequest, RequestedOutput, Tensor, TensorMetadata
from serve.http.request_body import InvalidError
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise_all
from serve.imaging.preparation import DIGIT
from serve.models.image_format import Label
from serve.models.loaded import Model
from serve.prediction.recent_answers import Answer

Images = Sequence[NDArray[np.uint8]]
Pixels = NDArray[np.uint8 | np.float32 | np.float64]
_DTYPES = {"UINT8": "u1", "FP32": "<f4"}
_ALL = [RequestedOutput(name="probabilities"), RequestedOutput(name="prediction")]


def input_metadata(model: Model) -> TensorMetadata:
    """Return the description of the input tensor."""
    return TensorMetadata(name="image", datatype="UINT8", shape=[-1, *model.images.shape])


def output_metadata(model: Model) -> list[TensorMetadata]:
    """Return the descriptions of the output tensors; labels are whole numbers or text."""
    labels = model.images.labels
    return [
        TensorMetadata(name="probabilities", datatype="FP32", shape=[-1, len(labels)]),
        TensorMetadata(name="prediction", datatype=_datatype(labels), shape=[-1]),
    ]


def _datatype(labels: Sequence[Label]) -> str:
    return "BYTES" if isinstance(labels[0], str) else "INT64"


def images(tensor: Tensor, raw: bytes, most: int, model: Model) -> Images:
    """Return the images of an input tensor; those of digits are normalised like image files.

    `raw`: the bytes after the JSON. `most`: how many images are allowed.
    """
    count, *rest = tensor.shape
    shape, size = list(model.images.shape), model.images.size
    if rest not in (shape, list(model.images.sides), [size]):
        full = ", ".join(map(str, shape))
        raise InvalidError(f"inputs.0.shape: must be [n, {full}] or [n, {size}]")
    if count > most:
        raise InvalidError(f"inputs.0.shape: {count} are more than the {most} allowed")
    given = _pixels(tensor, raw)
    if not (given.min() >= 0 and given.max() <= 255):
        raise InvalidError("inputs.0.data: must be numbers from 0 to 255")
    whole = given if given.dtype == np.uint8 else np.rint(given)
    pixels = whole.astype(np.uint8, copy=False).reshape(count, *model.images.sides)
    if model.predictor.preparation.kind == DIGIT:
        return _normalised(pixels)
    return list(pixels)  # of the model's size, to which a picture would be brought


def _normalised(pixels: NDArray[np.uint8]) -> Images:
    found: list[NDArray[np.uint8]] = []
    for each in normalise_all(pixels):
        if isinstance(each, NoDigitError):
            raise NoDigitError(f"inputs.0.data: image {len(found)}: {each}") from each
        found.append(each[0])
    return found


def _pixels(tensor: Tensor, raw: bytes) -> Pixels:
    """Return the numbers of a tensor; `raw`: the bytes after the JSON."""
    given = tensor.parameters.binary_data_size if tensor.parameters else None
    if (given is None) == (tensor.data is None):
        raise InvalidError("inputs.0: must have data, or binary_data_size in its parameters")
    if len(raw) != (given or 0):
        raise InvalidError(
            f"inputs.0: {len(raw)} bytes follow the JSON, not its binary_data_size of {given or 0}"
        )
    size = math.prod(tensor.shape)
    if tensor.data is None:
        dtype = np.dtype(_DTYPES[tensor.datatype])
        if len(raw) != size * dtype.itemsize:
            raise InvalidError(
                f"inputs.0: has {len(raw)} bytes, not the {size * dtype.itemsize} of its shape"
            )
        return np.frombuffer(raw, dtype)
    pixels = _numbers(tensor.data, tensor.shape, tensor.datatype)
    if pixels.size != size:
        raise InvalidError(f"inputs.0.data: has {pixels.size} numbers, not the {size} of its shape")
    return pixels


def _numbers(data: list[Any], shape: Sequence[int], datatype: str) -> Pixels:
    """Return the numbers of lists, flat or nested as the shape, as a flat array.

    The types are checked first: NumPy would convert any objects, at any cost.
    """
    wrong = f"inputs.0.data: must be numbers of {datatype}, flat or nested as the shape"
    if data and type(data[0]) is list:
        data = [data]
        for size in shape:
            if set(map(type, data)) != {list} or set(map(len, data)) != {size}:
                raise InvalidError(wrong)
            data = list(chain.from_iterable(data))
    if not set(map(type, data)) <= ({int} if datatype == "UINT8" else {int, float}):
        raise InvalidError(wrong)
    try:
        if datatype == "UINT8":  # by `bytes`, in half the time
            return np.frombuffer(bytes(data), np.uint8)
        return np.array(data, np.float64)
    except (OverflowError, ValueError) as error:
        raise InvalidError("inputs.0.data: must be numbers from 0 to 255") from error


def outputs(asked: InferRequest, answers: list[Answer]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the output tensors, and the bytes of those that were asked for as binary data."""
    labels = [answer["prediction"] for answer in answers]
    datatype = _datatype(labels)
    found = {
        "probabilities": ("FP32", np.array([answer["probabilities"] for answer in answers], "<f4")),
        "prediction": (datatype, np.array(labels, "<i8" if datatype == "INT64" else object)),
    }
    by_default = bool(asked.parameters and asked.parameters.binary_data_output)
    tensors: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for output in asked.outputs or _ALL:
        datatype, values = found[output.name]
        binary = output.parameters.binary_data if output.parameters else None
        if by_default if binary is None else binary:
            raw.append(_texts(labels) if datatype == "BYTES" else values.tobytes())
            data: dict[str, Any] = {"parameters": {"binary_data_size": len(raw[-1])}}
        else:
            data = {"data": labels if datatype == "BYTES" else values.reshape(-1)}
        tensors.append({"name": output.name, "datatype": datatype, "shape": values.shape, **data})
    return tensors, raw


def _texts(labels: Sequence[str]) -> bytes:
    """Return a BYTES tensor: of each text its length in 4 bytes, and itself."""
    encoded = [label.encode() for label in labels]
    return b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
