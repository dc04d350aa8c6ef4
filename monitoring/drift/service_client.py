"""What the replicas of a service answered lately, and what to compare it with."""

from __future__ import annotations

import logging
import socket
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit
from zipfile import BadZipFile, ZipFile

import numpy as np
import requests
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError

from serve.models import drift_reference as reference
from serve.models.drift_reference import Reference

logger = logging.getLogger(__name__)

_SECONDS = 10  # until the next bytes of an answer
_MOST_SECONDS = 60  # for the whole of one
_MOST_BYTES = 50 * 2**20  # of one, also when unpacked: the largest window has 2 MB
_PART = 2**16
_SIDE = 28
# What is not as this code expects: of an archive nearly anything may be broken.
_MALFORMED = (
    *(ValueError, KeyError, TypeError, EOFError, OSError, MemoryError, OverflowError),
    *(NotImplementedError, RuntimeError, BadZipFile, zlib.error, HTTPError),
)


class ReplicasError(Exception):
    """No replica can be compared; the message says why not."""


class Replica(NamedTuple):
    """Where one is asked; `host` is the name that it goes by."""

    url: str
    host: str


class Answers(NamedTuple):
    """Of n answers of one version, the oldest first."""

    images: NDArray[np.uint8]  # (n, 28, 28)
    probabilities: NDArray[np.float32]  # (n, 10)
    versions: NDArray[np.str_]
    times: NDArray[np.int64]  # nanoseconds since 1970


class Asked(NamedTuple):
    """What came of it: the version in service, its reference and its latest answers."""

    version: str
    reference: Reference
    answers: Answers


def ask(urls: Iterable[str], key: str, most: int, since: int) -> Asked:
    """Asks every replica; the version is the one in service at most of them.

    `most`: how many answers are wanted, the latest of all replicas; `since`: none before, in
    nanoseconds since 1970.

    Raises:
        ReplicasError: none answers as it should.
    """
    told, failures = [], []
    for url in urls:
        try:
            found = list(replicas(url))
        except OSError as error:
            failures.append(f"{url}: {error}")
            continue
        for replica in found:
            try:
                told.append(_ask(replica, key, most))
            except (ReplicasError, *_MALFORMED) as error:
                failures.append(f"{replica.url}: {error or type(error).__name__}")
    if not told:
        raise ReplicasError("; ".join(failures) or "no address is given")
    for failure in failures:
        logger.warning("left out: %s", failure)
    version, _ = Counter(each.version for each in told).most_common(1)[0]
    expected = next(each.reference for each in told if each.version == version)
    answers = _latest([each.answers for each in told], version, most, since)
    return Asked(version, expected, answers)


def replicas(url: str) -> Iterator[Replica]:
    """Every address of the name in the URL, which may be that of a headless service.

    Of a name with addresses of both kinds those of IPv4, lest a replica be asked twice. A name
    behind https is asked as it is: no certificate is for an address.

    Raises:
        OSError: the name has no address.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        yield Replica(url.rstrip("/"), parts.netloc)
        return
    found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    addresses = {(family, address[0]) for family, *_, address in found}
    kind = min(family for family, _ in addresses)  # AF_INET is 2, AF_INET6 10
    for address in sorted(str(address) for family, address in addresses if family == kind):
        host = f"[{address}]" if ":" in address else address
        port = f":{parts.port}" if parts.port else ""
        path = parts.path.rstrip("/")
        yield Replica(urlunsplit(("http", f"{host}{port}", path, "", "")), parts.netloc)


def _ask(replica: Replica, key: str, most: int) -> Asked:
    with requests.Session() as session:
        session.trust_env = False  # a replica is asked itself, not through a proxy
        session.headers.update({"Host": replica.host, "Accept-Encoding": "identity"})
        session.headers.update({"X-API-Key": key} if key else {})
        described, version = _get(session, f"{replica.url}/api/reference")
        window, _ = _get(session, f"{replica.url}/api/window?images={most}")
    if version is None:
        raise ReplicasError("the reference is of no version")
    expected = reference.read(described)
    if not all(np.isfinite(part).all() for part in expected):
        raise ReplicasError("the reference has values that are no numbers")
    with np.load(BytesIO(window), allow_pickle=False) as arrays:
        answers = Answers(*(arrays[name] for name in Answers._fields))
    _check(answers)
    return Asked(version, expected, answers)


def _get(session: requests.Session, url: str) -> tuple[bytes, str | None]:
    """An archive, and the version that it is of if it says so."""
    ends = time.monotonic() + _MOST_SECONDS
    content = bytearray()
    with session.get(url, timeout=_SECONDS, stream=True) as response:
        while part := response.raw.read1(_PART):
            content += part
            if len(content) > _MOST_BYTES:
                raise ReplicasError(f"more than {_MOST_BYTES:,} bytes")
            if time.monotonic() > ends:
                raise ReplicasError(f"no end of it in {_MOST_SECONDS} s")
    if response.status_code != requests.codes.ok:
        said = content[:200].decode(errors="replace")
        raise ReplicasError(f"{response.status_code} {said}")
    with ZipFile(BytesIO(content)) as archive:
        if sum(file.file_size for file in archive.infolist()) > _MOST_BYTES:
            raise ReplicasError(f"more than {_MOST_BYTES:,} bytes when unpacked")
    return bytes(content), response.headers.get("X-Model-Version")


def _check(answers: Answers) -> None:
    """Raises ReplicasError if the arrays are not those of n answers."""
    n = len(answers.times)
    parts: tuple[NDArray[Any], ...] = answers
    shapes = (n, _SIDE, _SIDE), (n, 10), (n,), (n,)
    kinds = np.uint8, np.float32, np.str_, np.int64
    for name, part, shape, kind in zip(Answers._fields, parts, shapes, kinds, strict=True):
        if part.shape != shape or not np.issubdtype(part.dtype, kind):
            raise ReplicasError(f"{name}: {part.dtype} of {part.shape}, not of {shape}")
    if not np.isfinite(answers.probabilities).all():
        raise ReplicasError("probabilities are no numbers")


def _latest(told: list[Answers], version: str, most: int, since: int) -> Answers:
    whole = Answers(*(np.concatenate(parts) for parts in zip(*told, strict=True)))
    order = np.argsort(whole.times, kind="stable")
    wanted = (whole.versions == version) & (whole.times >= since)
    order = order[wanted[order]][-most:]
    return Answers(*(part[order] for part in whole))
