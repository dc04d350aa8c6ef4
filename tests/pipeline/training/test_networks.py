import numpy as np
import pytest

from pipeline.config import Model


@pytest.fixture(scope="module")
def models(tensorflow):
    from pipeline.training import networks as models

    return models


@pytest.mark.parametrize(("run", "parameters"), [(1, 54_410), (2, 1_386_506)])
def test_runs_have_the_promised_number_of_parameters(models, configured, run, parameters):
    assert models.build(configured(run).model, training=False).count_params() == parameters


def test_it_takes_raw_pixels_and_gives_logits(models):
    network = models.build(Model(1.0, 4, 3, 2, 0.0, 8, 0.0), training=False)
    images = np.zeros((3, 28, 28, 1), np.uint8)
    logits = network(images)
    assert network.input.dtype == "uint8"
    assert logits.shape == (3, 10)
    assert not np.allclose(np.asarray(logits).sum(axis=1), 1)


def test_relu_after_the_pool_is_relu_before_it(models, tensorflow):
    keras = tensorflow.keras
    small = models.build(Model(1.0, 4, 3, 2, 0.0, 0, 0.0), training=False)
    scale, convolution = small.get_layer("scale"), small.get_layer("convolution")
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    usual = keras.layers.MaxPooling2D(2)(keras.ops.relu(convolution(scale(images))))
    inner = keras.Model(small.input, small.get_layer("relu").output)
    assert np.array_equal(usual, inner(images))


def test_inference_has_the_weights_but_not_the_dropout(models):
    settings = Model(1.0, 4, 3, 2, 0.5, 8, 0.5)
    trained = models.build(settings, training=True)
    final = models.for_inference(trained, settings)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    assert not any("dropout" in layer.name for layer in final.layers)
    assert np.array_equal(trained(images, training=False), final(images))
    assert not np.array_equal(trained(images, training=True), final(images))


def test_inference_computes_in_float32_after_reduced_precision(models, tensorflow):
    settings = Model(1.0, 4, 3, 2, 0.0, 0, 0.0)
    tensorflow.keras.config.set_dtype_policy("mixed_bfloat16")
    trained = models.build(settings, training=True)
    final = models.for_inference(trained, settings)
    assert trained.get_layer("convolution").compute_dtype == "bfloat16"
    assert final.get_layer("convolution").compute_dtype == "float32"


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(models, rate):
    dropout = models.Dropout(rate)
    ones = np.ones((64, 1001), np.float32)
    first, second = (np.asarray(dropout(ones, training=True)) for _ in range(2))
    assert np.mean(first == 0) == pytest.approx(rate, abs=0.01)
    assert first.mean() == pytest.approx(1, abs=0.02)
    assert set(np.unique(first)) == {0, np.float32(1 / (1 - rate))}
    assert not np.array_equal(first, second)
    assert np.array_equal(dropout(ones, training=False), ones)
