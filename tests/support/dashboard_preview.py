"""Pictures of the dashboards as they would look: `python -m support.dashboard_preview FOLDER`.

Grafana is in none of the registries that we install from, so Matplotlib draws what each panel's
queries return from a platform that runs: the champion and run 1's model (after `make repro`), two
replicas, MNIST's test digits, and a real Prometheus. Grid, units, legends and thresholds are the
dashboards' own; fonts and colours are not Grafana's.
"""

import io
import math
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from support import prometheus as asking
from support.monitored_stack import Scene
from support.service_process import ROOT

INK, PAPER, PANEL = "#d8d9da", "#111217", "#181b1f"
COLOURS = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "transparent": INK,
}


def written(value, unit, decimals=None):
    """A value as Grafana writes it, nearly."""
    if not math.isfinite(value):
        return "–"  # noqa: RUF001
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f}%"
    if unit == "s":
        for size, name in ((604800, "weeks"), (86400, "days"), (3600, "hours"), (60, "mins")):
            if value >= size:
                return f"{value / size:.2f} {name}"
        scale, name = (1, "s") if value >= 1 else (1e3, "ms") if value >= 1e-3 else (1e6, "µs")
        return f"{value * scale:.3g} {name}"
    if unit == "dateTimeFromNow":
        return f"{written(max(0.0, time.time() - value / 1000), 's')} ago"
    suffix = {"reqps": " req/s", "cps": " c/s"}.get(unit, "")
    return f"{value:.{decimals}f}{suffix}" if decimals is not None else f"{value:.3g}{suffix}"


def legend(target, metric):
    text = target["legendFormat"]
    for name, value in metric.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def colour(steps, value):
    found = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[found[-1]]


def mapped(defaults, value):
    for mapping in defaults.get("mappings", ()):
        if f"{value:g}" in mapping["options"]:
            return mapping["options"][f"{value:g}"]
    return None


