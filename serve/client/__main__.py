"""`python -m serve.client`."""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.progress import track

from serve.client import pictures, results
from serve.client.service import ClientError, Service


def arguments() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.client",
        allow_abbrev=False,
        description="Asks a running service what digits, or other classes, pictures show.",
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
    parser.add_argument("--model", default="", help="a served model; default: the service's")
    parser.add_argument("--api-key", default="", help="if the service asks for one")
    parser.add_argument(
        "--parallel", type=int, default=4, help="requests at once (default: %(default)s)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--json", action="store_true", help="a line of JSON for each picture")
    where.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write a .csv, .jsonl or .parquet file; pictures that it has are not sent again",
    )
    return parser


def main() -> int:
    """Say what each picture shows; return 1 if any could not be read."""
    given = arguments().parse_args()
    try:
        return _run(given)
    except ClientError as error:
        sys.stderr.write(f"error: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        sys.stderr.close()
    return 1


def _run(given: argparse.Namespace) -> int:
    if given.parallel < 1:
        raise ClientError("--parallel must be at least 1")
    names = list(pictures.files(given.pictures))
    with Service(given.url, given.api_key, given.model) as service:
        limits, labels = service.limits(), service.labels()
        width = max(map(len, ("picture", *map(pictures.shown, names))))
        found: results.Results = (
            results.to_file(given.out, labels)
            if given.out
            else results.Terminal(width, labels, as_json=given.json)
        )
        left = [name for name in names if pictures.shown(name) not in found.done]
        console = Console(stderr=True)
        quiet = not (given.out and console.is_terminal)
        failed = 0
        # Requests on the way end before their connections are closed.
        with closing(pictures.ask(service, left, limits, given.parallel)) as answers:
            for name, answer in track(
                answers, "reading", len(left), console=console, disable=quiet
            ):
                failed += "prediction" not in answer
                found.add(pictures.shown(name), answer)
        found.close()
    if given.out:
        before = f", {len(names) - len(left):,} had been before" if len(left) < len(names) else ""
        where = pictures.shown(str(given.out))
        print(f"{len(left) - failed:,} of {len(left):,} were read into {where}{before}")
    if failed:
        sys.stderr.write(f"{failed} of {len(left)} could not be read\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
