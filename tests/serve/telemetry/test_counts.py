"""Counting past `prometheus_client`'s own values gives what they give."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from serve.telemetry import counts

AMOUNTS = (-1.0, 0.0, 0.125, 0.5, 0.625, 1.0, 7.0)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Each test's values are its own; their files, else open as long as a process, are closed."""
    monkeypatch.setattr(values, "ValueClass", values.MutexValue)
    yield
    for each in gc.get_objects():
        if type(each) is MmapedDict:  # `isinstance` asks, and what a proxy stands for may be gone
            each._f.close()


def shared(folder):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return generate_latest(registry).decode()


def metrics():
    registry = CollectorRegistry()
    return (
        Counter("asked", "Requests.", ("path",), registry=registry).labels("/a b"),
        Histogram("took", "Seconds.", ("path",), buckets=(0, 0.5, 1), registry=registry).labels(
            "é"
        ),
        Gauge("active", "Now.", multiprocess_mode="sum", registry=registry),
        Gauge("latest", "Last.", multiprocess_mode="mostrecent", registry=registry),
    )


def by_library(amounts=AMOUNTS):
    asked, took, active, latest = metrics()
    for amount in amounts:
        asked.inc(abs(amount))
        took.observe(amount)
        active.inc(amount)
        latest.set(amount)


def by_us(amounts=AMOUNTS):
    asked, took, active, latest = metrics()
    ask, take, act = counts.adding(asked), counts.observing(took), counts.adding(active)
    for amount in amounts:
        ask(abs(amount))
        take(amount)
        act(amount)
        latest.set(amount)


def test_processes_that_share_count_as_with_the_librarys_own_values(tmp_path, monkeypatch):
    folders = [tmp_path / "library", tmp_path / "ours"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folders[0]))
    for process, amounts in (("worker-1", AMOUNTS), ("worker-0", AMOUNTS[::-1])):
        values.ValueClass = values.MultiProcessValue(lambda process=process: process)
        by_library(amounts)
        counts.share(folders[1], process)
        by_us(amounts)
    library, ours = map(shared, folders)
    assert ours == library
    assert 'took_bucket{le="0.5",path="é"} 8.0' in ours
    assert "latest -1.0" in ours


def test_a_process_of_its_own_counts_as_with_the_library():
    asked, took, *_ = metrics()
    counts.adding(asked)(2)
    for amount in AMOUNTS:
        counts.observing(took)(amount)
    assert asked._value.get() == 2
    assert [bucket.get() for bucket in took._buckets] == [2, 2, 2, 1]


def test_who_takes_a_dead_ones_place_counts_on_and_keeps_its_files(tmp_path):
    for _ in range(2):
        counts.share(tmp_path, "worker-0")
        by_us()
    assert f'asked_total{{path="/a b"}} {2 * sum(map(abs, AMOUNTS))}' in shared(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("counter_worker-0.db", "gauge_mostrecent_worker-0.db"),
        *("gauge_sum_worker-0.db", "histogram_worker-0.db"),
    ]


class Slow(float):
    """Lets other threads in while it is added to a number."""

    def __radd__(self, other):
        time.sleep(0)
        return other + float(self)


def test_threads_lose_no_count_while_the_file_grows(tmp_path):
    counts.share(tmp_path, "worker-0")
    registry = CollectorRegistry()
    asked = Counter("asked", "Requests.", ("path",), registry=registry)
    add = counts.adding(asked.labels("first"))

    def count(thread):
        for place in range(5000):
            add(Slow(1))
            if place % 5 == 0:
                asked.labels(f"{thread} {place} {'x' * 1000}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))
    assert 'asked_total{path="first"} 20000.0' in shared(tmp_path)
    assert (tmp_path / "counter_worker-0.db").stat().st_size > 2**22
