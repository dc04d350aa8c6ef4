import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from pipeline.config import PipelineError
from pipeline.config.schema import Model
from serve.imaging.preparation import DIGITS
from serve.models.predictor import LogitModel

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)


@pytest.fixture(scope="module")
def litert_export(tensorflow):
    from pipeline.training import litert_export

    return litert_export


@pytest.fixture(scope="module")
def network(tensorflow):
    from pipeline.training import networks

    return networks.build(Model(1.0, 4, 3, 2, [], 0.0, 8, 0.0), DIGITS, 10, training=False)


def test_the_exported_file_answers_like_the_network(litert_export, network):
    logits = litert_export.check_parity(network, litert_export.to_litert(network), IMAGES)
    assert np.allclose(logits, network(IMAGES[..., None]), atol=1e-4)


def test_exporting_twice_gives_the_same_bytes(litert_export, network):
    assert litert_export.to_litert(network) == litert_export.to_litert(network)


def test_a_file_that_answers_otherwise_is_refused(litert_export, network, tensorflow):
    from pipeline.training import networks

    other = networks.build(Model(1.0, 4, 3, 2, [], 0.0, 8, 0.0), DIGITS, 10, training=False)
    with pytest.raises(PipelineError, match="of 300 images get another class"):
        litert_export.check_parity(network, litert_export.to_litert(other), IMAGES)


def test_a_small_drift_of_the_probabilities_is_refused(litert_export, network, tensorflow):
    from pipeline.training import networks

    other = networks.build(Model(1.0, 4, 3, 2, [], 0.0, 8, 0.0), DIGITS, 10, training=False)
    weights = network.get_weights()
    weights[-1] = weights[-1] + np.linspace(0, 2e-2, 10, dtype=np.float32)
    other.set_weights(weights)
    with pytest.raises(PipelineError, match=r"limit 0\.0001"):
        litert_export.check_parity(network, litert_export.to_litert(other), IMAGES)


@pytest.fixture(scope="module")
def deep(tensorflow):
    """Convolutions with batch normalisation and padding, whose statistics are not the initial."""
    keras = tensorflow.keras
    layers = [keras.layers.Rescaling(1 / 78.6, -0.42)]
    for filters in (4, 6):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10)]
    inputs = keras.Input((28, 28, 1), dtype="uint8")
    x = inputs
    for layer in layers:
        x = layer(x)
    chance = np.random.default_rng(1)
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([chance.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    return keras.Model(inputs, x)


@pytest.mark.parametrize("name", ["network", "deep"])
def test_the_int8_file_answers_almost_like_the_network(litert_export, request, name):
    network = request.getfixturevalue(name)
    content = litert_export.to_litert(network, IMAGES[:100])
    assert content == litert_export.to_litert(network, IMAGES[:100])
    logits, exact = LogitModel(content)(IMAGES), np.asarray(network(IMAGES[..., None]))
    assert 0 < np.abs(logits - exact).max() < 0.1 * np.ptp(exact)
    kinds = {tensor["dtype"] for tensor in Interpreter(model_content=content).get_tensor_details()}
    assert np.int8 in kinds


def test_ranges_come_from_the_same_training_images_each_time(litert_export):
    images = np.arange(500, dtype=np.uint8).repeat(784).reshape(500, 28, 28)
    drawn = litert_export.range_images(images, 42)
    assert drawn.shape == (litert_export.RANGE_IMAGES, 28, 28)
    np.testing.assert_array_equal(drawn, litert_export.range_images(images, 42))
    assert (drawn != litert_export.range_images(images, 43)).any()
    assert len(litert_export.range_images(images[:9], 42)) == 9
