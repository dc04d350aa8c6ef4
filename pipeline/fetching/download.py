"""One file over HTTP: resumed where an earlier attempt stopped, retried while there is hope."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

import requests
import tenacity
import urllib3
from rich import progress
from rich.console import Console

log = logging.getLogger(__name__)

ATTEMPTS = 4
# A host that does not answer is given up sooner, so that without a network the search through
# all mirrors ends within half a minute.
CONNECT_ATTEMPTS = 2
ANSWER_SECONDS = 5.0  # until the headers are there, name look-up and handshakes included
STALL_SECONDS = 15.0  # without a byte
BACKOFF_SECONDS = 0.5  # before the second attempt, then doubled; plus up to as much at random
LONGEST_PAUSE_SECONDS = 10.0  # a server that asks for a longer one is given up
CHUNK = 1 << 14


class DownloadError(Exception):
    """The server's answer is not the file; says why in a few words."""


class UnreachableError(DownloadError):
    """No answer at all, so no other file of the host is worth asking for."""


class UnsteadyError(UnreachableError):
    """An answer that broke off, or a server too busy to give one, until attempts were used up."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        """`pause`: seconds that the server asks for."""
        super().__init__(reason)
        self.pause = pause


def download(url: str, part: Path) -> bool:
    """Completes `part` with the file at `url`; true if it kept bytes that were already there.

    Whether those belong to the same file only a checksum can tell.

    Raises:
        UnreachableError: nothing to hope for from this host at present.
        DownloadError: the server refuses this file.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(UnreachableError),
        stop=_hopeless,
        wait=_pause,
        before_sleep=_announce,
        reraise=True,
    )
    return retrying(_attempt, url, part)


def without_password(text: str) -> str:
    """The text with URLs as they may be logged: without credentials."""
    return re.sub(r"(?<=//)[^/@\s]*@", "", text)


def _hopeless(state: tenacity.RetryCallState) -> bool:
    error = _error(state)
    if isinstance(error, UnsteadyError):
        return state.attempt_number >= ATTEMPTS or error.pause > LONGEST_PAUSE_SECONDS
    return state.attempt_number >= CONNECT_ATTEMPTS


def _pause(state: tenacity.RetryCallState) -> float:
    exponential = tenacity.wait_exponential(BACKOFF_SECONDS, LONGEST_PAUSE_SECONDS)
    backoff = exponential + tenacity.wait_random(0, BACKOFF_SECONDS)
    return max(backoff(state), getattr(_error(state), "pause", 0.0))


def _announce(state: tenacity.RetryCallState) -> None:
    url = without_password(state.args[0])
    log.info("%s: %s; trying again in %.1f s", url, _error(state), state.upcoming_sleep)


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _attempt(url: str, part: Path) -> bool:
    have = part.stat().st_size if part.exists() else 0
    with _answer(url, have) as response:
        resumes = response.status_code == HTTPStatus.PARTIAL_CONTENT
        if resumes or response.status_code == HTTPStatus.OK:
            _write(response, part, have if resumes else 0)
            return resumes
    if have and response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink()  # the server's file is not longer than that
        return _attempt(url, part)
    raise _refusal(response)


def _answer(url: str, have: int) -> requests.Response:
    # Ranges count the bytes as sent, so they must be those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    timeout = (ANSWER_SECONDS, STALL_SECONDS)
    get = partial(requests.get, url, headers=headers, stream=True, timeout=timeout)
    try:
        return _within(ANSWER_SECONDS, get)
    except (TimeoutError, requests.Timeout):
        raise UnreachableError(f"no answer within {ANSWER_SECONDS:g} s") from None
    except requests.ConnectionError as error:
        raise UnreachableError(_cause(error)) from None
    except requests.RequestException as error:
        raise DownloadError(str(error)) from None


def _within(seconds: float, get: Callable[[], requests.Response]) -> requests.Response:
    """Answer of `get`, left to itself when time is up.

    The timeout of `requests` does not cover the name look-up, and begins anew for each address of
    the host: storage.googleapis.com has sixteen.
    """
    answer: Future[requests.Response] = Future()

    def run() -> None:
        try:
            answer.set_result(get())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(seconds)


def _cause(error: BaseException) -> str:
    while error.__context__:
        error = error.__context__
    return str(getattr(error, "strerror", None) or error)


def _write(response: requests.Response, part: Path, start: int) -> None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    with part.open("ab" if start else "wb") as file, _bar(part, start, total) as advance:
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                advance(len(chunk))
        except urllib3.exceptions.ReadTimeoutError:
            raise UnsteadyError(f"stalled for {STALL_SECONDS:g} s") from None
        except urllib3.exceptions.HTTPError:
            of_all = f" of {total:,}" if total else ""
            raise UnsteadyError(f"broke off after {file.tell():,}{of_all} bytes") from None


@contextmanager
def _bar(part: Path, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar, on a terminal only; called with the bytes of each chunk."""
    columns = (
        progress.TextColumn("  {task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
    )
    quiet = not sys.stdout.isatty()
    with progress.Progress(*columns, console=Console(), transient=True, disable=quiet) as bar:
        task = bar.add_task(part.name, total=total, completed=start)
        yield partial(bar.advance, task)


def _refusal(response: requests.Response) -> DownloadError:
    reason = f"HTTP {response.status_code} {response.reason}"
    if response.status_code != HTTPStatus.TOO_MANY_REQUESTS and response.status_code < 500:
        return DownloadError(reason)
    asked = _retry_after(response.headers.get("Retry-After", ""))
    return UnsteadyError(f"{reason}, wants {asked:.0f} s of rest" if asked else reason, asked)


def _retry_after(header: str) -> float:
    """Seconds, of a header that gives them or a date; 0 of one that gives neither."""
    try:
        return urllib3.Retry().parse_retry_after(header)
    except urllib3.exceptions.InvalidHeader:
        return 0.0
