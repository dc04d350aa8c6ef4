import asyncio

import pytest

from serve.http.errors import STATUS, Answers, status
from serve.models.loaded import NoModelError
from serve.prediction.work_queue import BusyError
from serve.telemetry.request_context import RequestContext


def test_want_of_a_model_or_of_room_is_503_and_a_fault_is_500():
    assert STATUS[NoModelError] == STATUS[BusyError] == 503
    assert status(type("Full", (BusyError,), {})()) == 503  # a kind of it too
    assert status(KeyError()) == 500


def test_a_response_that_has_begun_is_not_begun_again():
    sent = []

    async def application(scope, receive, send):
        RequestContext.of(scope).status = 200  # as the access log does, when it passes the start on
        raise OSError("cut off")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [], "path": "/predict"}
    RequestContext(scope)
    with pytest.raises(OSError, match="cut off"):
        asyncio.run(Answers(application, metrics=None)(scope, None, send))
    assert not sent
