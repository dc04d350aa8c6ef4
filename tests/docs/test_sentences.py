"""Figures in sentences: each is that of its source, which the test reads."""

import ast
import functools
import json
import re
import tomllib

import pytest
import yaml
from documents import ROOT, document

from docs.figures import tables
from pipeline import gates, git, paths


@functools.cache
def best():
    """The best run as committed, and its row in the comparison."""
    comparison = json.loads(git.content("show", f"HEAD:{paths.COMPARISON}"))
    run = f"{comparison['best']}"
    shown = tables.read("runs")
    row = next(cells for cells in shown.rows if cells[0] == run)
    return comparison["runs"][run], dict(zip(shown.columns, row, strict=True))


def champion():
    """`docs/README.md`: what is served, if what is committed is registered."""
    found, row = best()
    accuracy, interval = re.fullmatch(r"(\S+) \((\S+)\)", row["test % (95 %)"]).groups()
    digit = found["recall"].index(found["min_recall"])
    return (
        f"The champion is run {found['run']}: {accuracy} % of {found['test_images']:,} test images"
        f" right, 95 % interval {re.sub('[^0-9.]+', ' to ', interval)},"
        f" calibration error {row['ECE %']} %, lowest recall {row['min recall %']} %"
        f" (digit {digit}), {row['params']} parameters, {row['size']}"
    )


def accuracy_gate():
    limit, (found, _) = gates.rules().gates.test_accuracy, best()
    return f"test accuracy {found['test_accuracy']:.4f}, at least {limit} wanted"


def recall_gate():
    limit, (found, _) = gates.rules().gates.recall, best()
    digit = found["recall"].index(found["min_recall"])
    return f"lowest recall {found['min_recall']:.4f} (digit {digit}), at least {limit} wanted"


def latency_gate():
    limit, times = gates.rules().gates.latency_ms_p99, tables.read("times")
    row = next(cells for cells in times.rows if cells[0] == f"{best()[0]['run']}")
    p99 = row[times.columns.index("one image, p99")]
    return f"p99 latency of one image {p99}, below {limit:g} wanted"


def bundle_gate():
    return f"MB, below {gates.rules().gates.bundle_bytes / 1e6:g} wanted"


def tried():
    """Which model the variants were read with."""
    return f"the champion of {cell('variants', 'as it is', 'accuracy %')} %"


def version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return f'"version": "{project["version"]}"'


def cell(table, row, column):
    read = tables.read(table)
    (found,) = [cells for cells in read.rows if cells[0] == row]
    return found[read.columns.index(column)]


def manifest(name):
    return yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / name).read_text())["spec"]


def scaled():
    (processor,) = [each for each in manifest("autoscaler.yaml")["metrics"] if "resource" in each]
    return f"at {processor['resource']['target']['averageUtilization']} % of that"


def replicas():
    spec = manifest("autoscaler.yaml")
    return f"{spec['minReplicas']} to {spec['maxReplicas']} pods"


def memory():
    (container,) = manifest("deployment.yaml")["template"]["spec"]["containers"]
    wanted, most = (container["resources"][kind]["memory"] for kind in ("requests", "limits"))
    return f"asks for {wanted.removesuffix('Mi')} MiB and may have {most.removesuffix('Mi')}"


def peak():
    return cell("pod", "at most, eight PNGs of 16 megapixels at once", "with a registry")


def stage():
    return f"The pipeline: {cell('pipeline-costs', 'peak memory of any stage', 'measured')}"


def job():
    return f"about {cell('pipeline-costs', 'a job of a sweep, run 1', 'ratio')[1:]} for each job"


SAID = [
    ("docs/README.md", champion),
    ("README.md", accuracy_gate),
    ("README.md", recall_gate),
    ("README.md", latency_gate),
    ("README.md", bundle_gate),
    ("docs/API.md", tried),
    ("docs/API.md", version),
    ("docs/ARCHITECTURE.md", replicas),
    ("docs/ARCHITECTURE.md", job),
    ("docs/DEPLOYMENT.md", scaled),
    ("docs/DEPLOYMENT.md", memory),
    ("docs/DEPLOYMENT.md", stage),
    ("docs/RUNBOOK.md", peak),
]


@pytest.mark.parametrize(("name", "said"), SAID)
def test_a_figure_in_a_sentence_is_that_of_its_source(name, said):
    assert said() in re.sub(r"\s+", " ", document(name).text)


def reasons():
    """Patterns of the reasons that `/health` can give, up to a colon: what is filled in varies."""
    for name in ("serve/puller.py", "serve/routes/health.py"):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            texts = []
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                texts = node.args[-1:] if called in ("say", "_fail", "MissingError") else []
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_DEATH":
                texts = [node.value]
            elif isinstance(node, ast.keyword) and node.arg == "reason":
                texts = list(ast.walk(node))
            for text in texts:
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                said = [getattr(part, "value", "") for part in parts]
                words = "".join(each if isinstance(each, str) else "\0" for each in said)
                if " " in words:
                    yield re.escape(words.partition(":")[0].strip()).replace("\0", '[^"|]+')


def test_the_runbook_has_a_way_out_of_each_reason_of_health():
    section = document("docs/RUNBOOK.md").text.split("### ModelNotReady\n")[1].split("\n### ")[0]
    found = set(reasons())
    assert len(found) == 8
    assert {reason for reason in found if not re.search(f'"{reason}', section)} == set()
