"""The README against what is there."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {path.relative_to(ROOT): path.read_text() for path in ROOT.glob("docs/*.md")}
TEXTS = {Path("README.md"): README, **DOCS}


def test_its_table_is_the_recorded_comparison():
    # As committed: a rebuild on another processor has other figures.
    recorded = subprocess.run(
        ["git", "show", "HEAD:reports/comparison.json"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    runs = json.loads(recorded)["runs"]
    for run, figures in runs.items():
        low, high = (f"{bound * 100:.2f}" for bound in figures["wilson"])
        accuracy = f"{figures['test_accuracy'] * 100:.2f} ({low}–{high})"  # noqa: RUF001  an interval
        assert re.search(rf"^ +{run}  {figures['name']} .*{re.escape(accuracy)}", README, re.M)


def test_its_tree_is_the_tree_on_disk():
    listed = set(re.findall(r"^(\S+?)/? {2,}\S", README.split("## Where things are")[1], re.M))
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {name.split("/")[0] for name in tracked if "/" in name and name[0] != "."}
    assert folders <= listed
    assert all((ROOT / name).exists() for name in listed)


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_every_link_leads_somewhere(text):
    targets = re.findall(r"\]\(([^)#:]+)\)", TEXTS[text])
    missing = [name for name in targets if not (ROOT / text.parent / name).exists()]
    assert missing == []


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_every_make_target_exists(text):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXTS[text], re.M))
    assert named <= set(targets)


def test_make_help_lists_every_target():
    printed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert [line.split()[0] for line in printed.splitlines()] == targets


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_every_module_that_is_named_can_be_run(text):
    modules = set(re.findall(r"python -m (pipeline\.\w+|serve(?:\.\w+)?)", TEXTS[text]))
    places = {m: ROOT / m.replace(".", "/") for m in modules}
    files = {m: (path.with_suffix(".py"), path / "__main__.py") for m, path in places.items()}
    assert [m for m, either in files.items() if not any(map(Path.exists, either))] == []
