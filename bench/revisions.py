"""Speed of the service beside that of another commit: `make bench-serve BEFORE=main`.

Each round starts both anew and measures them in turn, because one start differs from the next by
more than most changes do. The table shows the median of the rounds' ratios, after to before.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import load, serve

ROUNDS, SECONDS = 15, 2
LOADS = {name: found for name, found in serve.LOADS.items() if found[0] == "ours"}


def checkout(revision: str, folder: Path) -> None:
    """Write the files of a commit into the folder; end with Git's message if there is none."""
    archive = subprocess.run(["git", "archive", revision], stdout=subprocess.PIPE, check=False)
    if archive.returncode:
        sys.exit(archive.returncode)
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)


def measured(code: Path, scripts: dict[str, Path], folder: Path) -> dict[str, load.Result]:
    """Return the result of each load on a new service of the code in a folder."""
    command, ready, variables = serve.servers(code)["ours"]
    url = f"http://127.0.0.1:{serve.PORTS['ours']}"
    # The current folder is no part of the path, which would come before PYTHONPATH.
    variables |= {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    server, _ = load.started(command, url + ready, folder / "log", **variables)
    try:
        return {
            name: load.put(server, url + path, scripts[body], SECONDS, connections)
            for name, (_, path, body, connections) in LOADS.items()
        }
    finally:
        server.terminate()
        server.wait()


def main(revision: str) -> None:
    """Measure both and print the table."""
    found: dict[str, list[tuple[load.Result, load.Result]]] = defaultdict(list)
    scripts = serve.bodies()
    with tempfile.TemporaryDirectory(prefix="bench-revisions-") as name:
        folder = Path(name)
        checkout(revision, folder / "before")
        checkout("HEAD", folder / "after")
        codes = [folder / "before", folder / "after"]
        for number in range(ROUNDS):
            # The order changes, so that a machine that grows slower favours none.
            order = codes if number % 2 else codes[::-1]
            results = {code.name: measured(code, scripts, folder) for code in order}
            for load_name in LOADS:
                pair = results["before"][load_name], results["after"][load_name]
                found[load_name].append(pair)
    Console().print(table(found))


def table(found: dict[str, list[tuple[load.Result, load.Result]]]) -> Table:
    """Return the ratios of processor time per request and of throughput."""
    made = Table("what", "processor time", "middle half", "requests/s", "failed")
    for name, pairs in found.items():
        spent = [after.processor_us / before.processor_us for before, after in pairs]
        low, middle, high = statistics.quantiles(spent, n=4)
        rate = statistics.median(after.rate / before.rate for before, after in pairs)
        failed = sum(result.failed for pair in pairs for result in pair)
        ratios = f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{rate:.3f}"
        made.add_row(name, *ratios, str(failed))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m bench.revisions", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("revision", help="such as main, a tag or a hash")
    main(parser.parse_args().revision)
