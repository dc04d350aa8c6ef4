"""What the service's tests make: bundles and pictures."""

import base64
import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from serve.models import bundle_digest
from serve.models.bundle_cache import name_release
from serve.sources import Source

COLOURS = {
    **{"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 200)},
    **{"black": (0, 0, 0), "white": (255, 255, 255)},
}
# Of a model in a folder, as tests serve it.
SOURCE = Source("mnist-classifier", "bundle", Path(".state"), default=True, variable="MODEL_URI")
PNG = {"content-type": "image/png"}


def write_bundle(folder, content, run=3, temperature=1.0, likelihood=None, threshold=0.25):
    """A bundle as the pipeline leaves it; without a likelihood, as it once did."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "name": "made-up",
        "run": run,
        "classes": list(range(10)),
        "input": {"shape": [28, 28, 1], "dtype": "uint8", "polarity": "digit bright on dark"},
        "sha256": hashlib.sha256(content).hexdigest(),
        "temperature": temperature,
        "metrics": {"test_accuracy": 0.5},
        "data": {"name": "mnist", "sha256": "ab" * 32},
    }
    if likelihood:
        digest = hashlib.sha256(likelihood).hexdigest()
        description["likelihood"] = {"sha256": digest, "threshold": threshold}
        (folder / "likelihood.tflite").write_bytes(likelihood)
    (folder / "model.tflite").write_bytes(content)
    (folder / "model.json").write_text(json.dumps(description))
    (folder / "model_card.md").write_text("a model")
    return folder


def write_labelled(folder, content, classes, shape, preparation="fit", name="made-up"):
    """A bundle of other pictures than digits, as the pipeline leaves it: with an energy score."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "name": name,
        "run": 1,
        "classes": list(classes),
        "input": {"shape": list(shape), "dtype": "uint8", "preparation": preparation},
        "sha256": hashlib.sha256(content).hexdigest(),
        "temperature": 1.0,
        "metrics": {"test_accuracy": 0.5},
        "data": {"name": name, "sha256": "ab" * 32},
        "likelihood": {"score": "energy", "threshold": 0.25, "offset": -6.0, "scale": 2.0},
    }
    (folder / "model.tflite").write_bytes(content)
    (folder / "model.json").write_text(json.dumps(description))
    (folder / "model_card.md").write_text(f"a model of {name}")
    return folder


def colour_picture(colour, size=(64, 48), file_format="PNG"):
    """The file of a picture of one colour, with a white dot in a corner."""
    image = Image.new("RGB", size, colour)
    image.putpixel((0, 0), (255, 255, 255))
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def bring(cache, bundle, version):
    """Puts a bundle into a cache; the release."""
    release = name_release(version, bundle_digest.model_digest(bundle))
    with cache.lock():
        cache.add(release, bundle, made=0)
    return release


def picture(side=28, file_format="PNG", ink=0, paper=255):
    """The file of a picture of a 1 or so."""
    pixels = np.full((side, side), paper, np.uint8)
    pixels[side // 6 : -side // 6, side * 4 // 9 : side * 5 // 9] = ink
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def text(content):
    return base64.b64encode(content).decode()
