"""Baselines of `bench.serve`: FastAPI endpoints with the request of `/predict`."""

import os

from fastapi import FastAPI
from pydantic import BaseModel


class Picture(BaseModel):
    image: str


class Answer(BaseModel):
    prediction: int
    confidence: float
    probabilities: list[float]
    uncertain: bool
    model_version: str
    request_id: str


def empty() -> FastAPI:
    """Upper bound: the schema of `/predict`, and no picture is read."""
    app = FastAPI()
    answer = Answer(
        prediction=5,
        confidence=0.98,
        probabilities=[0.1] * 10,
        uncertain=False,
        model_version="3",
        request_id="4c1d5f0a9b7e3d2c1a0f8e7d",
    )

    @app.post("/predict")
    async def predict(picture: Picture) -> Answer:
        return answer

    return app


def keras() -> FastAPI:
    """What people write first: resize the picture and call `model.predict` on BENCH_MODEL."""
    import base64
    import io

    import numpy as np
    from keras.models import load_model
    from PIL import Image

    app, model = FastAPI(), load_model(os.environ["BENCH_MODEL"])

    @app.post("/predict")
    async def predict(picture: Picture) -> dict[str, int]:
        content = base64.b64decode(picture.image.partition(",")[2])
        image = Image.open(io.BytesIO(content)).convert("L").resize((28, 28))
        pixels = np.asarray(image)[None, :, :, None]
        return {"prediction": int(model.predict(pixels, verbose=0).argmax())}

    return app
