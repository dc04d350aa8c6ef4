"""The predictor: models of any number type, many threads, nothing of training."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from support.bundles import write_bundle

from serve.models import bundle_cache
from serve.models.predictor import BundleError, LogitModel, Predictor, quiet, softmax

SIDE = 28
TRAINING = {"tensorflow", "keras", "dvc", "dvclive", "hydra", "matplotlib", "sklearn", "scipy"}


def weights():
    """Logits are the sums of pixels in ten bands of rows, and the tenth of the last."""
    weights = np.zeros((SIDE, SIDE, 10), np.float32)
    for row in range(SIDE):
        weights[row, :, min(row // 3, 9)] = 1 / 5000
    return weights.reshape(SIDE * SIDE, 10)


def band(digit):
    """An image whose greatest logit is that of the digit."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[3 * digit : 3 * digit + 1] = 200
    return image


BANDS = np.stack([band(digit) for digit in range(10)])


@pytest.fixture(scope="session")
def convert(tensorflow):
    """Makes the LiteRT file of a function of (n, side, side, 1) images."""
    tf = tensorflow

    def make(function, side=SIDE, dtype=tf.uint8):
        class Network(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, side, side, 1), dtype)])
            def __call__(self, images):
                return function(tf.cast(images, tf.float32))

        network = Network()
        return tf.lite.TFLiteConverter.from_concrete_functions(
            [network.__call__.get_concrete_function()], network
        ).convert()

    return make


@pytest.fixture(scope="session")
def content(convert, tensorflow):
    tf = tensorflow
    return convert(lambda pixels: tf.reshape(pixels, (-1, SIDE * SIDE)) @ tf.constant(weights()))


def test_logits_are_those_of_the_network(content):
    model = LogitModel(content)
    exact = BANDS.reshape(10, -1).astype(np.float32) @ weights()
    for images in (BANDS, BANDS[..., None]):
        logits = model(images)
        assert (logits.shape, logits.dtype) == ((10, 10), np.float32)
        np.testing.assert_allclose(logits, exact, atol=1e-5)
    alone = np.concatenate([model(image[None]) for image in BANDS])
    np.testing.assert_array_equal(alone, model(BANDS))


def test_any_number_of_images_in_any_order(content):
    model = LogitModel(content)
    for n in (1, 300, 1, 2, 600, 256, 257, 1):
        images = np.resize(BANDS, (n, SIDE, SIDE))
        np.testing.assert_array_equal(model(images).argmax(1), np.resize(np.arange(10), n))


def test_single_images_keep_their_memory_when_batches_come_between(content, monkeypatch):
    from ai_edge_litert.interpreter import Interpreter

    laid_out = []
    original = Interpreter.allocate_tensors

    def counted(interpreter):
        laid_out.append(interpreter)
        original(interpreter)

    monkeypatch.setattr(Interpreter, "allocate_tensors", counted)
    model = LogitModel(content)
    for _ in range(5):
        model(BANDS[:1])
        model(BANDS)
    assert len(laid_out) == 2


def test_an_answer_outlives_the_next(content):
    model = LogitModel(content)
    first = model(BANDS[:1])
    kept = first.copy()
    model(BANDS[5:6])
    np.testing.assert_array_equal(first, kept)


def test_from_many_threads(content):
    model = LogitModel(content)
    wrong = []

    def work(start):
        for step in range(200):
            digit = (start + step) % 10
            if step % 20:
                answers = model(BANDS[digit : digit + 1]).argmax(1)
            else:
                answers = model(np.roll(BANDS, -digit, axis=0)).argmax(1)
            if answers[0] != digit:
                wrong.append(digit)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_probabilities_are_calibrated_with_the_bundles_temperature(content, tmp_path):
    predictor = Predictor(write_bundle(tmp_path / "bundle", content, temperature=2.0))
    probabilities = predictor.probabilities(BANDS)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(probabilities, softmax(LogitModel(content)(BANDS) / 2), rtol=1e-5)


