"""Images of batches, inferred chunk by chunk in threads of their own."""

import threading

import numpy as np
import pytest

from serve.models.inference import CHUNK, Inference
from serve.models.predictor import Predictor

IMAGES = np.random.default_rng(3).integers(0, 256, (2 * CHUNK + 5, 28, 28), np.uint8)


@pytest.fixture
def inference():
    started = []

    def start(threads):
        started.append(Inference(threads))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_results_have_the_order_of_the_images_and_the_values_of_each(inference, made, threads):
    predictor = Predictor(made[3])
    begun = inference(threads).begin(predictor, list(IMAGES))
    rows, likelihoods = map(np.concatenate, zip(*(each.result() for each in begun), strict=True))
    assert [len(each.result()[0]) for each in begun] == [CHUNK, CHUNK, 5]
    for image, row, likelihood in zip(IMAGES, rows, likelihoods, strict=True):
        np.testing.assert_array_equal(predictor.probabilities(image[None])[0], row)
        assert predictor.likelihoods(image[None])[0] == likelihood


def test_no_image_is_no_work(inference, made):
    assert inference(1).begin(Predictor(made[3]), []) == []


def test_chunks_run_beside_each_other_and_beside_the_caller(inference):
    meeting = threading.Barrier(3)  # two threads and this one; breaks if one of them waits

    class Meeting:
        def predict(self, images):
            meeting.wait(30)
            meeting.wait(30)
            return images, images

    begun = inference(2).begin(Meeting(), list(IMAGES[: CHUNK + 1]))
    meeting.wait(30)
    meeting.wait(30)
    assert [len(each.result()[0]) for each in begun] == [CHUNK, 1]


def test_an_error_of_a_model_reaches_who_asked(inference):
    class Broken:
        def predict(self, images):
            raise RuntimeError("broken")

    (begun,) = inference(1).begin(Broken(), [IMAGES[0]])
    with pytest.raises(RuntimeError, match="broken"):
        begun.result()
