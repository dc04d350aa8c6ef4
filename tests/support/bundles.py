"""What the service's tests make: bundles and pictures."""

import base64
import hashlib
import io
import json

import numpy as np
from PIL import Image

from serve.models import bundle_digest
from serve.models.bundle_cache import name_release

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
