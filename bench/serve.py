"""Benchmark of the service's speed and memory, as ratios to baselines: `make bench-serve`.

Each round measures all servers in turn; servers and load share the machine. The tables show the
median of the rounds. MODEL_URI may name a bundle's folder; else models/champion is served. The
exit status is 1 if metrics cost more of the throughput than COUNTING.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from bench import load
from bench.shown import show
from pipeline.config import paths
from pipeline.data import dataset

ROOT = Path(__file__).parents[1]
BUNDLE = Path(os.environ.get("MODEL_URI", ROOT / "models" / "champion"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS, CONNECTIONS = 3, 16
MANY = 200_000  # requests
PORTS = {
    **{"ours": 8301, "empty": 8302, "keras": 8303, "mlflow": 8304},
    **{"uncounted": 8305, "unobserved": 8306},
}
JSON, PNG = "`/predict`, JSON", "`/predict`, PNG"
UNCOUNTED, UNOBSERVED = f"{JSON}, not counted", f"{JSON}, not observed"
# Server, path, body and connections of each load, by its name in `docs/tables`.
LOADS = {
    "empty": ("empty", "/predict", "json", CONNECTIONS),
    "keras": ("keras", "/predict", "json", CONNECTIONS),
    "mlflow": ("mlflow", "/invocations", "tensor", CONNECTIONS),
    JSON: ("ours", "/predict", "json", CONNECTIONS),
    UNCOUNTED: ("uncounted", "/predict", "json", CONNECTIONS),
    UNOBSERVED: ("unobserved", "/predict", "json", CONNECTIONS),
    PNG: ("ours", "/predict", "png", CONNECTIONS),
    "`/predict/batch`, 256 of MNIST": ("ours", "/predict/batch", "digits", 2),
    "the same, each to be normalised": ("ours", "/predict/batch", "scans", 2),
}
COUNTING = 0.05  # share of the throughput that metrics may cost


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def scans() -> list[bytes]:
    """Return 28x28 PNGs of digits off MNIST's placement, so each must be normalised."""
    from sklearn.datasets import load_digits

    pictures = []
    for small in load_digits().images[:256].astype(np.uint8) * 15:
        picture = Image.new("L", (28, 28))
        picture.paste(Image.fromarray(small).resize((16, 16)), (2, 3))
        pictures.append(png(np.asarray(picture)))
    return pictures


def batch(pictures: list[bytes]) -> Path:
    """Return the load of a batch request with all pictures."""
    texts = [base64.b64encode(picture).decode() for picture in pictures]
    return load.script(json.dumps({"images": texts}).encode(), "application/json")


def keras_models(folder: Path) -> None:
    """Save the served model's architecture with Keras, alone and for MLflow."""
    from pipeline.training import determinism

    determinism.import_tensorflow()
    import mlflow.tensorflow

    from pipeline.config import Model
    from pipeline.training import networks

    settings = json.loads((BUNDLE / "model.json").read_text())["settings"]
    model = networks.build(Model(**settings["model"]), training=False)
    model.save(folder / "model.keras")
    example = np.zeros((1, 28, 28, 1), np.uint8)
    signature = mlflow.models.infer_signature(example, model(example).numpy())
    mlflow.tensorflow.save_model(
        model, folder / "mlflow", signature=signature, pip_requirements=["keras"]
    )


