"""Clients of a service that ask all the time, and compare each answer with the known one."""

import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect as open_websocket

from serve.decoding.decode import normalise_file
from serve.models.predictor import Predictor
from support.bundles import PNG, text

PATIENCE = 300  # seconds after which a request counts as lost
JSON = {"content-type": "application/json"}
TOGETHER = 16  # pictures in a batch
ON_A_CONNECTION = 40  # requests, then a new one, perhaps to another worker
PAUSE = 0.03  # seconds
BROKEN = (OSError, HTTPException, WebSocketException)


class Known(NamedTuple):
    """Picture files, and what a bundle answers to each."""

    files: list[bytes]
    probabilities: np.ndarray  # (n, 10)

    @classmethod
    def of(cls, bundle, files):
        """Compute the answers in this process."""
        images = np.stack([normalise_file(file, max_pixels=10**6) for file in files])
        return cls(files, Predictor(bundle).probabilities(images))

    def agrees(self, answer, place):
        """Return whether it is the answer to the picture in that place."""
        expected = self.probabilities[place]
        return answer["prediction"] == expected.argmax() and np.allclose(
            answer["probabilities"], expected, atol=1e-4
        )


class Traffic:
    """Context manager: clients for single pictures, batches, feedback and WebSockets."""

    def __init__(self, url, known):
        self.answers = Counter()  # by (path, status)
        self.wrong = []
        self.lost = []  # (port, path, error) of each request without an answer
        self._url, self._known = url, known
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._lock, self._done = threading.Lock(), threading.Event()

    def __enter__(self):
        self._done.clear()
        self._pool = ThreadPoolExecutor()
        clients = [self._singles, self._singles, self._singles, self._batches, self._streams]
        self._clients = [
            self._pool.submit(self._ask, client, number) for number, client in enumerate(clients)
        ]
        return self

    def __exit__(self, *error):
        self._done.set()
        self._pool.shutdown()
        for client in self._clients:
            client.result()

    def _ask(self, client, number):
        """Have the client ask on one connection after the other."""
        chance = np.random.default_rng(number)
        while not self._done.is_set():
            with socket.create_connection(self._address, PATIENCE) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                port = connection.getsockname()[1]
                try:
                    client(connection, chance)
                except BROKEN as error:
                    with self._lock:
                        self.lost.append((port, client.__name__, repr(error)))

    def _turns(self, chance, size=None):
        """Yield the places of pictures until it is time for a new connection."""
        for _ in range(ON_A_CONNECTION):
            if self._done.wait(PAUSE):
                return
            yield chance.integers(len(self._known.files), size=size)

    def _singles(self, connection, chance):
        api = _http(connection)
        for turn, place in enumerate(self._turns(chance)):
            file = self._known.files[place]
            if turn % 2:
                given = self._post(api, "/predict", file, PNG)
            else:
                given = self._post(api, "/predict", json.dumps({"image": text(file)}), JSON)
            if self._check("/predict", given, [place]) and turn % 4 == 0:
                self._feedback(api, given[1])

    def _feedback(self, api, answer):
        content = {"request_id": answer["request_id"], "label": answer["prediction"]}
        status, given = self._post(api, "/feedback", json.dumps(content), JSON)
        # 503: the database is locked, for as long as a process that holds it is stopped.
        if status not in (200, 503, 507) or (status == 200 and not given["correct"]):
            self.wrong.append(("/feedback", status, given))

    def _batches(self, connection, chance):
        api = _http(connection)
        for places in self._turns(chance, TOGETHER):
            images = [text(self._known.files[place]) for place in places]
            given = self._post(api, "/predict/batch", json.dumps({"images": images}), JSON)
            self._check("/predict/batch", given, places)

    def _streams(self, connection, chance):
        url = self._url.replace("http", "ws") + "/predict/stream"
        with open_websocket(url, sock=connection, open_timeout=PATIENCE) as stream:
            for place in self._turns(chance):
                stream.send(self._known.files[place])
                answer = json.loads(stream.recv(PATIENCE))
                given = answer.get("status", 200), answer
                self._count("/predict/stream", given[0])
                self._check("/predict/stream", given, [place])

    def _post(self, api, path, content, headers):
        api.request("POST", path, content, headers)
        response = api.getresponse()
        answer = json.loads(response.read())
        self._count(path, response.status)
        return response.status, answer

    def _count(self, path, status):
        with self._lock:
            self.answers[path, status] += 1

    def _check(self, path, given, places):
        """Note a wrong answer; return whether it was right."""
        status, answer = given
        predictions = answer.get("predictions", [answer])
        right = status == 200 and len(predictions) == len(places)
        right = right and all(map(self._known.agrees, predictions, places))
        if not right:
            self.wrong.append((path, status, answer))
        return right


def _http(connection):
    api = HTTPConnection("127.0.0.1")
    api.sock = connection
    api.auto_open = 0  # on this connection alone
    return api
