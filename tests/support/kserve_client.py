"""KServe's client prints the digit of a picture. Runs in `.venv-kserve`, whose pins exclude ours.

Arguments: the service's address, a file of 28x28 pixels by NumPy, and `binary` or `json`.
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

MODEL = "mnist-classifier"


async def main(url, file, way):
    """Ask as KServe's documentation does."""
    tensor = InferInput("image", [1, 28, 28, 1], "UINT8")
    tensor.set_data_from_numpy(np.load(file).reshape(1, 28, 28, 1), binary_data=way == "binary")
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_ready(url)
        assert await client.is_server_live(url)
        assert await client.is_model_ready(url, MODEL)
        answer = await client.infer(url, InferRequest(MODEL, [tensor]), model_name=MODEL)
    (digits,) = (output.as_numpy() for output in answer.outputs if output.name == "prediction")
    print(digits[0])


asyncio.run(main(*sys.argv[1:]))
