"""The Open Inference Protocol (KServe V2): `/v2/…`.

A body is JSON, or JSON with the bytes of tensors after it (Triton's binary tensor data extension).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from serve.http import request_body
from serve.http.direct_route import Json, errors, post
from serve.http.inference_schemas import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelReady,
    RequestedOutput,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Tensor,
    TensorMetadata,
)
from serve.http.schemas import reference
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise_all
from serve.imaging.placement import SIDE, Grey
from serve.models.loaded import Model
from serve.prediction.recent_answers import Answer
from serve.prediction.service import Service
from serve.routes.predict import requested_model, still_there
from serve.settings import VERSION
from serve.telemetry.request_context import RequestContext

_LENGTH = "inference-header-content-length"  # of the JSON before the bytes
_BINARY = "application/octet-stream"
_TAKES = {
    "application/json": reference(InferRequest),
    _BINARY: {"type": "string", "format": "binary"},
}
_JSON_LENGTH: dict[str, Any] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "Length of the JSON, if the bytes of tensors follow it.",
}
_VERSION: dict[str, Any] = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
}
Pixels = NDArray[np.uint8 | np.float32 | np.float64]
_DTYPES = {"UINT8": "u1", "FP32": "<f4"}
_INPUT = TensorMetadata(name="image", datatype="UINT8", shape=[-1, SIDE, SIDE, 1])
_OUTPUTS = [
    TensorMetadata(name="probabilities", datatype="FP32", shape=[-1, 10]),
    TensorMetadata(name="prediction", datatype="INT64", shape=[-1]),
]
_ALL = [RequestedOutput(name="probabilities"), RequestedOutput(name="prediction")]


def install(app: FastAPI, service: Service) -> None:
    """Add the routes to the application."""
    name = service.settings.model_name
    paths = f"/v2/models/{name}", f"/v2/models/{name}/versions/{{version}}"
    _install_server(app, service)
    _install_metadata(app, service, name, *paths)
    _install_inference(app, service, name, *paths)


def _unready(answer: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": answer, "description": "Not ready"}}


def _install_server(app: FastAPI, service: Service) -> None:
    @app.get("/v2")
    async def server_metadata() -> ServerMetadata:
        """The server's name and version."""
        extensions = ["binary_tensor_data"]
        return ServerMetadata(name="digit-platform", version=VERSION, extensions=extensions)

    @app.get("/v2/health/live")
    async def server_live() -> ServerLive:
        """Liveness: the process runs."""
        return ServerLive(live=True)

    @app.get("/v2/health/ready", response_model=ServerReady, responses=_unready(ServerReady))
    async def server_ready() -> JSONResponse:
        """Readiness: a model is loaded and the service is not stopping."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)


def _install_metadata(
    app: FastAPI, service: Service, name: str, model_path: str, version_path: str
) -> None:
    @app.get(model_path, responses=errors(401, 429, 503))
    async def model_metadata() -> ModelMetadata:
        """The model's versions, inputs and outputs."""
        return metadata(None)

    def metadata(version: str | None) -> ModelMetadata:
        precision = service.models.choose(version).predictor.precision
        versions = [model.version for model in service.models.loaded]
        return ModelMetadata(
            name=name,
            versions=versions,
            platform="tensorflow_lite",
            inputs=[_INPUT],
            outputs=_OUTPUTS,
            properties={"precision": precision},
        )

    @app.get(version_path, responses=errors(401, 404, 429, 503))
    async def model_version_metadata(version: str) -> ModelMetadata:
        """Inputs and outputs of a loaded version of the model."""
        return metadata(version)

    @app.get(
        f"{model_path}/ready",
        response_model=ModelReady,
        responses=errors(401, 429) | _unready(ModelReady),
    )
    async def model_ready() -> JSONResponse:
        """Readiness of the model."""
        content = {"name": name, "ready": service.ready}
        return JSONResponse(content, 200 if service.ready else 503)

    @app.get(
        f"{version_path}/ready",
        response_model=ModelReady,
        responses=errors(401, 404, 429) | _unready(ModelReady),
    )
    async def model_version_ready(version: str) -> JSONResponse:
        """Readiness of a loaded version of the model."""
        service.models.choose(version)
        return await model_ready()


def _install_inference(
    app: FastAPI, service: Service, name: str, model_path: str, version_path: str
) -> None:
    for path in (model_path, version_path):
        service.metrics.await_errors(f"{path}/infer")

    @post(app, f"{model_path}/infer", _TAKES, InferResponse, [_JSON_LENGTH], also=[_BINARY])
    async def model_infer(request: Request) -> Response:
        """Predict the digits in images of 28x28 pixels from 0 to 255, flat or nested."""
        context = RequestContext.of(request.scope)
        request_body.check_json(context.header(b"content-type"), also=_BINARY)
        model = _model(service, request)
        body = await request.body()
        length = _json_length(context, len(body))

        def work() -> tuple[InferRequest, list[Answer]]:
            asked = InferRequest.model_validate_json(body[:length])
            started = perf_counter()
            images = _images(asked.inputs[0], body[length:], service.settings.max_batch)
            return asked, service.predict_images(images, model, context, started)

        asked, answers = await service.run_batch(len(body), work, still_there(request))
        tensors, raw = _outputs(asked, answers)
        content = {"id": asked.id or context.id, "model_name": name, "model_version": model.version}
        return _response(Json(content | {"outputs": tensors}, model.version), raw)

    @post(
        app,
        f"{version_path}/infer",
        _TAKES,
        InferResponse,
        [_VERSION, _JSON_LENGTH],
        also=[_BINARY],
    )
    async def model_version_infer(request: Request) -> Response:
        """Predict by a loaded version of the model."""
        return await model_infer(request)


