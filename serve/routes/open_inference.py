"""The Open Inference Protocol (KServe V2): `/v2/…`."""

from __future__ import annotations

from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from numpy.typing import NDArray
from starlette.responses import JSONResponse, Response

from serve.http import request_body
from serve.http.direct_route import Json, errors, post
from serve.http.schemas import InferRequest, InferResponse, Tensor, reference
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise
from serve.imaging.placement import SIDE
from serve.models.loaded import NoModelError
from serve.prediction.recent_answers import Answer
from serve.prediction.service import Service
from serve.routes.predict import requested_model, still_there
from serve.settings import package_version
from serve.telemetry.request_context import RequestContext

_DEPTH = 4  # of lists in the data, at most: [n, 28, 28, 1]
_INPUT = {"name": "image", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 1]}
_OUTPUTS = [
    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    {"name": "prediction", "datatype": "INT64", "shape": [-1]},
]


def install(app: FastAPI, service: Service) -> None:
    """Add the routes to the application."""
    name = service.settings.model_name
    model_path = f"/v2/models/{name}"
    service.metrics.await_errors(f"{model_path}/infer")

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        """The server's name and version."""
        return {"name": "digit-platform", "version": package_version(), "extensions": []}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Liveness: the process runs."""
        return {"live": True}

    @app.get("/v2/health/ready", responses={503: {"description": "Not ready"}})
    async def ready() -> JSONResponse:
        """Readiness: a model is loaded and the service is not stopping."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get(model_path, responses=errors(401, 429, 503))
    async def metadata() -> dict[str, Any]:
        """The model's versions, inputs and outputs."""
        if not service.models.loaded:
            raise NoModelError("no model is loaded yet")
        versions = [model.version for model in service.models.loaded]
        described = {"name": name, "versions": versions, "platform": "tensorflow_lite"}
        return described | {"inputs": [_INPUT], "outputs": _OUTPUTS}

    @app.get(
        f"{model_path}/ready", responses=errors(401, 429) | {503: {"description": "Not ready"}}
    )
    async def model_ready() -> JSONResponse:
        """Readiness of the model."""
        content = {"name": name, "ready": service.ready}
        return JSONResponse(content, 200 if service.ready else 503)

    @post(app, f"{model_path}/infer", {"application/json": reference(InferRequest)}, InferResponse)
    async def infer(request: Request) -> Response:
        """Predict the digits in images of 28x28 pixels from 0 to 255, flat or nested."""
        context = RequestContext.of(request.scope)
        request_body.check_json(context.header(b"content-type"))
        model = requested_model(service, request)
        body = await request.body()

        def work() -> tuple[InferRequest, list[Answer]]:
            asked = InferRequest.model_validate_json(body)
            started = perf_counter()
            images = _images(asked.inputs[0], service.settings.max_batch)
            return asked, service.predict_images(images, model, context.id, started)

        asked, answers = await service.run_batch(len(body), work, still_there(request))
        content = {"id": asked.id or context.id, "model_name": name, "model_version": model.version}
        return Json(content | {"outputs": _outputs(asked, answers)}, model.version)


def _images(tensor: Tensor, most: int) -> list[NDArray[np.uint8]]:
    """Return the (28, 28) images of an input tensor, normalised like image files."""
    count, *rest = tensor.shape
    if rest not in ([SIDE, SIDE, 1], [SIDE, SIDE], [SIDE * SIDE]):
        raise request_body.InvalidError("inputs.0.shape: must be [n, 28, 28, 1] or [n, 784]")
    if count > most:
        raise request_body.InvalidError(f"inputs.0.shape: {count} are more than the {most} allowed")
    pixels = _numbers(tensor.data)
    if pixels.size != count * SIDE * SIDE:
        raise request_body.InvalidError(
            f"inputs.0.data: has {pixels.size} numbers, not the {count * SIDE * SIDE} of its shape"
        )
    if not (pixels.min() >= 0 and pixels.max() <= 255):
        raise request_body.InvalidError("inputs.0.data: must be numbers from 0 to 255")
    images = []
    for image in np.rint(pixels).astype(np.uint8).reshape(count, SIDE, SIDE):
        try:
            images.append(normalise(image))
        except NoDigitError as error:
            raise NoDigitError(f"inputs.0.data: image {len(images)}: {error}") from error
    return images


def _numbers(data: list[Any]) -> NDArray[np.float64]:
    """Return the numbers of nested lists as a flat array.

    The types are checked first: NumPy would convert any objects, at any cost.
    """
    for _ in range(_DEPTH):
        kinds = set(map(type, data))
        if kinds != {list} or len(set(map(len, data))) > 1:
            break
        data = list(chain.from_iterable(data))
    if not kinds <= {int, float}:
        raise request_body.InvalidError(
            "inputs.0.data: must be numbers, flat or nested as the shape"
        )
    try:
        return np.array(data, np.float64)
    except OverflowError as error:
        raise request_body.InvalidError("inputs.0.data: must be numbers from 0 to 255") from error


def _outputs(asked: InferRequest, answers: list[Answer]) -> list[dict[str, Any]]:
    wanted = [output.name for output in asked.outputs or ()] or ["probabilities", "prediction"]
    n = len(answers)
    probabilities = np.array([answer["probabilities"] for answer in answers]).reshape(-1)
    digits = [answer["prediction"] for answer in answers]
    found: dict[str, dict[str, Any]] = {
        "probabilities": {"datatype": "FP32", "shape": [n, 10], "data": probabilities},
        "prediction": {"datatype": "INT64", "shape": [n], "data": digits},
    }
    return [{"name": name, **found[name]} for name in wanted]
