"""Upper bound: a FastAPI endpoint with the schema of `/predict` that reads no picture."""

from __future__ import annotations

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


app = FastAPI()


@app.post("/predict")
async def predict(picture: Picture) -> Answer:
    return Answer(
        prediction=5,
        confidence=0.98,
        probabilities=[0.1] * 10,
        uncertain=False,
        model_version="3",
        request_id="4c1d5f0a9b7e3d2c1a0f8e7d",
    )
