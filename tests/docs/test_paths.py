"""Files and folders that the docs name are in git, or it is known what makes them."""

import functools
import re

import pytest
import yaml
from support.documents import NAMES, ROOT, commands, document, folders, tracked, words

# Not in git, because something makes it; what is below one is there with it.
MADE = {
    ".venv": "make setup",
    ".checkpoints": "pipeline.train, while it trains",
    ".demo": "make demo",
    ".env": "make env",
    ".state": "the service",
    "app.yaml": "the reader",
    "backup.db": "the reader",
    "conf/data/few.yaml": "the reader, by a recipe of CONTRIBUTING.md",
    "conf/run/4.yaml": "the reader, by a recipe of CONTRIBUTING.md",
    "data/feedback.npz": "pipeline.feedback",
    "data/feedback.npz.dvc": "pipeline.feedback",
    "data/raw/mnist": "pipeline.fetch",
    "drift.json": "monitoring.drift",
    "build": "make audit, make docs",
    "feedback.db": "the service, in STATE_DIR",
    "likelihood.tflite": "pipeline.likelihood",
    "logs/search": "pipeline.search",
    "logs/sweeps": "train.py",
    "mlartifacts": "MLflow",
    "mlflow.db": "MLflow",
    "mlflow.sql": "the reader",
    "model.json": "pipeline.train",
    "model.tflite": "pipeline.train",
    "model.weights.h5": "pipeline.train",
    "picture.png": "the reader",
    "reference.npz": "pipeline.evaluate",
    "reports/experiments.html": "make compare",
    "reports/search": "pipeline.search",
    "reports/timings.json": "pipeline.evaluate",
    "state1": "a replica",
    "state2": "a replica",
    "tls.crt": "the reader",
    "tls.key": "the reader",
}
# Of neighbours, of machines, of images.
ELSEWHERE = {
    "../shared/mnist": "where a shared copy of MNIST may be",
    "/state": "a volume in the image",
    "/state/backup.db": "in it",
    "/state/feedback.db": "in it",
    "/tmp": "of the system",  # noqa: S108  a name
    "/etc/pip.conf": "of pip, in the image",
    "/dev/null": "of the system",
    "deploy/digit-platform": "a deployment, as kubectl names it",
}
_STEP = r"[\w.@<>*{}-]+"
_ENDINGS = (
    "crt|css|db|h5|html|j2|js|json|jsonl|key|lock|md|npz|png|py|sh|sql|svg|tflite|toml|txt|ya?ml"
)
_FILE = re.compile(rf"(?:\.\./)*(?:{_STEP}/)*{_STEP}\.(?:{_ENDINGS})")

_SYSTEM = re.compile(r"/(state|tmp|etc|dev)(/\S*)?")


@functools.cache
def made_by_stages():
    """The outputs in `dvc.yaml`, `<n>` for what varies."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"]]
    paths = (out if isinstance(out, str) else next(iter(out)) for out in outs)
    return {re.sub(r"\$\{[^}]*\}", "n", path) for path in paths}


def is_there(path):
    """Whether it, or a path that ends in it, is known; `<n>` and `*` stand for anything."""
    path = path.rstrip("/…")
    known = [*tracked(), *folders(), *made_by_stages(), *MADE]
    pieces = re.split(r"<[^>]+>|\*", path)
    end = re.compile(rf"(?:.*/)?{'[^/]+'.join(map(re.escape, pieces))}")
    made = {*MADE, *made_by_stages()}
    one = re.sub(r"<[^>]+>", "n", path)
    return any(map(end.fullmatch, known)) or any(one.startswith(f"{each}/") for each in made)


def named(text):
    """The paths among the words of a command or of a span."""
    tops = {name.split("/")[0] for name in [*tracked(), *MADE]}
    for word in re.split(r"[\s'\"=,;()]+|:(?!//)", text):
        path = re.sub(r"^@", "", word).removeprefix("./")
        path = re.sub(r"^<?STATE_DIR>?/", ".state/", path)
        inside = "/" in path and path.split("/")[0] in tops
        if inside or _FILE.fullmatch(path) or _SYSTEM.fullmatch(path):
            yield path


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_known(name):
    texts = [text for where, text in commands() if where == name]
    paths = {path for text in texts for path in named(text)} - set(ELSEWHERE)
    assert {path for path in paths if not is_there(path)} == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_test_that_is_named_exists(name):
    tests = "".join((ROOT / path).read_text() for path in tracked() if path.startswith("tests/"))
    spans = [span for span in document(name).spans() if re.fullmatch(r"test_\w+", span)]
    missing = {span for span in spans if f"def {span}(" not in tests}
    assert missing - words() == set()  # a figure may begin like a test


def test_what_is_said_to_be_made_is_not_in_git():
    assert {name for name in MADE if name in {*tracked(), *folders()}} == set()


def test_the_tree_in_the_readme_is_the_tree_on_disk():
    listed = set(
        re.findall(r"^(\S+?)/? {2,}\S", document("README.md").under("Where things are"), re.M)
    )
    # Of data/ git has at most DVC's record of exported feedback.
    there = [name for name in tracked() if not name.endswith(".dvc")]
    wanted = {name.split("/")[0] for name in there if "/" in name and name[0] != "."}
    assert wanted <= listed
    assert all((ROOT / name).exists() for name in listed)
