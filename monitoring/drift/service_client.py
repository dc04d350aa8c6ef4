"""Client of the service's replicas: their latest predictions, and the reference of their model."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit
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

    images: NDArray[np.uint8]  # (n, h, w), or (n, h, w, 3) in colour
    probabilities: NDArray[np.float32]  # (n, classes)
    versions: NDArray[np.str_]
    times: NDArray[np.int64]  # nanoseconds since 1970


class Response(NamedTuple):
    """A model version, its reference, its latest predictions, and its labels."""

    version: str
    reference: Reference
    predictions: Predictions
    labels: tuple[str, ...]

    @property
    def sizes(self) -> tuple[object, ...]:
        """What predictions that can be put together have in common."""
        return self.labels, self.predictions.images.shape[1:]


def fetch(urls: Iterable[str], key: str, latest: int, since: int, model: str = "") -> Response:
    """Fetch the latest predictions of all replicas, for the version that most of them serve.

    `model`: the name of the model, if it is not the service's default. `latest`: how many
    predictions at most; `since`: none before this time, in nanoseconds since 1970. A replica that
    fails is left out with a warning; if all fail, ReplicasError names them.
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
                responses.append(_fetch_one(replica, key, latest, model))
            except Exception as error:  # whatever NumPy, zipfile and requests say of a bad response
                failures.append(f"{replica.url}: {error or type(error).__name__}")
    if not responses:
        raise ReplicasError("; ".join(failures) or "no address is given: use --url")
    for failure in failures:
        logger.warning("replica left out: %s", failure)
    version, _ = Counter(each.version for each in responses).most_common(1)[0]
    first = next(each for each in responses if each.version == version)
    alike = (each.predictions for each in responses if each.sizes == first.sizes)
    parts = zip(*alike, strict=True)
    merged = Predictions(*map(np.concatenate, parts))
    order = np.argsort(merged.times, kind="stable")
    wanted = (merged.versions == version) & (merged.times >= since)
    order = order[wanted[order]][-latest:]
    return first._replace(predictions=Predictions(*(part[order] for part in merged)))


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


def _fetch_one(replica: Replica, key: str, latest: int, model: str) -> Response:
    with requests.Session() as session:
        session.trust_env = False  # no proxy between the job and a replica
        session.headers.update({"Host": replica.host, "Accept-Encoding": "identity"})
        session.headers.update({"X-API-Key": key} if key else {})
        chosen = urlencode({"model": model}) if model else ""
        archive, version = _download(session, f"{replica.url}/api/reference?{chosen}".rstrip("?"))
        window, _ = _download(
            session, f"{replica.url}/api/window?images={latest}&{chosen}".rstrip("&")
        )
    if version is None:
        raise ReplicasError("the reference has no X-Model-Version")
    reference = drift_reference.read(archive)
    with np.load(BytesIO(window), allow_pickle=False) as arrays:
        predictions = Predictions(*(arrays[name] for name in Predictions._fields))
        classes = reference.probabilities.shape[1]
        # Digits are their own labels.
        labels = arrays["labels"] if "labels" in arrays else np.arange(classes)
    _check_arrays(predictions, classes)
    if labels.shape != (classes,):
        raise ReplicasError(f"labels: {labels.shape}, not of {classes} classes")
    return Response(version, reference, predictions, tuple(map(str, labels)))


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


def _check_arrays(predictions: Predictions, classes: int) -> None:
    """Raise ReplicasError unless shapes and types are those of n predictions."""
    n = len(predictions.times)
    arrays: tuple[NDArray[Any], ...] = predictions
    sides = predictions.images.shape[1:]
    if len(sides) not in (2, 3) or sides[2:] not in ((), (3,)):
        raise ReplicasError(f"images: of {predictions.images.shape}, which is no size of images")
    shapes = (n, *sides), (n, classes), (n,), (n,)
    dtypes = np.uint8, np.float32, np.str_, np.int64
    for name, array, shape, dtype in zip(Predictions._fields, arrays, shapes, dtypes, strict=True):
        if array.shape != shape or not np.issubdtype(array.dtype, dtype):
            raise ReplicasError(f"{name}: {array.dtype} of {array.shape}, not of {shape}")
    if not np.isfinite(predictions.probabilities).all():
        raise ReplicasError("probabilities: not all are finite numbers")