def test_bundles_that_cannot_be_trusted(content, tmp_path):
    write_bundle(tmp_path / "changed", content)
    (tmp_path / "changed" / "model.tflite").write_bytes(content + b"\0")
    with pytest.raises(BundleError, match="not the file"):
        Predictor(tmp_path / "changed")
    with pytest.raises(BundleError, match="cannot be run"):
        Predictor(write_bundle(tmp_path / "nonsense", b"no model"))
    with pytest.raises(BundleError, match="not a model bundle"):
        Predictor(tmp_path / "missing")
    write_bundle(tmp_path / "plain", content)
    description = json.loads((tmp_path / "plain" / "model.json").read_text())
    del description["temperature"]
    (tmp_path / "plain" / "model.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match="temperature"):
        Predictor(tmp_path / "plain")


def test_the_likelihood_of_a_digit(content, brightness, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", content, likelihood=brightness, threshold=0.5)
    predictor = Predictor(bundle)
    images = np.stack([np.full((SIDE, SIDE), grey, np.uint8) for grey in (0, 51, 255)])
    likelihoods = predictor.likelihoods(images)
    assert (likelihoods.shape, likelihoods.dtype) == ((3,), np.float32)
    np.testing.assert_allclose(likelihoods, [0, 0.4, 1], rtol=1e-6)
    np.testing.assert_array_equal(predictor.likelihoods(images[1:2]), likelihoods[1:2])
    assert predictor.likelihood.threshold == 0.5
    assert predictor.size == sum(file.stat().st_size for file in bundle.iterdir())


def test_a_bundle_without_a_likelihood_answers_all_the_same(content, tmp_path):
    predictor = Predictor(write_bundle(tmp_path / "old", content))
    assert predictor.likelihood is None
    assert np.isnan(predictor.likelihoods(BANDS)).tolist() == [True] * 10
    assert predictor.probabilities(BANDS).argmax(axis=1).tolist() == list(range(10))


def test_a_likelihood_must_be_one_number(content, convert, tensorflow, tmp_path):
    flat = convert(lambda pixels: tensorflow.reduce_mean(pixels, axis=(1, 2, 3)))
    for name, likelihood in (("none", flat), ("ten", content)):
        bundle = write_bundle(tmp_path / name, content, likelihood=likelihood)
        with pytest.raises(BundleError, match=r"likelihood.tflite cannot be run: the model gives"):
            Predictor(bundle)
        with pytest.raises(BundleError):
            bundle_cache.verify_bundle(bundle)


def test_a_likelihood_that_cannot_be_trusted(content, brightness, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", content, likelihood=brightness)
    second = bundle / "likelihood.tflite"
    second.write_bytes(brightness + b"\0")
    with pytest.raises(BundleError, match=r"likelihood.tflite is not the file"):
        Predictor(bundle)
    second.unlink()
    with pytest.raises(BundleError, match="not a model bundle"):
        Predictor(bundle)
    with pytest.raises(BundleError, match=r"likelihood.tflite cannot be run"):
        Predictor(write_bundle(tmp_path / "nonsense", content, likelihood=b"no model"))
    second.write_bytes(brightness)
    description = json.loads((bundle / "model.json").read_text())
    del description["likelihood"]["threshold"]
    (bundle / "model.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match="threshold"):
        Predictor(bundle)


@pytest.mark.parametrize(
    ("side", "dtype", "message"),
    [(8, "uint8", r"reads \(8, 8, 1\) images, not \(28, 28, 1\)"), (SIDE, "float32", "uint8")],
)
def test_a_model_of_other_images_is_refused(convert, tensorflow, tmp_path, side, dtype, message):
    other = convert(lambda pixels: tensorflow.reshape(pixels, (-1, side * side)), side, dtype)
    with pytest.raises(BundleError, match=message):
        Predictor(write_bundle(tmp_path / "other", other))


def test_a_model_of_other_classes_is_refused(convert, tensorflow, tmp_path):
    other = convert(lambda pixels: tensorflow.reshape(pixels, (-1, SIDE * SIDE))[:, :7])
    with pytest.raises(BundleError, match="7 classes, not 10"):
        Predictor(write_bundle(tmp_path / "other", other))


def test_the_energy_scores_by_the_logits(content, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", content)
    description = json.loads((bundle / "model.json").read_text())
    description["likelihood"] = {"score": "energy", "threshold": 0.5, "offset": 2, "scale": 3}
    (bundle / "model.json").write_text(json.dumps(description))
    predictor = Predictor(bundle)
    logits = predictor.logits(BANDS).astype(np.float64)
    expected = 1 / (1 + np.exp(-(np.log(np.exp(logits).sum(axis=1)) - 2) / 3))
    probabilities, scores = predictor.predict(BANDS)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(predictor.likelihoods(BANDS), scores)
    np.testing.assert_array_equal(predictor.probabilities(BANDS), probabilities)


def test_nothing_of_training_in_the_process(content, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", content)
    program = f"""
import sys, io, pathlib
import numpy as np
from PIL import Image
from serve.decoding.decode import normalise_file
from serve.models.predictor import Predictor
file = io.BytesIO()
Image.fromarray(np.pad(np.full((160, 20), 255, np.uint8), 60)).save(file, "TIFF")
image = normalise_file(file.getvalue(), max_pixels=10**6)
Predictor(pathlib.Path({str(bundle)!r})).probabilities(image[None])
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"numpy", "PIL", "ai_edge_litert"} <= loaded
    assert loaded & TRAINING == set()
    assert done.stderr == ""


def test_only_what_is_written_inside_is_discarded(capfd):
    with suppress(ValueError), quiet():
        os.write(2, b"inside")
        raise ValueError
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_threads_that_discard_at_once_find_standard_error_again(capfd):
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: discarded(), range(400)):
            pass
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def discarded():
    with quiet():
        os.write(2, b"inside")


def test_nothing_is_discarded_if_standard_error_is_closed():
    code = (
        "import os; from serve.models.predictor import quiet\nos.close(2)\nwith quiet(): print(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"1\n"
