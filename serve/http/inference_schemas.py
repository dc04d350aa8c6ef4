"""Pydantic models of the JSON bodies of the Open Inference Protocol."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from serve.http.schemas import SEVEN


class ServerMetadata(BaseModel):
    """The server, and the protocol's extensions that it knows."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """Whether the server runs."""

    live: bool


class ServerReady(BaseModel):
    """Whether the server can predict."""

    ready: bool


class TensorMetadata(BaseModel):
    """A tensor that the model takes or returns; -1 in its shape is the number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The model's loaded versions and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str] = Field(description="`precision`: float32 or int8.")


class ModelReady(BaseModel):
    """Whether the model can predict."""

    name: str
    ready: bool


class InferModel(BaseModel):
    """A part of the Open Inference Protocol's bodies: of exact types, as other servers demand."""

    model_config = ConfigDict(strict=True)


class InputParameters(InferModel):
    """Parameters of an input tensor."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Bytes of the tensor, after the JSON; it has no `data` then."
    )


class Tensor(InferModel):
    """An input tensor of the Open Inference Protocol."""

    name: Literal["image"]
    shape: Annotated[
        list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=4, examples=[[1, 784]])
    ]
    datatype: Literal["UINT8", "FP32"]
    data: list[Any] | None = Field(
        None, description="Pixels from 0 to 255, row by row, flat or nested as the shape."
    )
    parameters: InputParameters | None = None


def _refuse(value: object) -> None:
    raise ValueError("this extension is not supported")


Unsupported = Annotated[None, BeforeValidator(_refuse)]


class OutputParameters(InferModel):
    """Parameters of an output to return. Those of Triton that would change it are refused."""

    binary_data: bool | None = Field(None, description="Default: `binary_data_output`.")
    classification: Unsupported = None
    shared_memory_region: Unsupported = None


class RequestedOutput(InferModel):
    """An output to return."""

    name: Literal["probabilities", "prediction"]
    parameters: OutputParameters | None = None


class InferParameters(InferModel):
    """Parameters of a request."""

    binary_data_output: bool = Field(
        False, description="True to return the outputs as bytes after the JSON."
    )


def _infer_example(schema: dict[str, Any]) -> None:
    with Image.open(BytesIO(b64decode(SEVEN))) as image:
        data = list(image.convert("L").tobytes())
    tensor = {"name": "image", "shape": [1, len(data)], "datatype": "UINT8", "data": data}
    schema["examples"] = [{"inputs": [tensor]}]


class InferRequest(InferModel):
    """A request of the Open Inference Protocol."""

    model_config = ConfigDict(json_schema_extra=_infer_example)

    id: Annotated[str, Field(max_length=64)] | None = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=2)] | None = None
    parameters: InferParameters | None = None


class OutputTensor(BaseModel):
    """An output tensor of the Open Inference Protocol."""

    name: Literal["probabilities", "prediction"]
    shape: list[int]
    datatype: Literal["FP32", "INT64", "BYTES"] = Field(description="BYTES: labels that are text.")
    data: list[float | str] | None = None
    parameters: InputParameters | None = None


class InferResponse(BaseModel):
    """A response of the Open Inference Protocol."""

    id: str
    model_name: str
    model_version: str
    outputs: list[OutputTensor]
