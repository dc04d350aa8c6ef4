"""Pydantic models of the JSON bodies. Images are base64 text, never lists of numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

REFERENCE = "#/components/schemas/{model}"
# A 7 of 28x28 pixels, white on black.
SEVEN = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcAQAAAABaduI5AAAAP0lEQV"  # pragma: allowlist secret
    "R42o3IsQ2AMBAEwfGDEAE90CIlUgolfEhmBxiTcsFq9/i7PSk1cR/C"  # pragma: allowlist secret
    "mnCJDkI5H2PyfjOhjlyGfdi6NcO5CRcRfhCyAAAAAElFTkSuQmCC"  # pragma: allowlist secret
)
_IMAGE = f"data:image/png;base64,{SEVEN}"

ImageText = Annotated[
    str,
    Field(
        description="The image file in base64, plain or as a data URI.",
        examples=[_IMAGE],
    ),
]
Probability = Annotated[float, Field(ge=0, le=1)]
Label = Annotated[
    int | str,
    Field(
        description="A label of the model, see `labels` in /api/info: for digits a whole number"
        " from 0 to 9, for other models mostly text."
    ),
]
MAX_CLASSES = 256  # that a model may have
TopK = Annotated[int, Field(ge=1, le=MAX_CLASSES)]
RequestId = Annotated[str, Field(pattern=r"^[\w.:/+=@-]{1,64}$")]


_TOP_K = "How many of the best classes to name in `top_k` of the answer; without it none."


class PredictRequest(BaseModel):
    """An image of one digit, or of what the model knows."""

    image: ImageText
    draft: bool = Field(
        False,
        description="True while the digit is being drawn: answered, but not counted or stored.",
    )
    top_k: TopK | None = Field(None, description=_TOP_K)


class PredictFile(BaseModel):
    """A form with the image file of one digit."""

    file: bytes


class PredictForm(BaseModel):
    """A form with the image of one digit as text."""

    image: str = Field(
        description="Base64, also URL-safe, or a data URI in base64.", examples=[_IMAGE]
    )


class BatchRequest(BaseModel):
    """Images of one digit each."""

    images: Annotated[list[ImageText], Field(min_length=1)]
    top_k: TopK | None = Field(None, description=_TOP_K)


class Box(BaseModel):
    """What was read of a picture, in its pixels as it is seen: turned as its file says."""

    left: int = Field(ge=0)
    top: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Candidate(BaseModel):
    """A class with its probability."""

    label: Label
    probability: Probability


class Prediction(BaseModel):
    """The prediction for one image."""

    prediction: Label
    confidence: Probability = Field(description="Calibrated probability of the predicted class.")
    probabilities: Annotated[list[Probability], Field(min_length=2)] = Field(
        description="Of all classes, in the order of `labels` in /api/info: ten for digits."
    )
    uncertain: bool = Field(description="True if `confidence` is below CONFIDENCE_THRESHOLD.")
    digit_likelihood: Probability | None = Field(
        description="How much the image looks like a digit, or like any of the model's classes,"
        " 0 to 1 (low: out of distribution); null if the model cannot tell."
    )
    not_digit: bool = Field(
        description="True if `digit_likelihood` is below the model's threshold"
        " (for digits the 1st percentile of the validation digits, at most 0.5)."
    )
    model_version: str
    request_id: str = Field(description="The id to send with feedback on this prediction.")
    box: Box
    image: str | None = Field(
        None,
        description="The image that the model saw (28x28 for digits), a PNG as data URI; only with"
        " ?image=true.",
    )
    top_k: list[Candidate] | None = Field(
        None, description="The classes with the highest probabilities, the best first, if asked."
    )


class Occlusion(BaseModel):
    """How the probability of the prediction falls while a patch of the image is hidden."""

    size: int = Field(description="Pixels along a side of the patch.")
    stride: int = Field(description="Pixels from one position of the patch to the next.")
    falls: list[list[float]] = Field(
        description="By how much the probability falls, row by row of positions: the patch in row r"
        " and column c begins at the pixel (r * stride, c * stride). Below 0 it rises."
    )
    image: str = Field(
        description="The map over the image, a PNG as data URI. Orange: hiding it lowers the"
        " probability; blue: raises it."
    )


class Steps(BaseModel):
    """What became of the picture; each a PNG as data URI."""

    picture: str = Field(
        description="The picture as it was decoded, for digits in grey, made small, with the box."
    )
    ink: str = Field(
        description="What was taken for the digit, without its background; for models of other"
        " pictures, the picture."
    )
    image: str = Field(description="The image that the model saw.")


class Explanation(Prediction):
    """The prediction for one image, which parts of it that rests on, and the steps to it."""

    occlusion: Occlusion
    steps: Steps


class ImageFault(BaseModel):
    """The error of one image of a batch."""

    detail: str
    status: int = Field(description="The HTTP status that `/predict` returns for this image.")


class BatchPrediction(BaseModel):
    """Predictions in the order of the images."""

    predictions: list[Prediction | ImageFault]
    model_version: str


class FeedbackRequest(BaseModel):
    """The true label of an earlier prediction, or of the image in this request; null: none."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"request_id": "example-7", "label": 7, "image": _IMAGE}]},
    )

    request_id: RequestId
    label: Label | None
    image: ImageText | None = None


class Feedback(BaseModel):
    """The stored feedback."""

    request_id: str
    label: Label | None
    prediction: Label
    correct: bool = Field(description="False also for null, because the prediction is a class.")
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
    max_image_pixels: int  # of a JPEG or a PNG
    max_avif_pixels: int
    max_whole_pixels: int  # of a file that is decoded whole
    max_batch: int
    rate_limit: str | None
    api_key_required: bool


class InputInfo(BaseModel):
    """The images that a model reads."""

    shape: list[int] = Field(description="Height, width, and 1 channel (grey) or 3 (colours).")
    preparation: Literal["digit", "fit", "crop"] = Field(
        description="How a picture becomes such an image. digit: the digit is found and centred;"
        " fit: scaled to fit, and padded; crop: scaled to cover, and cut."
    )


class ModelInfo(BaseModel):
    """A loaded model."""

    model: str = Field(description="The name for `model` in requests, and in paths of /v2/models.")
    version: str
    name: str | None
    run: int | None
    sha256: str | None
    labels: list[int | str] = Field(description="The classes, in the order of `probabilities`.")
    input: InputInfo
    precision: str = Field(description="Of the file that answers: float32 or int8.")
    metrics: dict[str, Any]
    card: str | None = Field(description="The model card in Markdown; null if there is none.")


class Info(BaseModel):
    """The service, its models and limits."""

    service: str
    version: str
    model_name: str = Field(description="The model of requests that name none.")
    model_names: list[str] = Field(description="All that are served, the default first.")
    models: list[ModelInfo] = Field(
        description="Loaded versions of each model, the default first: first the one in service,"
        " then the previous one."
    )
    confidence_threshold: float
    image_formats: list[str]
    limits: Limits


class Error(BaseModel):
    """The body of every error."""

    detail: str


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Return the OpenAPI reference to the model's schema."""
    return {"$ref": REFERENCE.format(model=model.__name__)}
