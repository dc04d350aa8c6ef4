"""Metrics of processes that share a folder, by prometheus_client's multiprocess mode."""

import gc
from itertools import permutations

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from serve.telemetry import metrics
from serve.telemetry.allocated_files import FIRST_SIZE
from serve.telemetry.metrics import Metrics
from serve.telemetry.process_metrics import total


@pytest.fixture(autouse=True)
def own_values(monkeypatch):
    """Each test has its own values; their files, else open as long as the process, are closed."""
    monkeypatch.setattr(values, "ValueClass", values.MutexValue)
    monkeypatch.setattr(values, "MmapedDict", MmapedDict)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    yield
    for each in gc.get_objects():
        if type(each) is MmapedDict:  # `isinstance` asks, and what a proxy stands for may be gone
            each._f.close()


def count(folder, process):
    """What a process counts: a prediction, and a request that is still in flight."""
    metrics.share(folder, process)
    found = Metrics(folder)
    answer = {"prediction": 3, "confidence": 0.9, "digit_likelihood": 0.4}
    found.predicted(answer | {"uncertain": True, "not_digit": False}, "7", 0.002)
    found.began()
    return found


def lines(found):
    return found.render("")[0].decode().splitlines()


def test_processes_are_added_up(tmp_path):
    count(tmp_path, "worker-0")
    shared = lines(count(tmp_path, "worker-1"))
    for line in (
        'predictions_total{model_version="7",predicted_class="3"} 2.0',
        'prediction_latency_seconds_bucket{le="0.0025",model_version="7"} 2.0',
        'prediction_latency_seconds_bucket{le="0.001",model_version="7"} 0.0',
        'prediction_confidence{model_version="7"} 0.9',
        'predictions_uncertain_total{model_version="7"} 2.0',
        'predictions_not_digit_total{model_version="7"} 0.0',
        "active_requests 2.0",
    ):
        assert line in shared


def test_a_replacement_counts_on_in_the_files_of_the_dead_process(tmp_path):
    count(tmp_path, "worker-0")
    files = sorted(tmp_path.iterdir())
    metrics.forget(tmp_path, "worker-0")
    shared = lines(count(tmp_path, "worker-0"))
    assert 'predictions_total{model_version="7",predicted_class="3"} 2.0' in shared
    assert "active_requests 1.0" in shared
    assert sorted(tmp_path.iterdir()) == files


def test_files_are_allocated_and_grow_so(tmp_path):
    """A write to a hole of a mapped file kills the process if the disk is full."""
    shared = count(tmp_path, "worker-0")
    for number in range(2000):
        shared.failed("x" * 100 + str(number))
    sizes = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert sizes["counter_worker-0.db"].st_size == 2 * FIRST_SIZE
    assert sizes["histogram_worker-0.db"].st_size == FIRST_SIZE
    assert all(found.st_blocks * 512 >= found.st_size for found in sizes.values())
    again = lines(count(tmp_path, "worker-0"))
    assert 'predictions_total{model_version="7",predicted_class="3"} 2.0' in again
    assert sum("prediction_errors_total{" in line for line in again) == 2000
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {
        name: found.st_size for name, found in sizes.items()
    }


def test_a_value_without_room_waits_for_it(tmp_path):
    taken = tmp_path / "gauge_livesum_worker-0.new"
    taken.mkdir()  # the file cannot be made
    shared = count(tmp_path, "worker-0")
    assert not any(line.startswith("active_requests ") for line in lines(shared))
    taken.rmdir()
    shared.began()
    assert "active_requests 2.0" in lines(shared)


def test_requests_of_a_dead_process_are_not_in_flight(tmp_path):
    alive = count(tmp_path, "worker-0")
    count(tmp_path, "worker-1")
    metrics.forget(tmp_path, "worker-1")
    assert "active_requests 1.0" in lines(alive)
    assert 'predictions_total{model_version="7",predicted_class="3"} 2.0' in lines(alive)


def test_seconds_add_up_to_the_same_number_whichever_process_took_them():
    seconds = [0.1, 0.2, 0.3, 0.0]
    assert len({sum(each) for each in permutations(seconds)}) > 1
    assert {total(each) for each in permutations(seconds)} == {0.6}
