"""Pydantic models of the JSON bodies. Images are base64 text, never lists of numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

_REFERENCE = "#/components/schemas/{model}"

ImageText = Annotated[
    str,
    Field(
        description="The image file in base64, plain or as a data URI.",
        examples=["data:image/png;base64,iVBORw0KGgo…"],
    ),
]
Probability = Annotated[float, Field(ge=0, le=1)]
Digit = Annotated[int, Field(ge=0, le=9)]
RequestId = Annotated[str, Field(pattern=r"^[\w.:/+=@-]{1,64}$", examples=["example-7"])]


class PredictRequest(BaseModel):
    """An image of one digit."""

    image: ImageText
    draft: bool = Field(
        False,
        description="True while the digit is being drawn: answered, but not counted or stored.",
    )


class BatchRequest(BaseModel):
    """Images of one digit each."""

    images: Annotated[list[ImageText], Field(min_length=1)]


class Prediction(BaseModel):
    """The prediction for one image."""

    prediction: Digit
    confidence: Probability = Field(description="Calibrated probability of the predicted digit.")
    probabilities: Annotated[list[Probability], Field(min_length=10, max_length=10)]
    uncertain: bool = Field(description="True if `confidence` is below CONFIDENCE_THRESHOLD.")
    digit_likelihood: Probability | None = Field(
        description="How much the image looks like a digit, 0 to 1 (low: out of distribution);"
        " null if the model cannot tell."
    )
    not_digit: bool = Field(
        description="True if `digit_likelihood` is below the model's threshold"
        " (the 1st percentile of the validation digits)."
    )
    model_version: str
    request_id: str = Field(description="The id to send with feedback on this prediction.")
    image: str | None = Field(
        None,
        description="The 28x28 image that the model saw, a PNG as data URI; only with ?image=true.",
    )


class ImageFault(BaseModel):
    """The error of one image of a batch."""

    detail: str
    status: int = Field(description="The HTTP status that `/predict` returns for this image.")


class BatchPrediction(BaseModel):
    """Predictions in the order of the images."""

    predictions: list[Prediction | ImageFault]
    model_version: str


class FeedbackRequest(BaseModel):
    """The true digit of an earlier prediction, or of the image in this request."""

    model_config = ConfigDict(strict=True)

    request_id: RequestId
    label: Digit
    image: ImageText | None = None


class Feedback(BaseModel):
    """The stored feedback."""

    request_id: str
    label: Digit
    prediction: Digit
    correct: bool
    model_version: str


class Health(BaseModel):
    """The state of the service, and the model version that it uses."""

    status: Literal["healthy", "degraded"]
    model_loaded: bool
    model_name: str
    model_version: str | None
    reason: str | None = Field(None, description="Why the status is degraded.")


class Probe(BaseModel):
    """The answer to a health probe."""

    status: str


class Limits(BaseModel):
    """Limits on requests."""

    max_image_bytes: int
    max_image_pixels: int
    max_batch: int
    rate_limit: str | None
    api_key_required: bool


class ModelInfo(BaseModel):
    """A loaded model."""

    version: str
    name: str | None
    run: int | None
    sha256: str | None
    metrics: dict[str, Any]


class Info(BaseModel):
    """The service, its models and limits."""

    service: str
    version: str
    model_name: str
    models: list[ModelInfo] = Field(
        description="Loaded models: first the one in service, then the previous one."
    )
    confidence_threshold: float
    image_formats: list[str]
    limits: Limits


class Error(BaseModel):
    """The body of every error."""

    detail: str


class Tensor(BaseModel):
    """An input tensor of the Open Inference Protocol."""

    name: Annotated[str, Field(examples=["image"])]
    shape: Annotated[
        list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=4, examples=[[1, 784]])
    ]
    datatype: Literal["UINT8", "FP32"]
    data: list[Any] = Field(description="Pixels from 0 to 255, row by row, flat or nested.")
    parameters: dict[str, Any] | None = None


class RequestedOutput(BaseModel):
    """An output to return."""

    name: Literal["probabilities", "prediction"]
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol."""

    id: Annotated[str, Field(max_length=64)] | None = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=2)] | None = None
    parameters: dict[str, Any] | None = None


class OutputTensor(BaseModel):
    """An output tensor of the Open Inference Protocol."""

    name: Literal["probabilities", "prediction"]
    shape: list[int]
    datatype: Literal["FP32", "INT64"]
    data: list[float]


class InferResponse(BaseModel):
    """A response of the Open Inference Protocol."""

    id: str
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Return the OpenAPI reference to the model's schema."""
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def request_schemas() -> dict[str, Any]:
    """Return the JSON schemas of all request bodies, by name, for OpenAPI's components."""
    models = (PredictRequest, BatchRequest, FeedbackRequest, InferRequest)
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REFERENCE
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas
