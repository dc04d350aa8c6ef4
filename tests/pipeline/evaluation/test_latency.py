import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from pipeline.config import paths
from pipeline.evaluation import latency


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def recorded():
    return json.loads(paths.TIMINGS.read_text())


def test_figures_of_several_stages_and_runs_come_together():
    latency.record(10, train_seconds=61.23456)
    latency.record(2, train_seconds=5)
    latency.record(10, latency_ms_p50=0.05, latency_ms_p99=0.1)
    latency.record(2, train_seconds=6)
    assert recorded() == {
        "2": {"train_seconds": 6},
        "10": {"train_seconds": 61.2346, "latency_ms_p50": 0.05, "latency_ms_p99": 0.1},
    }
    assert list(recorded()) == ["2", "10"]


def test_stages_side_by_side_lose_nothing():
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(latency.record, n % 5, **{f"figure_{n}": n}) for n in range(60)]
        for job in jobs:
            job.result()
    assert sum(len(figures) for figures in recorded().values()) == 60


def test_latency_goes_through_all_images_in_batches_of_one_size():
    seen = []
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1) * np.ones((5, 28, 28), np.uint8)
    latency.latency(lambda some: seen.append(some[:, 0, 0].tolist()), images, batch=2, calls=4)
    assert seen == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `predict` moves, by the seconds that it is given for each call."""
    now = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])

    def predict_in(seconds):
        durations = iter(seconds)

        def predict(_):
            now[0] += next(durations)

        return predict

    return predict_in


IMAGE = np.zeros((1, 28, 28), np.uint8)


def test_latency_is_median_and_99th_percentile(clock):
    predict = clock([1.0] * 10 + [n / 1000 for n in range(101)])
    assert latency.latency(predict, IMAGE, calls=101) == pytest.approx((50, 99))


@pytest.mark.parametrize(("calls", "warm_up"), [(30, 3), (1, 1)])
def test_a_tenth_of_the_calls_at_least_one_does_not_count(clock, calls, warm_up):
    found = latency.latency(clock([9.0] * warm_up + [0.001] * calls), IMAGE, calls=calls)
    assert found == pytest.approx((1, 1))
