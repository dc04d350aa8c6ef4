"""What the service counts is what was asked, to the request."""

import os
import signal

import pytest
from support.alerting import Load, counters
from support.bundles import PNG, picture
from support.service_process import Process, until


def ask(api, number):
    """Pictures, what is no picture, a batch, a path that is not there."""
    kind = number % 10
    if kind == 7:
        return [api.post("/predict", content=b"no picture", headers=PNG)]
    if kind == 8:
        return [api.get(f"/nothing/{number}")]
    if kind == 9:
        answer = api.post("/predict", content=picture(), headers=PNG)
        given = {"request_id": answer.json()["request_id"], "label": number % 3}
        return [answer, api.post("/feedback", json=given)]
    return [api.post("/predict", content=picture(), headers=PNG)]


def total(samples, name, *parts):
    return sum(
        value for labels, value in samples.get(name, {}).items() if all(p in labels for p in parts)
    )


def check(service, statuses, also=0, uncounted=0):
    """Compares with the load's own count, but for what a killed worker had at work.

    `also`: responses at most that no client got; `uncounted`: those at most that a client got
    before they were counted.
    """
    with service.client() as api:

        def at_rest():  # a client has its answer a moment before it is counted
            samples.update(counters(api.get("/metrics").text))
            return total(samples, "active_requests") == 0  # a killed worker's until it is replaced

        samples = {}
        until(at_rest, service)

    def agree(sent, *names, labels=()):
        for name in names:
            assert sent - uncounted <= total(samples, name, *labels) <= sent + also

    paths = {"/predict": "/predict", "/feedback": "/feedback"}
    for (path, status), sent in statuses.items():
        endpoint = paths.get(path, "unmatched")
        if endpoint == "unmatched":
            sent = sum(n for (other, _), n in statuses.items() if other not in paths)
        labels = f'endpoint="{endpoint}"', f'status_code="{status}"'
        agree(sent, "api_requests_total", labels=labels)
    agree(sum(statuses.values()), "api_requests_total", "request_duration_seconds_count")
    answered = statuses["/predict", 200]
    agree(answered, "predictions_total", "prediction_confidence_score_count")
    agree(answered, "prediction_latency_seconds_count")
    agree(statuses["/predict", 400], "prediction_errors_total")
    agree(statuses["/feedback", 200], "feedback_total")
    return answered


@pytest.mark.parametrize("workers", [1, 4])
def test_metrics_agree_with_the_load_also_when_a_worker_was_killed(made, tmp_path, workers):
    service = Process(tmp_path, MODEL_URI=made[3], API_WORKERS=workers)
    try:
        service.ready()
        with Load(service.url, ask, clients=4, pause=0) as load:
            until(lambda: sum(load.statuses.values()) > 200, service)
        assert load.broken == 0
        before = check(service, load.statuses)
        # Killed at rest, and the count goes on to the request.
        for victim in service.children():
            os.kill(victim, signal.SIGKILL)
            until(lambda gone=victim: gone not in service.children(), service)
            until(lambda: len(service.children()) == workers, service)
        service.ready()
        with Load(service.url, ask, clients=4, pause=0) as again:
            until(lambda: sum(again.statuses.values()) > 200, service)
        assert again.broken == 0
        assert check(service, load.statuses + again.statuses) > before
        # Killed at work: at most what was in flight is counted without an answer, or answered
        # without a count, and a prediction whose feedback was.
        with Load(service.url, ask, clients=4, pause=0) as last:
            until(lambda: sum(last.statuses.values()) > 50, service)
            os.kill(service.children()[0], signal.SIGKILL)
            until(lambda: sum(last.statuses.values()) > 200, service)
        check(
            service,
            load.statuses + again.statuses + last.statuses,
            also=2 * last.broken,
            uncounted=4,
        )
    finally:
        assert service.stop() == 0


def test_what_is_compared_with_answers_as_the_service_does_and_counts_nothing(made, tmp_path):
    service = Process(tmp_path, "bench.uncounted", MODEL_URI=made[3], API_WORKERS=1)
    try:
        service.ready()
        with service.client() as api:
            sent = PNG | {"x-request-id": "mine"}
            answer = api.post("/predict", content=picture(), headers=sent)
            assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine")
            given = api.post("/feedback", json={"request_id": "mine", "label": 3})
            assert (given.status_code, given.json()["correct"]) == (200, True)
            samples = counters(api.get("/metrics").text)
    finally:
        assert service.stop() == 0
    for name in ("predictions_total", "api_requests_total", "active_requests"):
        assert total(samples, name) == 0
