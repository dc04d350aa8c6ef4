"""More small requests at once than a worker answers in time: some are refused, and counted."""

import http.client
import os
import signal
import socket
from collections import Counter

import httpx2
import pytest
from support.alerting import counters
from support.bundles import picture

SHORT = {"MAX_WAIT_SECONDS": 0.02, "MAX_CONNECTIONS_PER_ADDRESS": 1000}
BODY = picture()
HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
MANY = 400  # no machine answers so many in 20 ms


def answers_at_once(service, path=b"/predict"):
    """The answers to MANY requests that all wait when the worker comes to read them."""
    address = httpx2.URL(service.url)
    (worker,) = service.children()
    clients = [socket.create_connection((address.host, address.port), 60) for _ in range(MANY)]
    try:
        os.kill(worker, signal.SIGSTOP)
        for client in clients:
            client.sendall(HEAD % (path, len(BODY)) + BODY)
        os.kill(worker, signal.SIGCONT)
        answers = []
        for client in clients:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            answers.append((answer.status, answer.getheader("retry-after"), answer.read()))
        return answers
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("service", [SHORT], indirect=True)
def test_who_waits_too_long_is_told_when_to_come_back_and_counted(service):
    answers = answers_at_once(service)
    statuses = Counter(status for status, _, _ in answers)
    assert statuses.keys() <= {200, 503}
    assert statuses[503]
    for status, retry, body in answers:
        assert retry == ("1" if status == 503 else None)
        assert (b"too many requests wait" in body) == (status == 503)
        assert (b'"prediction":3' in body) == (status == 200)
    with service.client() as api:
        found = counters(api.get("/metrics").text)
    asked = 'endpoint="/predict",method="POST",status_code='
    assert found["prediction_errors_total"]['error_type="overloaded"'] == statuses[503]
    assert found["api_requests_total"][f'{asked}"503"'] == statuses[503]
    assert found["api_requests_total"].get(f'{asked}"200"', 0) == statuses[200]
    assert found["active_requests"][""] == 0


@pytest.mark.parametrize("service", [SHORT], indirect=True)
def test_probes_and_scrapes_are_answered_however_long_they_wait(service):
    for path in (b"/health/ready", b"/metrics"):
        answers = answers_at_once(service, path)
        assert {status for status, _, _ in answers} == {405}  # by their routes: these take no POST


@pytest.mark.parametrize("service", [SHORT | {"MAX_WAIT_SECONDS": 3600}], indirect=True)
def test_within_the_limit_all_are_answered(service):
    assert {status for status, _, _ in answers_at_once(service)} == {200}
