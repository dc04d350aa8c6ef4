"""Benchmark of the service's speed and memory, as ratios to baselines: `make bench-serve`.

Each round measures all servers in turn; servers and load share the machine. The tables show the
median of the rounds. The exit status is 1 if metrics cost more of the throughput than COUNTING.
"""

import base64
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from bench import load
from bench.variants import file
from docs.tools.recorded import show
from pipeline.config import paths
from pipeline.data import dataset

BUNDLE = Path(__file__).parents[1] / "models" / "champion"
ROUNDS, SECONDS, CONNECTIONS = 5, 3, 16
MANY = 200_000  # requests
PORTS = {"ours": 8301, "empty": 8302, "keras": 8303, "mlflow": 8304, "uncounted": 8305}
JSON, PNG, UNCOUNTED = "`/predict`, JSON", "`/predict`, PNG", "`/predict`, JSON, not counted"
# Server, path, body and connections of each load, by its name in `docs/tables`.
LOADS = {
    "empty": ("empty", "/predict", "json", CONNECTIONS),
    "keras": ("keras", "/predict", "json", CONNECTIONS),
    "mlflow": ("mlflow", "/invocations", "tensor", CONNECTIONS),
    JSON: ("ours", "/predict", "json", CONNECTIONS),
    UNCOUNTED: ("uncounted", "/predict", "json", CONNECTIONS),
    PNG: ("ours", "/predict", "png", CONNECTIONS),
    "`/predict/batch`, 256 of MNIST": ("ours", "/predict/batch", "digits", 2),
    "the same, each to be normalised": ("ours", "/predict/batch", "scans", 2),
}
COUNTING = 0.05  # share of the throughput that metrics may cost


def scans() -> list[bytes]:
    """Return 28x28 PNGs of digits off MNIST's placement, so each must be normalised."""
    from sklearn.datasets import load_digits

    pictures = []
    for small in load_digits().images[:256].astype(np.uint8) * 15:
        picture = Image.new("L", (28, 28))
        picture.paste(Image.fromarray(small).resize((16, 16)), (2, 3))
        pictures.append(file(picture))
    return pictures


def bodies() -> dict[str, Path]:
    """Return the script of each body that is posted, by its name."""
    images = dataset.load(paths.processed("mnist"), "test").images[:256]
    digits = [file(image) for image in images]

    def json_of(**content: object) -> Path:
        return load.script(json.dumps(content).encode(), "application/json")

    def batch(pictures: list[bytes]) -> Path:
        return json_of(images=[base64.b64encode(picture).decode() for picture in pictures])

    return {
        "json": json_of(image=f"data:image/png;base64,{base64.b64encode(digits[0]).decode()}"),
        "tensor": json_of(inputs=np.zeros((1, 28, 28, 1), int).tolist()),
        "png": load.script(digits[0], "image/png"),
        "digits": batch(digits),
        "scans": batch(scans()),
    }


def keras_models(folder: Path) -> None:
    """Save the served model's architecture with Keras, alone and for MLflow."""
    from pipeline.training import determinism

    determinism.import_tensorflow()
    import mlflow.tensorflow

    from pipeline.training import networks

    model = networks.of_bundle(json.loads((BUNDLE / "model.json").read_text()))
    model.save(folder / "model.keras")
    example = np.zeros((1, 28, 28, 1), np.uint8)
    signature = mlflow.models.infer_signature(example, model(example).numpy())
    mlflow.tensorflow.save_model(
        model, folder / "mlflow", signature=signature, pip_requirements=["keras"]
    )


def servers(folder: Path) -> dict[str, tuple[list[str], str, dict[str, str]]]:
    """Return each server's command, the path that answers once it is ready, and its variables."""
    python = [sys.executable, "-m"]
    keras = {"BENCH_MODEL": str(folder / "model.keras"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    mlflow = ["mlflow", "models", "serve", "--model-uri", str(folder / "mlflow")]
    mlflow += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(PORTS["mlflow"])]
    found = {"mlflow": ([*python, *mlflow], "/ping", keras)}
    for name in ("empty", "keras"):
        uvicorn = ["uvicorn", "--factory", f"bench.endpoints:{name}", "--port", str(PORTS[name])]
        found[name] = [*python, *uvicorn], "/docs", keras
    for name, module in (("ours", "serve"), ("uncounted", "bench.uncounted")):
        variables = {"API_PORT": str(PORTS[name]), "API_WORKERS": "1", "LOG_FORMAT": "json"}
        variables |= {"MODEL_URI": str(BUNDLE), "STATE_DIR": str(folder / f"state-{name}")}
        found[name] = [*python, module], "/health/ready", variables
    return found


def main() -> None:
    """Run the benchmark and print two tables."""
    if not shutil.which("wrk"):
        sys.exit("needs wrk: apt-get install wrk, or make system")
    folder = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    keras_models(folder)
    scripts = bodies()
    found: dict[str, list[load.Result]] = {name: [] for name in LOADS}
    with contextlib.ExitStack() as stack:
        running, ready = {}, {}
        sizes: dict[str, float] = {}
        for name, (command, path, variables) in servers(folder).items():
            url = f"http://127.0.0.1:{PORTS[name]}{path}"
            log = folder / f"{name}.log"
            running[name], ready[name] = load.started(command, url, log, **variables)
            stack.callback(running[name].wait)
            stack.callback(running[name].terminate)

        def measure(name: str) -> load.Result:
            server, path, body, connections = LOADS[name]
            url = f"http://127.0.0.1:{PORTS[server]}{path}"
            return load.put(running[server], url, scripts[body], SECONDS, connections)

        for _ in range(ROUNDS):
            for name in LOADS:
                found[name].append(measure(name))
            sizes = sizes or {name: load.memory(server) for name, server in running.items()}
        # The server that keeps running must not grow.
        served = sum(one.requests for name in (JSON, PNG) for one in found[name])
        while served < MANY:
            served += measure(JSON).requests
        grown = load.memory(running["ours"]) - sizes["ours"]
    lost, table = costs(found)
    show(speeds(found, ready, sizes), "serving", "make bench-serve", width=120)
    show(table, "watching", "make bench-serve", width=120)
    print(f"our worker grew by {grown:.1f} MB from the first round to {served:,} requests")
    shutil.rmtree(folder)
    if lost > COUNTING:
        sys.exit(f"counting costs more than {COUNTING:.0%} of the throughput")


def costs(found: dict[str, list[load.Result]]) -> tuple[float, Table]:
    """Return the share of the throughput that the counters cost, and the table of it."""
    pairs = list(zip(found[JSON], found[UNCOUNTED], strict=True))
    shares = [1 - whole.rate / without.rate for whole, without in pairs]
    spent = statistics.median(whole.processor_us - bare.processor_us for whole, bare in pairs)
    lost = statistics.median(shares)
    table = Table("what", "of the throughput", "lowest, highest", "processor µs")
    limits = f"{100 * min(shares):.1f} %, {100 * max(shares):.1f} %"
    table.add_row("counters", f"{100 * lost:.1f} %", limits, f"{spent:.0f}")
    return lost, table


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
            # It has read no batches, so its memory cannot be compared.
            "" if name == UNCOUNTED else f"{sizes[server]:.0f}",
            f"{ready[server]:.2f}",
        )
        if failures := sum(one.failed for one in results):
            print(f"{name}: {failures} failed")
    return table


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value > 0.1 else f"{value:.3f}"


if __name__ == "__main__":
    main()
