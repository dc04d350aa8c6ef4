"""How one picture is read, step by step, as one HTML file: a bug report can hold it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.archives import sources
from pipeline.config import PipelineError
from pipeline.reports import html, theme
from pipeline.scoring import pictures
from pipeline.scoring.scored import score
from serve.decoding.decode import decode, read_file
from serve.imaging.errors import ImageError
from serve.models.predictor import Predictor
from serve.prediction.explanation import explain, small_picture

_COLOUR = 3


def answer(file: Path, predictor: Predictor) -> dict[str, Any]:
    """Return what the service would answer to `/explain`; of a refused picture, `detail` says why.

    Of that one `steps` has the picture alone. It is a PipelineError if the file cannot be decoded.
    """
    content = sources.content(file.parent, file.name, most=pictures.LIMITS.max_image_bytes)
    if isinstance(content, str):
        raise PipelineError(f"{file}: {content}: name one picture")
    most = pictures.LIMITS.max_image_pixels
    try:
        picture = decode(content, max_pixels=most, channels=predictor.preparation.channels)
    except ImageError as error:
        raise PipelineError(f"{file}: {error}") from error
    found = dict(score([file.name], lambda _: content, predictor).table.iloc[0])
    if isinstance(found["detail"], str):
        return found | {"steps": {"picture": small_picture(picture.pixels, None)}}
    reading = read_file(content, max_pixels=most, preparation=predictor.preparation)
    (probabilities,) = predictor.probabilities(reading.normalised.image[None])
    explained = explain(reading, predictor, int(probabilities.argmax()))
    return found | explained | {"probabilities": probabilities, "box": reading.box}


def fill(found: Mapping[str, Any], predictor: Predictor, about: Mapping[str, Any]) -> str:
    """Return the page of an `answer`; `about` names source, bundle and command."""
    content = {
        "a": found,
        "model": predictor.description,
        "preparation": predictor.preparation,
        "threshold": predictor.likelihood and float(predictor.likelihood.threshold),
        "confidence": pictures.LIMITS.confidence_threshold,
        "about": about,
        "accent": theme.css_colour(_COLOUR),
    }
    return html.fill("explained.html.j2", content, Path(__file__).parent)
