"""The OpenAPI document: titles and groups for people, and examples that can be sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import models_json_schema

from serve.http.inference_schemas import InferRequest
from serve.http.schemas import (
    REFERENCE,
    BatchRequest,
    FeedbackRequest,
    PredictFile,
    PredictForm,
    PredictRequest,
)

_PREDICTIONS, _STATE, _PROTOCOL, _DRIFT = "Predictions", "State", "Open Inference Protocol", "Drift"
_GROUPS = {
    _PREDICTIONS: "Digits in pictures, and what users say of the answers.",
    _STATE: "Probes, metrics, and what the service is.",
    _PROTOCOL: "The same predictions for clients of KServe, Triton and others.",
    _DRIFT: "What the drift job reads.",
}
# By the first of these that the path begins with.
_GROUP_OF = dict.fromkeys(("/predict", "/explain", "/feedback"), _PREDICTIONS)
_GROUP_OF |= {"/v2": _PROTOCOL, "/api/window": _DRIFT, "/api/reference": _DRIFT, "/": _STATE}


def complete(document: dict[str, Any], version: str) -> None:
    """Add to FastAPI's document what it lacks; `version` is the example of a model version."""
    document["tags"] = [{"name": name, "description": about} for name, about in _GROUPS.items()]
    document["components"]["schemas"].update(_request_schemas())
    for path, operation in _operations(document):
        operation["tags"] = [
            next(_GROUP_OF[start] for start in _GROUP_OF if path.startswith(start))
        ]
        # FastAPI makes a title of the function's name.
        title = operation.pop("description", operation["summary"])
        operation["summary"] = title.removesuffix(".")
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                parameter["example"] = version


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _request_schemas() -> dict[str, Any]:
    """Return the JSON schemas of all request bodies, by name."""
    models = (PredictRequest, PredictFile, PredictForm, BatchRequest, FeedbackRequest, InferRequest)
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template=REFERENCE
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas
