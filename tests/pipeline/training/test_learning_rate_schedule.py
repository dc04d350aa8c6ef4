import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")


def rates(cfg, steps_per_epoch=100):
    from pipeline.training.learning_rate_schedule import learning_rate_schedule

    schedule = learning_rate_schedule(cfg, steps_per_epoch)
    return [float(schedule(step)) for step in range(cfg.epochs * steps_per_epoch + 1)]


def test_a_constant_rate_is_constant(configured):
    assert set(rates(configured(2))) == {np.float32(1e-3)}


def test_a_cosine_goes_from_the_peak_to_nothing(configured):
    cold = ("optimizer.learning_rate=2e-3", "optimizer.warmup_epochs=0.0")
    values = rates(configured(3, *cold))
    assert values[0] == pytest.approx(2e-3)
    assert values[len(values) // 2] == pytest.approx(1e-3, rel=1e-3)
    assert values[-1] == pytest.approx(0, abs=1e-8)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_rises_to_the_peak(configured, schedule):
    warm = ("optimizer.warmup_epochs=0.5", f"optimizer.schedule={schedule}")
    values = rates(configured(3, "optimizer.learning_rate=2e-3", *warm))
    assert values[0] == 0
    assert values[25] == pytest.approx(1e-3)
    assert values[50] == max(values) == pytest.approx(2e-3)
