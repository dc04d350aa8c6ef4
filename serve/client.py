"""Command-line client of a running service: `python -m serve.client picture.png …`."""

from __future__ import annotations

import argparse
import base64
import glob
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

Answer = dict[str, Any]  # a response of /predict, or {"detail": …}

_STDIN = "-"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_CHUNK = 64  # pictures per batch: few, so that the first answers come soon
_TRIES = 5
_MAX_WAIT = 60  # seconds


class ClientError(Exception):
    """The service cannot be used; the message says why and what to do."""


class Limits(NamedTuple):
    """The service's limits: images per batch, and bytes per image."""

    batch: int
    image_bytes: int


class Service:
    """Client of one running service. Each method raises ClientError if it cannot be used."""

    def __init__(self, url: str, api_key: str = "") -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https"):
            raise ClientError(f"{url} is no address such as http://127.0.0.1:8000")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        self._headers |= {"X-API-Key": api_key} if api_key else {}
        local = address.hostname in ("127.0.0.1", "::1", "localhost")
        no_proxy = [ProxyHandler({})] if local else []
        self._open = build_opener(*no_proxy).open

    def limits(self) -> Limits:
        """Return the service's limits."""
        try:
            limits = self._json("/api/info")["limits"]
            return Limits(limits["max_batch"], limits["max_image_bytes"])
        except (KeyError, TypeError) as error:
            raise ClientError(f"{self._url} is not the service of this client") from error

    def predict(self, contents: list[bytes]) -> list[Answer]:
        """Return an answer for each image file."""
        images = [base64.b64encode(content).decode() for content in contents]
        answers: list[Answer] = self._json("/predict/batch", {"images": images})["predictions"]
        return answers

    def _json(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - it is JSON
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._url + path, data, self._headers)  # noqa: S310 - http or https
        for tries_left in reversed(range(_TRIES)):
            try:
                with self._open(request, timeout=120) as response:
                    return json.load(response)
            except HTTPError as error:
                with error:
                    after = error.headers.get("Retry-After", "")
                    if not (tries_left and error.code in (429, 503) and after.isdigit()):
                        raise ClientError(f"{error.code}: {_detail(error)}") from error
                time.sleep(min(int(after), _MAX_WAIT))
            except (URLError, OSError) as error:
                reason = getattr(error, "reason", error)
                raise ClientError(
                    f"no answer from {self._url}: {reason}; is it running? (--url)"
                ) from error
            except ValueError as error:
                raise ClientError(f"{self._url} is not the service of this client") from error
        raise AssertionError("unreachable")


def _detail(error: HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (KeyError, TypeError, ValueError):
        return error.reason


def files(arguments: Iterable[str]) -> Iterator[str]:
    """Yield file names: all pictures of a folder, and all matches of a glob pattern.

    Without any match, yield the argument itself, so that reading it reports the error.
    """
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            yield from _pictures(path.rglob("*")) or [argument]
        elif glob.has_magic(argument) and not path.is_file():
            matches = map(Path, glob.iglob(argument, recursive=True))  # noqa: PTH207 - absolute too
            yield from _pictures(matches) or [argument]
        else:
            yield argument


def _pictures(paths: Iterable[Path]) -> list[str]:
    return sorted(str(path) for path in paths if path.suffix.lower() in _SUFFIXES)


def read(name: str, largest: int) -> bytes | Answer:
    """Return the content of a file, or as `detail` the reason why it cannot be read."""
    try:
        content = sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes()
    except IsADirectoryError:
        return {"detail": "a folder without pictures"}
    except OSError as error:
        return {"detail": error.strerror or str(error)}
    if len(content) > largest:
        return {"detail": f"{len(content):,} bytes, more than the {largest:,} allowed"}
    return content


def ask(service: Service, names: Iterable[str], limits: Limits) -> Iterator[tuple[str, Answer]]:
    """Yield each name with its answer, in order; ask in batches within the limits."""
    batch: list[tuple[str, bytes | Answer]] = []
    size = 0
    for name in names:
        found = read(name, limits.image_bytes)
        length = len(found) if isinstance(found, bytes) else 0
        if len(batch) == min(limits.batch, _CHUNK) or size + length > limits.image_bytes:
            yield from _answers(service, batch)
            batch, size = [], 0
        size += length
        batch.append((name, found))
    yield from _answers(service, batch)


def _answers(
    service: Service, batch: list[tuple[str, bytes | Answer]]
) -> Iterator[tuple[str, Answer]]:
    contents = [found for _, found in batch if isinstance(found, bytes)]
    answers = iter(service.predict(contents) if contents else [])
    for name, found in batch:
        yield name, next(answers) if isinstance(found, bytes) else found


def row(name: str, answer: Answer, width: int) -> str:
    """Return a line of the table."""
    if "prediction" not in answer:
        return f"{name:<{width}}      -  {answer['detail']}"
    # A service of an earlier version returns no digit likelihood (out-of-distribution score).
    doubts = {"unsure": answer["uncertain"], "not a digit?": answer.get("not_digit")}
    said = "".join(f"  {doubt}" for doubt, there in doubts.items() if there)
    return f"{name:<{width}}  {answer['prediction']:>5}  {answer['confidence']:>10.1%}{said}"


def arguments() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.client",
        allow_abbrev=False,
        description="Asks a running service what digits pictures show.",
        epilog="Ends with 1 if any picture could not be read.",
    )
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="picture",
        help="a file, a folder (with all in it), a pattern such as 'scans/**/*.png', or - for one"
        " picture from standard input",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    parser.add_argument("--api-key", default="", help="if the service asks for one")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each picture")
    return parser


def main() -> int:
    """Print the prediction for each picture; return 1 if any could not be read."""
    given = arguments().parse_args()
    try:
        return _print(given)
    except ClientError as error:
        sys.stderr.write(f"error: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        sys.stderr.close()
    return 1


def _print(given: argparse.Namespace) -> int:
    names = list(files(given.pictures))
    service = Service(given.url, given.api_key)
    limits = service.limits()
    width = max(map(len, ("picture", *names)))
    if not given.json:
        print(f"{'picture':<{width}}  digit  confidence")
    failed = 0
    for name, answer in ask(service, names, limits):
        failed += "prediction" not in answer
        line = json.dumps({"file": name, **answer}) if given.json else row(name, answer, width)
        print(line, flush=True)
    if failed:
        sys.stderr.write(f"{failed} of {len(names)} could not be read\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
