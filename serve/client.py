"""Command-line client of a running service: `python -m serve.client picture.png …`."""

from __future__ import annotations

import argparse
import base64
import glob
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

Answer = dict[str, Any]  # a response of /predict, or {"detail": …, "status": …}

_STDIN = "-"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_CHUNK = 64  # pictures per batch: small enough for the progress bar to move
_TRIES = 5
_MAX_WAIT = 60.0  # seconds


class ClientError(Exception):
    """The service cannot be used; the message says why and what to do."""


class Picture(NamedTuple):
    """An image file: its content, or the reason why it cannot be read."""

    name: str
    content: bytes
    fault: str = ""


class Limits(NamedTuple):
    """The service's limits: images per batch, and bytes per image."""

    batch: int
    image_bytes: int


class Service:
    """Client of one running service."""

    def __init__(self, url: str, api_key: str = "") -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ClientError(f"{url} is no address such as http://127.0.0.1:8000")
        self._url = url.rstrip("/")
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._open = build_opener(*_without_proxy(url)).open

    def limits(self) -> Limits:
        """Return the service's limits.

        Raises:
            ClientError: it does not answer, or is another kind of service.
        """
        try:
            limits = self._json("/api/info")["limits"]
            return Limits(limits["max_batch"], limits["max_image_bytes"])
        except (KeyError, TypeError) as error:
            raise ClientError(f"{self._url} is not the service of this client") from error

    def predict(self, contents: list[bytes]) -> list[Answer]:
        """Return an answer for each image file.

        Raises:
            ClientError
        """
        images = [base64.b64encode(content).decode() for content in contents]
        answers: list[Answer] = self._json("/predict/batch", {"images": images})["predictions"]
        return answers

    def _json(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - it is JSON
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        request = Request(self._url + path, data, headers)  # noqa: S310 - http or https, checked
        for last in (*[False] * (_TRIES - 1), True):
            try:
                with self._open(request, timeout=120) as response:
                    return json.load(response)
            except HTTPError as error:
                with error:
                    wait = _wait(error)
                    if last or wait is None:
                        raise ClientError(f"{error.code}: {_detail(error)}") from error
                time.sleep(wait)
            except (URLError, OSError) as error:
                reason = getattr(error, "reason", error)
                raise ClientError(
                    f"no answer from {self._url}: {reason}; is it running? (--url)"
                ) from error
            except ValueError as error:
                raise ClientError(f"{self._url} is not the service of this client") from error
        raise AssertionError("unreachable")


def _without_proxy(url: str) -> list[ProxyHandler]:
    """Return a handler that bypasses proxies for this machine; an empty list for another host."""
    host = urlsplit(url).hostname or ""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return [ProxyHandler({})] if local else []


def _wait(error: HTTPError) -> float | None:
    """Return the seconds after which a retry may succeed; None if it never will."""
    after = error.headers.get("Retry-After", "")
    if error.code not in (429, 503) or not after.isdigit():
        return None
    return min(float(after), _MAX_WAIT)


def _detail(error: HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (KeyError, TypeError, ValueError):
        return error.reason


def files(arguments: Iterable[str]) -> Iterator[str]:
    """Yield file names: all files of a folder, and all matches of a glob pattern.

    Without any match, yield the argument itself, so that reading it reports the error.
    """
    for argument in arguments:
        path = Path(argument)
        if argument == _STDIN or path.is_file():
            yield argument
        elif path.is_dir():
            yield from _pictures(path.rglob("*")) or [argument]
        elif glob.has_magic(argument):
            matches = map(Path, glob.iglob(argument, recursive=True))  # noqa: PTH207 - absolute too
            yield from _pictures(matches) or [argument]
        else:
            yield argument


def _pictures(paths: Iterable[Path]) -> list[str]:
    return sorted(str(path) for path in paths if path.suffix.lower() in _SUFFIXES)


def read(name: str, largest: int) -> Picture:
    """Read a file; return its content, or the reason why it cannot be read."""
    try:
        content = sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes()
    except IsADirectoryError:
        return Picture(name, b"", "a folder without pictures")
    except OSError as error:
        return Picture(name, b"", error.strerror or str(error))
    if len(content) > largest:
        return Picture(name, b"", f"{len(content):,} bytes, more than the {largest:,} allowed")
    return Picture(name, content)


def chunks(pictures: Iterable[Picture], limits: Limits) -> Iterator[list[Picture]]:
    """Yield the pictures in batches within the service's limits."""
    chunk: list[Picture] = []
    size = 0
    for picture in pictures:
        size += len(picture.content)
        if chunk and (len(chunk) == min(limits.batch, _CHUNK) or size > limits.image_bytes):
            yield chunk
            chunk, size = [], len(picture.content)
        chunk.append(picture)
    if chunk:
        yield chunk


def ask(service: Service, names: list[str], limits: Limits) -> Iterator[tuple[str, Answer]]:
    """Yield each name with its answer, in order."""
    pictures = (read(name, limits.image_bytes) for name in names)
    for chunk in chunks(pictures, limits):
        contents = [picture.content for picture in chunk if not picture.fault]
        answers = iter(service.predict(contents) if contents else [])
        for picture in chunk:
            yield picture.name, {"detail": picture.fault} if picture.fault else next(answers)


def row(name: str, answer: Answer, width: int) -> str:
    """Return a line of the table."""
    if "prediction" not in answer:
        return f"{name:<{width}}      -  {answer['detail']}"
    # A service of an earlier version returns no digit likelihood (out-of-distribution score).
    doubts = {"unsure": answer["uncertain"], "not a digit?": answer.get("not_digit")}
    said = "".join(f"  {doubt}" for doubt, there in doubts.items() if there)
    return f"{name:<{width}}  {answer['prediction']:>5}  {answer['confidence']:>10.1%}{said}"


def line(name: str, answer: Answer) -> str:
    """Return a line of JSON."""
    return json.dumps({"file": name, **answer})


def progress(total: int, stream: TextIO) -> Callable[[int], None]:
    """Return a function that draws a progress bar; it draws nothing for few pictures or a pipe.

    Called with 0, it removes the bar.
    """
    if total <= _CHUNK or not stream.isatty():
        return lambda done: None
    width = 30

    def draw(done: int) -> None:
        bar = "█" * (done * width // total)
        stream.write(f"\r{bar:░<{width}} {done}/{total}" if done else "\r\x1b[K")
        stream.flush()

    return draw


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
    draw = progress(len(names), sys.stderr)
    failed = 0
    if not given.json:
        print(f"{'picture':<{width}}  digit  confidence")
    for done, (name, answer) in enumerate(ask(service, names, limits), 1):
        failed += "prediction" not in answer
        draw(0)
        print(line(name, answer) if given.json else row(name, answer, width), flush=True)
        draw(done)
    draw(0)
    if failed:
        sys.stderr.write(f"{failed} of {len(names)} could not be read\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