class Drawing:
    """One dashboard on one figure."""

    def __init__(self, prometheus, board, seconds):
        self._ask, self._board, self._seconds = prometheus, board, seconds

    def save(self, file):
        rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in self._board["panels"])
        figure = plt.figure(figsize=(20, rows * 0.42), facecolor=PAPER)
        for panel in self._board["panels"]:
            place = panel["gridPos"]
            if panel["type"] == "row":
                y = 1 - (place["y"] + 0.7) / rows
                figure.text(0.005, y, f"⌄ {panel['title']}", color=INK, size=13, weight="bold")
                continue
            box = (
                place["x"] / 24 + 0.002,
                1 - (place["y"] + place["h"]) / rows + 0.0015,
                place["w"] / 24 - 0.004,
                place["h"] / rows - 0.003,
            )
            back = figure.add_axes(box, facecolor=PANEL)
            back.set(xticks=[], yticks=[])
            for spine in back.spines.values():
                spine.set_color("#2c3235")
            back.text(0.015, 1 - 0.28 / place["h"], panel["title"], color=INK, size=10,
                      va="top", weight="bold", transform=back.transAxes)  # fmt: skip
            getattr(self, f"_{panel['type']}")(back, panel, place)
        figure.savefig(file, dpi=75, facecolor=PAPER)
        plt.close(figure)

    def _now(self, panel):
        for target in panel["targets"]:
            for series in self._ask.now(self._of(target)):
                yield target, series["metric"], float(series["value"][1])

    def _of(self, target):
        return asking.interpolated(target["expr"], __range=f"{self._seconds}s")

    def _stat(self, back, panel, place):
        defaults = panel["fieldConfig"]["defaults"]
        found = list(self._now(panel))
        texts, shade = [], INK
        for target, metric, value in found:
            said = mapped(defaults, value)
            shade = (
                COLOURS[said["color"]] if said else colour(defaults["thresholds"]["steps"], value)
            )
            name = panel["options"]["textMode"] == "name"
            text = (
                said["text"] if said else written(value, defaults["unit"], defaults.get("decimals"))
            )
            texts.append(legend(target, metric) if name else text)
        back.text(0.5, 0.42, "  ".join(texts) or "–", color=shade, size=20,  # noqa: RUF001
                  ha="center", va="center", transform=back.transAxes)  # fmt: skip

    def _inner(self, back, place, right):
        height = place["h"]
        left = 1.1 / place["w"]
        axes = back.inset_axes((left, 0.9 / height, 1 - left - right, 1 - 2.1 / height))
        axes.set_facecolor(PANEL)
        axes.tick_params(colors=INK, labelsize=8)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.grid(color="#2c3235", linewidth=0.6)
        return axes

    def _timeseries(self, back, panel, place):
        defaults = panel["fieldConfig"]["defaults"]
        unit, decimals = defaults["unit"], defaults.get("decimals")
        custom = defaults["custom"]
        axes = self._inner(back, place, 0.36)
        stacked = custom.get("stacking", {}).get("mode") == "normal"
        lines, texts, base = [], [], None
        for target in panel["targets"]:
            for series in self._ask.over_time(self._of(target), self._seconds):
                at, values = np.array([(t, float(v)) for t, v in series["values"]]).T
                lines.append((legend(target, series["metric"]), at - at[-1], values))
        shades = plt.get_cmap("tab10")
        for place_, (name, at, values) in enumerate(lines):
            shade = shades(place_ % 10)
            if stacked:
                low = np.zeros_like(values) if base is None or len(base) != len(values) else base
                axes.fill_between(at, low, low + np.nan_to_num(values), color=shade, alpha=0.4)
                base = low + np.nan_to_num(values)
                axes.plot(at, base, color=shade, linewidth=1)
            else:
                style = (
                    "steps-post" if custom.get("lineInterpolation") == "stepAfter" else "default"
                )
                axes.plot(at, values, color=shade, linewidth=1.2, drawstyle=style)
            last, most = values[np.isfinite(values)][-1:], values[np.isfinite(values)]
            told = [
                written(float(v), unit, decimals)
                for v in (*last, *([most.max()] if len(most) else []))
            ]
            texts.append((name, told, shade))
        for step in defaults["thresholds"]["steps"][1:]:
            if custom.get("thresholdsStyle"):
                axes.axhline(
                    step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=1
                )
        scale = "log" if custom.get("scaleDistribution", {}).get("type") == "log" else "linear"
        axes.set_yscale(scale)
        axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
        axes.yaxis.set_major_formatter(lambda value, _: written(value, unit, decimals))
        room = place["h"] * 2 - 3
        for row, (name, told, shade) in enumerate(texts[:room]):
            y = 1 - (1.7 + row * 0.55) / place["h"]
            back.text(0.66, y, f"▬ {name}", color=shade, size=8, transform=back.transAxes, va="top",
                      clip_on=True)  # fmt: skip
            back.text(0.985, y, "   ".join(told), color=INK, size=8, ha="right",
                      transform=back.transAxes, va="top")  # fmt: skip
        back.text(0.985, 1 - 1.15 / place["h"], "Last *   Max", color="#6e9fff", size=8, ha="right",
                  transform=back.transAxes, va="top")  # fmt: skip

    def _heatmap(self, back, panel, place):
        axes = self._inner(back, place, 0.03)
        (target,) = panel["targets"]
        buckets = {}
        for series in self._ask.over_time(self._of(target), self._seconds):
            buckets[float(series["metric"]["le"])] = {t: float(v) for t, v in series["values"]}
        edges = sorted(buckets)
        times = sorted({t for values in buckets.values() for t in values})
        table = np.array([[buckets[edge].get(t, 0.0) for t in times] for edge in edges])
        counts = np.diff(np.vstack([np.zeros(len(times)), table]), axis=0)
        axes.imshow(np.where(counts > 1e-9, counts, np.nan), aspect="auto", origin="lower",
                    cmap="Oranges_r", norm=plt.matplotlib.colors.PowerNorm(0.5))  # fmt: skip
        unit = panel["options"]["yAxis"]["unit"]
        names = ["∞" if math.isinf(edge) else written(edge, unit, 0) for edge in edges]
        axes.set_yticks(np.arange(len(edges)) + 0.5, names)
        axes.set_xticks([])
        axes.grid(visible=False)

    def _bargauge(self, back, panel, place):
        defaults = panel["fieldConfig"]["defaults"]
        found = sorted(
            ((legend(target, metric), value) for target, metric, value in self._now(panel))
        )
        low = defaults["min"]
        high = defaults.get("max", max((value for _, value in found), default=1))
        height = (1 - 1.4 / place["h"]) / max(1, len(found))
        for row, (name, value) in enumerate(found):
            y = 1 - 1.2 / place["h"] - (row + 0.5) * height
            steps = defaults["thresholds"]["steps"]
            said = mapped(defaults, value)
            shade = COLOURS[said["color"]] if said else colour(steps, value)
            text = (
                said["text"] if said else written(value, defaults["unit"], defaults.get("decimals"))
            )
            back.text(
                0.28, y, name, color=INK, size=9, ha="right", va="center", transform=back.transAxes
            )
            wide = 0.52 * (value - low) / (high - low or 1)
            back.barh(y, wide, left=0.3, height=height * 0.6, color=shade, alpha=0.8)
            back.text(
                0.985,
                y,
                text,
                color=shade,
                size=11,
                ha="right",
                va="center",
                transform=back.transAxes,
            )
        back.set(xlim=(0, 1), ylim=(0, 1))

    def _table(self, back, panel, place):
        named = panel["transformations"][1]["options"]["renameByName"]
        units = {
            found["matcher"]["options"]: {p["id"]: p["value"] for p in found["properties"]}
            for found in panel["fieldConfig"]["overrides"]
        }
        order = sorted(named, key=panel["transformations"][1]["options"]["indexByName"].get)
        labels = [name for name in order if not name.startswith("Value #")]
        lines = {}
        for target, metric, value in self._now(panel):
            column = named[f"Value #{target['refId']}"]
            told = written(value, units[column]["unit"], units[column]["decimals"])
            known = {named[label]: metric[label] for label in labels}
            lines.setdefault(tuple(known.values()), known)[column] = told
        heads = [named[field] for field in order]
        for place_, head in enumerate(heads):
            x = 0.01 + place_ / len(heads)
            back.text(
                x,
                1 - 1.4 / place["h"],
                head,
                color="#6e9fff",
                size=10,
                transform=back.transAxes,
                va="top",
            )
            for row, (_, line) in enumerate(sorted(lines.items())):
                text = line.get(head, "–")  # noqa: RUF001
                back.text(
                    x,
                    1 - (2.3 + row * 0.9) / place["h"],
                    text,
                    color=INK,
                    size=10,
                    transform=back.transAxes,
                    va="top",
                )


def main(folder, seconds=60):
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(ROOT / "data/processed/mnist.npz") as data:
        images, labels = data["test_images"][:2000], data["test_labels"][:2000]
    pictures = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.reshape(28, 28)).save(file, "PNG")
        pictures.append(file.getvalue())
    watched = asking.boards(ROOT / "monitoring/grafana/dashboards")
    with (
        tempfile.TemporaryDirectory() as work,
        Scene(Path(work), ROOT / "models/runs/1", ROOT / "models/champion") as scene,
    ):
        scene.play(seconds, pictures, labels)
        for name, board in watched.items():
            Drawing(scene.prometheus, board, seconds + 5).save(folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
