import numpy as np
import pytest

from pipeline.config import Model, PipelineError

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)


@pytest.fixture(scope="module")
def litert_export(tensorflow):
    from pipeline.training import litert_export

    return litert_export


@pytest.fixture(scope="module")
def network(tensorflow):
    from pipeline.training import networks

    return networks.build(Model(1.0, 4, 3, 2, 0.0, 8, 0.0), training=False)


def test_the_exported_file_answers_like_the_network(litert_export, network):
    logits = litert_export.check_parity(network, litert_export.to_litert(network), IMAGES)
    assert np.allclose(logits, network(IMAGES[..., None]), atol=1e-4)


def test_exporting_twice_gives_the_same_bytes(litert_export, network):
    assert litert_export.to_litert(network) == litert_export.to_litert(network)


def test_a_file_that_answers_otherwise_is_refused(litert_export, network, tensorflow):
    from pipeline.training import networks

    other = networks.build(Model(1.0, 4, 3, 2, 0.0, 8, 0.0), training=False)
    with pytest.raises(PipelineError, match="of 300 images get another digit"):
        litert_export.check_parity(network, litert_export.to_litert(other), IMAGES)


def test_a_small_drift_of_the_probabilities_is_refused(litert_export, network, tensorflow):
    from pipeline.training import networks

    other = networks.build(Model(1.0, 4, 3, 2, 0.0, 8, 0.0), training=False)
    weights = network.get_weights()
    weights[-1] = weights[-1] + np.linspace(0, 2e-2, 10, dtype=np.float32)
    other.set_weights(weights)
    with pytest.raises(PipelineError, match=r"limit 0\.0001"):
        litert_export.check_parity(network, litert_export.to_litert(other), IMAGES)
