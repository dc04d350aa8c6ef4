"""What waits for a thread, and for how long."""

import asyncio
import io
import socket
import threading
import time
from types import SimpleNamespace

import httpx2
import pytest
from PIL import Image
from support.bundles import PNG, picture

from serve.imaging.errors import NotAnImageError
from serve.imaging.preparation import Preparation
from serve.prediction.service import Service
from serve.prediction.work_queue import BusyError, WorkQueue, WorkQueues
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing

# As much of a model as reading a picture for it takes.
DIGITS = SimpleNamespace(predictor=SimpleNamespace(preparation=Preparation("digit", 28, 28, 1)))


def waiting(queue, count, pixels, body=None):
    """Fills a queue behind work that goes on until `body` is done."""

    async def run():
        done = threading.Event()
        tasks = [asyncio.ensure_future(queue.run(done.wait, pixels, None)) for _ in range(count)]
        await asyncio.sleep(0)
        try:
            return await body()
        finally:
            done.set()
            await asyncio.gather(*tasks)
            assert await queue.run(lambda: "free again", 10**9, None) == "free again"
            queue.close()

    return asyncio.run(run())


@pytest.mark.parametrize(("count", "pixels"), [(4, 250), (1, 1000), (256, 0)])
def test_a_full_line_takes_no_more(count, pixels):
    queue = WorkQueue("queue", 1000)

    async def one_more():
        with pytest.raises(BusyError):
            await queue.run(lambda: None, 1, None)

    waiting(queue, count, pixels, one_more)


def test_all_queues_together_hold_64_mib_and_each_has_one_thread():
    queues, threads = WorkQueues(10), []

    def work():
        threads.append(threading.current_thread())
        time.sleep(0.01)  # a second thread would begin meanwhile

    async def run():
        await queues.run(queues.bodies, work, 2**26 + 1, 0)  # an idle worker takes any size
        queues._waiting = 2**26 - 5
        await asyncio.gather(*(queues.run(queues.bodies, work, 1, 0) for _ in range(5)))
        with pytest.raises(BusyError, match="too busy"):
            await queues.run(queues.pictures, work, 6, 0)

    asyncio.run(run())
    queues.close()
    assert len(threads) == 6
    assert set(threads) == {threads[0]}
    assert not threads[0].is_alive()


def test_what_nobody_waits_for_is_not_done():
    queue, done = WorkQueue("queue", 1000), []

    class GoneError(Exception):
        pass

    async def gone():
        raise GoneError

    async def some():
        left = asyncio.ensure_future(queue.run(lambda: done.append("gone"), 1, gone))
        cancelled = asyncio.ensure_future(queue.run(lambda: done.append("cancelled"), 1, None))
        await asyncio.sleep(0)
        cancelled.cancel()
        return left

    async def first():
        left = await some()
        tasks.append(left)

    tasks = []
    waiting(queue, 2, 1, first)
    assert done == []
    assert isinstance(tasks[0].exception(), GoneError)


def test_only_large_bodies_are_parsed_beside_the_event_loop(settings):
    service = Service(settings(), Metrics(), Tracing())
    service.open()
    assert service._queues.pictures._max_pixels == 4 * service.settings.max_image_pixels
    parse, loop = threading.current_thread, threading.main_thread()

    async def run():
        return [await service.parse(bytes(size), parse, None) for size in (10, 2**16, 2**16 + 1)]

    threads = asyncio.run(run())
    assert [thread is loop for thread in threads] == [True, True, False]
    service.close()
    assert not threads[2].is_alive()


@pytest.mark.parametrize("largest", [1_000_000, 64_000_000])
def test_four_explanations_may_wait_whatever_a_picture_may_have(settings, largest):
    service = Service(settings(max_image_pixels=largest), Metrics(), Tracing())
    service.open()
    queue, done = service._queues.batches, threading.Event()

    async def asked(taken):
        work = asyncio.ensure_future(queue.run(done.wait, queue._max_pixels - taken, None))
        options = {"draft": True, "show": False, "check": None}
        one = asyncio.ensure_future(service.explain_file(b"none", DIGITS, None, **options))
        await asyncio.wait([one], timeout=0.05)
        done.set()
        await work
        return (await asyncio.gather(one, return_exceptions=True))[0]

    assert queue._max_pixels >= 4 * 5_000_000
    assert isinstance(asyncio.run(asked(4_999_999)), BusyError)
    assert isinstance(asyncio.run(asked(5_000_000)), NotAnImageError)
    service.close()


def bomb():
    file = io.BytesIO()
    Image.new("RGBA", (4000, 4000), (1, 2, 3, 100)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def test_clients_that_have_gone_hold_nobody_up(service):
    content = bomb()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/webp\r\n"
    sent = head + b"Content-Length: %d\r\n\r\n" % len(content) + content
    address = httpx2.URL(service.url)
    gone = [socket.create_connection((address.host, address.port)) for _ in range(60)]
    for client in gone:
        client.sendall(sent)
        client.close()
    with service.client() as api:
        photo = picture(300, "JPEG")
        while api.post("/predict", content=photo, headers=PNG).status_code == 503:
            time.sleep(0.05)
    statuses = [line["status"] for line in service.lines() if line.get("path") == "/predict"]
    assert len([each for each in statuses if each not in (499, 503)]) < 10  # 16 may wait
    assert not [line for line in service.lines() if line["level"] == "error"]
