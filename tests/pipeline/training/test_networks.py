from dataclasses import asdict

import numpy as np
import pytest

from pipeline.config.schema import Model
from serve.imaging.preparation import CROP, DIGITS, Preparation


@pytest.fixture(scope="module")
def networks(tensorflow):
    from pipeline.training import networks

    return networks


@pytest.mark.parametrize(("run", "parameters"), [(1, 54_410), (2, 1_386_506)])
def test_runs_have_the_promised_number_of_parameters(networks, configured, run, parameters):
    assert (
        networks.build(configured(run).model, DIGITS, 10, training=False).count_params()
        == parameters
    )


def test_it_takes_raw_pixels_and_gives_logits(networks):
    network = networks.build(Model(1.0, 4, 3, 2, [], 0.0, 8, 0.0), DIGITS, 10, training=False)
    images = np.zeros((3, 28, 28, 1), np.uint8)
    logits = network(images)
    assert network.input.dtype == "uint8"
    assert logits.shape == (3, 10)
    assert not np.allclose(np.asarray(logits).sum(axis=1), 1)


def test_relu_after_the_pool_is_relu_before_it(networks, tensorflow):
    keras = tensorflow.keras
    small = networks.build(Model(1.0, 4, 3, 2, [], 0.0, 0, 0.0), DIGITS, 10, training=False)
    scale, convolution = small.get_layer("scale"), small.get_layer("convolution")
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    usual = keras.layers.MaxPooling2D(2)(keras.ops.relu(convolution(scale(images))))
    inner = keras.Model(small.input, small.get_layer("relu").output)
    assert np.array_equal(usual, inner(images))


def test_inference_has_the_weights_but_not_the_dropout(networks):
    settings = Model(1.0, 4, 3, 2, [], 0.5, 8, 0.5)
    trained = networks.build(settings, DIGITS, 10, training=True)
    final = networks.for_inference(trained, settings, DIGITS, 10)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    assert not any("dropout" in layer.name for layer in final.layers)
    assert np.array_equal(trained(images, training=False), final(images))
    assert not np.array_equal(trained(images, training=True), final(images))


def test_inference_has_what_batch_normalisation_learned(networks):
    settings = Model(1.0, 4, 5, 2, [[6], [8, 10]], 0.2, 0, 0.0)
    trained = networks.build(settings, DIGITS, 10, training=True)
    images = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8)
    before = np.asarray(trained(images, training=False))
    for _ in range(20):
        trained(images, training=True)
    final = networks.for_inference(trained, settings, DIGITS, 10)
    assert np.array_equal(trained(images, training=False), final(images))
    assert np.abs(final(images) - before).max() > 0.1


def test_between_blocks_the_image_is_halved(networks):
    network = networks.build(
        Model(1.0, 4, 5, 2, [[6], [8, 10]], 0.0, 0, 0.0), DIGITS, 10, training=False
    )
    shapes = [network.get_layer(f"relu_{name}").output.shape[1:] for name in ("1_1", "2_1", "2_2")]
    assert shapes == [(6, 6, 6), (6, 6, 8), (6, 6, 10)]


def test_inference_computes_in_float32_after_reduced_precision(networks, tensorflow):
    settings = Model(1.0, 4, 3, 2, [], 0.0, 0, 0.0)
    tensorflow.keras.config.set_dtype_policy("mixed_bfloat16")
    trained = networks.build(settings, DIGITS, 10, training=True)
    final = networks.for_inference(trained, settings, DIGITS, 10)
    assert trained.get_layer("convolution").compute_dtype == "bfloat16"
    assert final.get_layer("convolution").compute_dtype == "float32"


@pytest.mark.parametrize("residual", [None, True])
def test_a_network_has_the_input_and_the_classes_of_its_data(networks, residual):
    settings = Model(1.0, 4, 5, 2, [[6], [8, 10]], 0.2, 0, 0.0, residual)
    colours = Preparation(CROP, 20, 32, 3)
    trained = networks.build(settings, colours, 7, training=True)
    final = networks.for_inference(trained, settings, colours, 7)
    assert final.input_shape == (None, 20, 32, 3)
    assert final.output_shape == (None, 7)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 20, 32, 3), np.uint8)
    np.testing.assert_allclose(trained(pictures), final(pictures), rtol=1e-4, atol=1e-5)


def test_a_residual_block_passes_its_input_on(networks):
    def silent(residual):
        settings = Model(1.0, 4, 3, 2, [[6, 6], [8]], 0.0, 0, 0.0, residual)
        network = networks.build(settings, DIGITS, 10, training=False)
        for layer in network.layers:
            if layer.name.startswith("block_"):
                layer.set_weights([0 * each for each in layer.get_weights()])
        return np.ptp(
            network(np.random.default_rng(1).integers(0, 256, (8, 28, 28, 1), np.uint8)), 0
        )

    assert (silent(None) == 0).all()
    assert (silent(True) > 0).any()


def test_a_bundle_names_its_network(networks):
    settings = {"model": asdict(Model(1.0, 4, 3, 2, [[6]], 0.0, 0, 0.0))}
    about = {"input": {"shape": [16, 24, 3], "preparation": "fit"}, "classes": ["a", "b"]}
    network = networks.of_bundle(about | {"settings": settings})
    assert (network.input_shape, network.output_shape) == ((None, 16, 24, 3), (None, 2))
