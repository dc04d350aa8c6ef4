"""The service as its client sees it: limits, and answers to image files."""

import base64
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import httpx2

Answer = dict[str, Any]  # a response of /predict, or {"detail": …}

_TRIES = 5
_MAX_WAIT = 60  # seconds
_OF_THE_PICTURE = (400, 413, 415, 422)  # statuses of /predict that are no fault of the client


class ClientError(Exception):
    """The service cannot be used; the message says why and what to do."""


class Limits(NamedTuple):
    """The service's limits: images per batch, and bytes per image."""

    batch: int
    image_bytes: int


class Service:
    """Client of one running service, for several threads.

    Each method raises ClientError if it cannot be used.
    """

    def __init__(self, url: str, api_key: str = "", model: str = "") -> None:
        """`model`: the name of a served model; if empty, the service's default."""
        self._url, self._model = url.rstrip("/"), model
        self._query = {"model": model} if model else {}
        try:
            address = httpx2.URL(self._url)
        except httpx2.InvalidURL:
            address = httpx2.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise ClientError(f"{url} is no address such as http://127.0.0.1:8000")
        if not re.fullmatch(r"[!-~]*", api_key):
            raise ClientError("the API key has characters that no header can carry")
        local = address.host in ("127.0.0.1", "::1", "localhost")
        headers = {"X-API-Key": api_key} if api_key else {}
        self._http = httpx2.Client(headers=headers, timeout=120, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def limits(self) -> Limits:
        """Return the service's limits."""
        try:
            limits = self._json("GET", "/api/info")["limits"]
            return Limits(limits["max_batch"], limits["max_image_bytes"])
        except (KeyError, TypeError) as error:
            raise self._stranger() from error

    def labels(self) -> list[int | str]:
        """Return the labels of the model; those of digits if none is loaded."""
        info = self._json("GET", "/api/info")
        wanted = self._model or info.get("model_name")
        models = info.get("models", ())  # of an earlier version without names
        found = (each["labels"] for each in models if each.get("model") == wanted)
        return next(found, list(range(10)))

    def predict(self, contents: Sequence[bytes]) -> list[Answer]:
        """Return an answer for each image file.

        Those that are together too large for one request are sent alone.
        """
        images = [base64.b64encode(content).decode() for content in contents]
        asked = self._json("POST", "/predict/batch", json={"images": images}, params=self._query)
        answers: list[Answer] = asked["predictions"]
        for place, answer in enumerate(answers):
            if answer.get("status") == 413:
                answers[place] = self._predict_alone(contents[place])
        return answers

    def _predict_alone(self, content: bytes) -> Answer:
        kind = {"Content-Type": "application/octet-stream"}
        answer: Answer = self._json(
            "POST",
            "/predict",
            refusals=_OF_THE_PICTURE,
            content=content,
            headers=kind,
            params=self._query,
        )
        return answer

    def _json(
        self,
        method: str,
        path: str,
        refusals: tuple[int, ...] = (),
        **request: Any,  # noqa: ANN401 - what `httpx2.Client.request` takes
    ) -> Any:  # noqa: ANN401 - it is JSON
        """Return the response's JSON, also of these refusals; wait where it says `Retry-After`."""
        for tries_left in reversed(range(_TRIES)):
            try:
                response = self._http.request(method, self._url + path, **request)
                if response.is_success or response.status_code in refusals:
                    return response.json()
            except httpx2.TransportError as error:
                raise ClientError(
                    f"no answer from {self._url}: {error}; is it running? (--url)"
                ) from error
            except ValueError as error:
                raise self._stranger() from error
            after = response.headers.get("Retry-After", "")
            if not (tries_left and response.status_code in (429, 503) and after.isdigit()):
                raise ClientError(f"{response.status_code}: {_detail(response)}")
            time.sleep(min(int(after), _MAX_WAIT))
        raise AssertionError("unreachable")

    def _stranger(self) -> ClientError:
        return ClientError(f"{self._url} is not the service of this client")


def _detail(response: httpx2.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (KeyError, TypeError, ValueError):
        return response.reason_phrase
