"""Baseline: a FastAPI endpoint that resizes the picture and calls `model.predict`."""

from __future__ import annotations

import base64
import io
import os

import keras
import numpy as np
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel

MODEL = os.environ["BENCH_MODEL"]  # a .keras file


class Picture(BaseModel):
    image: str


app = FastAPI()
model = keras.models.load_model(MODEL)


@app.post("/predict")
async def predict(picture: Picture) -> dict[str, int]:
    content = base64.b64decode(picture.image.partition(",")[2])
    image = Image.open(io.BytesIO(content)).convert("L").resize((28, 28))
    pixels = np.asarray(image)[None, :, :, None]
    return {"prediction": int(model.predict(pixels, verbose=0).argmax())}