def _model(service: Service, request: Request) -> Model:
    version = request.path_params.get("version")
    return service.models.choose(version) if version else requested_model(service, request)


def _json_length(context: RequestContext, size: int) -> int:
    """Return the length of the JSON at the start of a body of `size` bytes."""
    if _LENGTH.encode() not in context.headers:
        return size
    header = context.header(_LENGTH.encode())
    if not (header.isdecimal() and len(header) < 20 and int(header) <= size):
        raise request_body.MalformedError(f"{_LENGTH}: must be a number up to the body's {size}")
    return int(header)


def _images(tensor: Tensor, raw: bytes, most: int) -> list[Grey]:
    """Return the (28, 28) images of an input tensor, normalised like image files."""
    count, *rest = tensor.shape
    if rest not in ([SIDE, SIDE, 1], [SIDE, SIDE], [SIDE * SIDE]):
        raise request_body.InvalidError("inputs.0.shape: must be [n, 28, 28, 1] or [n, 784]")
    if count > most:
        raise request_body.InvalidError(f"inputs.0.shape: {count} are more than the {most} allowed")
    given = _pixels(tensor, raw)
    if not (given.min() >= 0 and given.max() <= 255):
        raise request_body.InvalidError("inputs.0.data: must be numbers from 0 to 255")
    whole = given if given.dtype == np.uint8 else np.rint(given)
    images: list[Grey] = []
    for found in normalise_all(whole.astype(np.uint8, copy=False).reshape(count, SIDE, SIDE)):
        if isinstance(found, NoDigitError):
            raise NoDigitError(f"inputs.0.data: image {len(images)}: {found}") from found
        images.append(found[0])
    return images


def _pixels(tensor: Tensor, raw: bytes) -> Pixels:
    """Return the numbers of a tensor; `raw`: the bytes after the JSON."""
    given = tensor.parameters.binary_data_size if tensor.parameters else None
    if (given is None) == (tensor.data is None):
        raise request_body.InvalidError(
            "inputs.0: must have data, or binary_data_size in its parameters"
        )
    if len(raw) != (given or 0):
        raise request_body.InvalidError(
            f"inputs.0: {len(raw)} bytes follow the JSON, not its binary_data_size of {given or 0}"
        )
    size = math.prod(tensor.shape)
    if tensor.data is None:
        dtype = np.dtype(_DTYPES[tensor.datatype])
        if len(raw) != size * dtype.itemsize:
            raise request_body.InvalidError(
                f"inputs.0: has {len(raw)} bytes, not the {size * dtype.itemsize} of its shape"
            )
        return np.frombuffer(raw, dtype)
    pixels = _numbers(tensor.data, tensor.shape, tensor.datatype)
    if pixels.size != size:
        raise request_body.InvalidError(
            f"inputs.0.data: has {pixels.size} numbers, not the {size} of its shape"
        )
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
                raise request_body.InvalidError(wrong)
            data = list(chain.from_iterable(data))
    if not set(map(type, data)) <= ({int} if datatype == "UINT8" else {int, float}):
        raise request_body.InvalidError(wrong)
    try:
        if datatype == "UINT8":  # by `bytes`, in half the time
            return np.frombuffer(bytes(data), np.uint8)
        return np.array(data, np.float64)
    except (OverflowError, ValueError) as error:
        raise request_body.InvalidError("inputs.0.data: must be numbers from 0 to 255") from error


def _outputs(
    asked: InferRequest, answers: list[Answer]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the output tensors, and the bytes of those that were asked for as binary data."""
    found = {
        "probabilities": ("FP32", np.array([answer["probabilities"] for answer in answers], "<f4")),
        "prediction": ("INT64", np.array([answer["prediction"] for answer in answers], "<i8")),
    }
    by_default = bool(asked.parameters and asked.parameters.binary_data_output)
    tensors: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for output in asked.outputs or _ALL:
        datatype, values = found[output.name]
        binary = output.parameters.binary_data if output.parameters else None
        if by_default if binary is None else binary:
            raw.append(values.tobytes())
            data: dict[str, Any] = {"parameters": {"binary_data_size": values.nbytes}}
        else:
            data = {"data": values.reshape(-1)}
        tensors.append({"name": output.name, "datatype": datatype, "shape": values.shape, **data})
    return tensors, raw


def _response(answer: Json, raw: list[bytes]) -> Response:
    """Return the answer, with the bytes of tensors after it if there are any."""
    if not raw:
        return answer
    headers = {_LENGTH: str(len(answer.body)), "x-model-version": answer.headers["x-model-version"]}
    return Response(b"".join((answer.body, *raw)), headers=headers, media_type=_BINARY)