def servers(folder: Path) -> Iterator[tuple[str, list[str], str, dict[str, str]]]:
    """Yield each server's name, command, address to poll for its start, and environment."""
    python, log_level = sys.executable, "info"
    for name, module in (("empty", "bench.empty"), ("keras", "bench.keras_endpoint")):
        command = [python, "-m", "uvicorn", f"{module}:app", "--log-level", log_level]
        yield (
            name,
            [*command, "--port", str(PORTS[name])],
            f"http://127.0.0.1:{PORTS[name]}/docs",
            {"BENCH_MODEL": str(folder / "model.keras"), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    yield (
        "mlflow",
        [
            *(python, "-m", "mlflow", "models", "serve", "--model-uri", str(folder / "mlflow")),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(PORTS["mlflow"])),
        ],
        f"http://127.0.0.1:{PORTS['mlflow']}/ping",
        {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    for name, *module in (
        ("ours", "serve"),
        ("uncounted", "bench.unwatched"),
        ("unobserved", "bench.unwatched", "--all"),
    ):
        yield (
            name,
            [python, "-m", *module],
            f"http://127.0.0.1:{PORTS[name]}/health/ready",
            {
                "API_PORT": str(PORTS[name]),
                "API_WORKERS": "1",
                "MODEL_URI": str(BUNDLE.resolve()),
                "STATE_DIR": str(folder / f"state-{name}"),
                "LOG_FORMAT": "json",
            },
        )


def main() -> None:
    """Run the benchmark and print two tables."""
    if not shutil.which("wrk"):
        sys.exit("needs wrk: apt-get install wrk, or make system")
    folder = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    keras_models(folder)
    digits = [png(image) for image in dataset.load(paths.processed("mnist"), "test").images[:256]]
    text = base64.b64encode(digits[0]).decode()
    as_json = json.dumps({"image": f"data:image/png;base64,{text}"})
    tensor = json.dumps({"inputs": np.zeros((1, 28, 28, 1), int).tolist()})
    bodies = {
        "json": load.script(as_json.encode(), "application/json"),
        "tensor": load.script(tensor.encode(), "application/json"),
        "png": load.script(digits[0], "image/png"),
        "digits": batch(digits),
        "scans": batch(scans()),
    }
    found: dict[str, list[load.Result]] = {name: [] for name in LOADS}
    with contextlib.ExitStack() as stack:
        running, ready, sizes = {}, {}, {}
        for name, command, url, environment in servers(folder):
            running[name], ready[name] = load.started(
                command, url, folder / f"{name}.log", **environment
            )
            stack.callback(running[name].wait)
            stack.callback(running[name].terminate)
        for _ in range(ROUNDS):
            for name, (server, path, body, connections) in LOADS.items():
                url = f"http://127.0.0.1:{PORTS[server]}{path}"
                lua = bodies[body]
                found[name].append(load.put(running[server], url, lua, SECONDS, connections))
            sizes = sizes or {name: load.memory(server.pid) for name, server in running.items()}
        # The server that keeps running must not grow.
        url = f"http://127.0.0.1:{PORTS['ours']}/predict"
        served = sum(one.count for name in (JSON, PNG) for one in found[name])
        while served < MANY:
            served += load.put(running["ours"], url, bodies["json"], SECONDS, CONNECTIONS).count
        grown = load.memory(running["ours"].pid) - sizes["ours"]
    show(speeds(found, ready, sizes), "serving", "make bench-serve", width=120)
    show(costs(found), "watching", "make bench-serve", width=120)
    print(f"our worker grew by {grown:.1f} MB from the first round to {served:,} requests")
    shutil.rmtree(folder)
    if statistics.median(lost(found, UNCOUNTED)) > COUNTING:
        sys.exit(f"counting costs more than {COUNTING:.0%} of the throughput")


def lost(found: dict[str, list[load.Result]], bare: str) -> list[float]:
    """Return, for each round, the share of `bare`'s throughput that the full service loses."""
    pairs = zip(found[JSON], found[bare], strict=True)
    return [1 - whole.rate / without.rate for whole, without in pairs]


def costs(found: dict[str, list[load.Result]]) -> Table:
    """Return the table of what metrics and observability cost a request."""
    table = Table("what", "of the throughput", "lowest, highest", "processor µs")
    for what, bare in (("counters", UNCOUNTED), ("all that observes", UNOBSERVED)):
        shares = lost(found, bare)
        pairs = zip(found[JSON], found[bare], strict=True)
        spent = [whole.processor_us - without.processor_us for whole, without in pairs]
        table.add_row(
            what,
            f"{100 * statistics.median(shares):.1f} %",
            f"{100 * min(shares):.1f} %, {100 * max(shares):.1f} %",
            f"{statistics.median(spent):.0f}",
        )
    return table


def speeds(
    found: dict[str, list[load.Result]], ready: dict[str, float], sizes: dict[str, float]
) -> Table:
    """Return the table of all loads, as medians of the rounds."""
    table = Table(
        *("what", "pictures/s", "of empty", "lowest, highest round", "p99 ms", "processor µs"),
        *("MB", "ready s"),
    )
    for name, results in found.items():
        pairs = zip(results, found["empty"], strict=True)
        ratios = [one.rate / empty.rate for one, empty in pairs]
        server, path, *_ = LOADS[name]
        pictures = 256 if "batch" in path else 1
        p99 = statistics.median(one.p99_ms for one in results)
        table.add_row(
            name,
            f"{statistics.median(one.rate for one in results) * pictures:,.0f}",
            _ratio(statistics.median(ratios)) if pictures == 1 else "",
            f"{_ratio(min(ratios))}, {_ratio(max(ratios))}" if pictures == 1 else "",
            f"{p99:.1f}" if p99 < 100 else f"{p99:,.0f}",
            f"{statistics.median(one.processor_us for one in results) / pictures:,.0f}",
            # The other servers have also read batches, so their memory cannot be compared.
            "" if name in (UNCOUNTED, UNOBSERVED) else f"{sizes[server]:.0f}",
            f"{ready[server]:.2f}",
        )
        if failures := sum(one.failed for one in results):
            print(f"{name}: {failures} failed")
    return table


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value > 0.1 else f"{value:.3f}"


if __name__ == "__main__":
    main()
