"""Client of the service's replicas: their latest predictions, and the reference of their model."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit
from zipfile import ZipFile

import numpy as np
import requests
from numpy.typing import NDArray

from serve.models import drift_reference
from serve.models.drift_reference import Reference

logger = logging.getLogger(__name__)

READ_SECONDS = 10  # until the next bytes of a response
RESPONSE_SECONDS = 60  # for a whole response
MAX_RESPONSE_BYTES = 50 * 2**20  # also when unpacked; the largest window has 2 MB
_PART = 2**16


class ReplicasError(Exception):
    """No replica has a usable response; the message says why."""


class Replica(NamedTuple):
    """The address of one replica; `host` is the name for its Host header."""

    url: str
    host: str


class Predictions(NamedTuple):
    """n predictions, the oldest first."""

    images: NDArray[np.uint8]  # (n, 28, 28)
    probabilities: NDArray[np.float32]  # (n, 10)
    versions: NDArray[np.str_]
    times: NDArray[np.int64]  # nanoseconds since 1970


class Response(NamedTuple):
    """A model version, its reference, and its latest predictions."""

    version: str
    reference: Reference
    predictions: Predictions


def fetch(urls: Iterable[str], key: str, latest: int, since: int) -> Response:
    """Fetch the latest predictions of all replicas, for the version that most of them serve.

    `latest`: how many predictions at most; `since`: none before this time, in nanoseconds since
    1970. A replica that fails is left out with a warning; if all fail, ReplicasError names them.
    """
    responses, failures = [], []
    for url in urls:
        try:
            found = list(replicas(url))
        except OSError as error:
            failures.append(f"{url}: {error}")
            continue
        for replica in found:
            try:
                responses.append(_fetch_one(replica, key, latest))
            except Exception as error:  # whatever NumPy, zipfile and requests say of a bad response
                failures.append(f"{replica.url}: {error or type(error).__name__}")
    if not responses:
        raise ReplicasError("; ".join(failures) or "no address is given: use --url")
    for failure in failures:
        logger.warning("replica left out: %s", failure)
    version, _ = Counter(each.version for each in responses).most_common(1)[0]
    reference = next(each.reference for each in responses if each.version == version)
    parts = zip(*(each.predictions for each in responses), strict=True)
    merged = Predictions(*map(np.concatenate, parts))
    order = np.argsort(merged.times, kind="stable")
    wanted = (merged.versions == version) & (merged.times >= since)
    order = order[wanted[order]][-latest:]
    return Response(version, reference, Predictions(*(part[order] for part in merged)))


def replicas(url: str) -> Iterator[Replica]:
    """Resolve the URL's name to all replicas behind it, such as those of a headless service.

    If the name has addresses of both kinds, only IPv4 is used, so that no replica counts twice.
    An https URL is used as it is, because its certificate is for the name. A name that cannot be
    resolved is an OSError.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        yield Replica(url.rstrip("/"), parts.netloc)
        return
    found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    addresses = {(family, address[0]) for family, *_, address in found}
    first = min(family for family, _ in addresses)  # AF_INET is 2, AF_INET6 10
    for address in sorted(str(address) for family, address in addresses if family == first):
        host = f"[{address}]" if ":" in address else address
        port = f":{parts.port}" if parts.port else ""
        path = parts.path.rstrip("/")
        yield Replica(urlunsplit(("http", f"{host}{port}", path, "", "")), parts.netloc)


def _fetch_one(replica: Replica, key: str, latest: int) -> Response:
    with requests.Session() as session:
        session.trust_env = False  # no proxy between the job and a replica
        session.headers.update({"Host": replica.host, "Accept-Encoding": "identity"})
        session.headers.update({"X-API-Key": key} if key else {})
        archive, version = _download(session, f"{replica.url}/api/reference")
        window, _ = _download(session, f"{replica.url}/api/window?images={latest}")
    if version is None:
        raise ReplicasError("the reference has no X-Model-Version")
    reference = drift_reference.read(archive)
    with np.load(BytesIO(window), allow_pickle=False) as arrays:
        predictions = Predictions(*(arrays[name] for name in Predictions._fields))
    _check_arrays(predictions)
    return Response(version, reference, predictions)


def _download(session: requests.Session, url: str) -> tuple[bytes, str | None]:
    """Download an archive; also return the model version that its header names."""
    deadline = time.monotonic() + RESPONSE_SECONDS
    content = bytearray()
    with session.get(url, timeout=READ_SECONDS, stream=True) as response:
        while part := response.raw.read1(_PART):
            content += part
            if len(content) > MAX_RESPONSE_BYTES:
                raise ReplicasError(f"more than {MAX_RESPONSE_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise ReplicasError(f"response not complete after {RESPONSE_SECONDS} s")
    if response.status_code != requests.codes.ok:
        detail = content[:200].decode(errors="replace")
        raise ReplicasError(f"status {response.status_code}: {detail}")
    with ZipFile(BytesIO(content)) as archive:
        if sum(file.file_size for file in archive.infolist()) > MAX_RESPONSE_BYTES:
            raise ReplicasError(f"more than {MAX_RESPONSE_BYTES:,} bytes when unpacked")
    return bytes(content), response.headers.get("X-Model-Version")


def _check_arrays(predictions: Predictions) -> None:
    """Raise ReplicasError unless shapes and types are those of n predictions."""
    n = len(predictions.times)
    arrays: tuple[NDArray[Any], ...] = predictions
    shapes = (n, 28, 28), (n, 10), (n,), (n,)
    dtypes = np.uint8, np.float32, np.str_, np.int64
    for name, array, shape, dtype in zip(Predictions._fields, arrays, shapes, dtypes, strict=True):
        if array.shape != shape or not np.issubdtype(array.dtype, dtype):
            raise ReplicasError(f"{name}: {array.dtype} of {array.shape}, not of {shape}")
    if not np.isfinite(predictions.probabilities).all():
        raise ReplicasError("probabilities: not all are finite numbers")
