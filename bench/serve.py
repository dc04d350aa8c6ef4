"""The service's speed and memory as ratios against named baselines: `make bench-serve`.

Each round measures all of them in turn; servers and load share the machine. The median of the
rounds is quoted. MODEL_URI may name a bundle's folder; else models/champion is served.
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
from pipeline import dataset, paths

ROOT = Path(__file__).parents[1]
BUNDLE = Path(os.environ.get("MODEL_URI", ROOT / "models" / "champion"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS, CONNECTIONS = 3, 16
MANY = 200_000  # requests
PORTS = {"ours": 8301, "empty": 8302, "keras": 8303, "mlflow": 8304, "unwatched": 8305}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def scans() -> list[bytes]:
    """28x28 PNGs of digits that are not placed as MNIST's, so each must be normalised."""
    from sklearn.datasets import load_digits

    pictures = []
    for small in load_digits().images[:256].astype(np.uint8) * 15:
        picture = Image.new("L", (28, 28))
        picture.paste(Image.fromarray(small).resize((16, 16)), (2, 3))
        pictures.append(png(np.asarray(picture)))
    return pictures


def batch(pictures: list[bytes]) -> Path:
    """The load of a request with all of them."""
    texts = [base64.b64encode(picture).decode() for picture in pictures]
    return load.script(json.dumps({"images": texts}).encode(), "application/json")


def keras_models(folder: Path) -> None:
    """The served model's architecture as Keras saves it, alone and for MLflow."""
    from pipeline import determinism

    determinism.import_tensorflow()
    import mlflow.tensorflow

    from pipeline import models
    from pipeline.config import Model

    settings = json.loads((BUNDLE / "model.json").read_text())["settings"]
    model = models.build(Model(**settings["model"]), training=False)
    model.save(folder / "model.keras")
    example = np.zeros((1, 28, 28, 1), np.uint8)
    signature = mlflow.models.infer_signature(example, model(example).numpy())
    mlflow.tensorflow.save_model(
        model, folder / "mlflow", signature=signature, pip_requirements=["keras"]
    )


def servers(folder: Path) -> Iterator[tuple[str, list[str], str, dict[str, str]]]:
    """Name, command, address that answers once it is up, and environment of each."""
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
    for name, module in (("ours", "serve"), ("unwatched", "bench.unwatched")):
        yield (
            name,
            [python, "-m", module],
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
    """Prints one table."""
    if not shutil.which("wrk"):
        sys.exit("needs wrk: apt-get install wrk, or make system")
    folder = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    keras_models(folder)
    digits = [png(image) for image in dataset.load(paths.processed("mnist"), "test").images[:256]]
    text = base64.b64encode(digits[0]).decode()
    as_json = json.dumps({"image": f"data:image/png;base64,{text}"})
    tensor = json.dumps({"inputs": np.zeros((1, 28, 28, 1), int).tolist()})
    one = load.script(as_json.encode(), "application/json")
    loads = {
        "empty": ("empty", "/predict", one, CONNECTIONS),
        "keras": ("keras", "/predict", one, CONNECTIONS),
        "mlflow": (
            "mlflow",
            "/invocations",
            load.script(tensor.encode(), "application/json"),
            CONNECTIONS,
        ),
        "JSON": ("ours", "/predict", one, CONNECTIONS),
        "JSON, not counted": ("unwatched", "/predict", one, CONNECTIONS),
        "PNG": ("ours", "/predict", load.script(digits[0], "image/png"), CONNECTIONS),
        "batch of 256": ("ours", "/predict/batch", batch(digits), 2),
        "batch of 256 to normalise": ("ours", "/predict/batch", batch(scans()), 2),
    }
    found: dict[str, list[load.Result]] = {name: [] for name in loads}
    with contextlib.ExitStack() as stack:
        running, ready, sizes = {}, {}, {}
        for name, command, url, environment in servers(folder):
            running[name], ready[name] = load.started(
                command, url, folder / f"{name}.log", **environment
            )
            stack.callback(running[name].wait)
            stack.callback(running[name].terminate)
        for _ in range(ROUNDS):
            for name, (server, path, lua, connections) in loads.items():
                url = f"http://127.0.0.1:{PORTS[server]}{path}"
                found[name].append(load.put(running[server], url, lua, SECONDS, connections))
            sizes = sizes or {name: load.memory(server.pid) for name, server in running.items()}
        # The one that lives on must not grow.
        url = f"http://127.0.0.1:{PORTS['ours']}/predict"
        served = sum(one.count for name in ("JSON", "PNG") for one in found[name])
        while served < MANY:
            served += load.put(running["ours"], url, one, SECONDS, CONNECTIONS).count
        grown = load.memory(running["ours"].pid) - sizes["ours"]
    report(found, ready, sizes, {name: server for name, (server, *_) in loads.items()})
    pairs = zip(found["JSON"], found["JSON, not counted"], strict=True)
    cost = 1 - statistics.median(counted.rate / bare.rate for counted, bare in pairs)
    print(f"counting costs {cost:.1%} of the throughput")
    print(f"our worker grew by {grown:.1f} MB from the first round to {served:,} requests")
    shutil.rmtree(folder)


def report(
    found: dict[str, list[load.Result]],
    ready: dict[str, float],
    sizes: dict[str, float],
    servers_of: dict[str, str],
) -> None:
    """The table: medians of the rounds."""
    table = Table(
        "what", "pictures/s", "of empty, min-max", "p99 ms", "processor us", "MB", "ready s"
    )
    for name, results in found.items():
        pairs = zip(results, found["empty"], strict=True)
        ratios = [one.rate / empty.rate for one, empty in pairs]
        server, pictures = servers_of[name], 256 if "256" in name else 1
        table.add_row(
            name,
            f"{statistics.median(one.rate for one in results) * pictures:,.0f}",
            f"{statistics.median(ratios):.3f}  {min(ratios):.3f}-{max(ratios):.3f}"
            if pictures == 1
            else "",
            f"{statistics.median(one.p99_ms for one in results):.1f}",
            f"{statistics.median(one.processor_us for one in results) / pictures:,.0f}",
            f"{sizes[server]:.0f}",
            f"{ready[server]:.2f}",
        )
        if failures := sum(one.failed for one in results):
            table.add_row(f"  {failures} failed", "", "", "", "", "", "")
    show(table, "serving", "make bench-serve", width=120)


if __name__ == "__main__":
    main()
