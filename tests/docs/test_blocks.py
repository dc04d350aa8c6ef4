"""The code blocks of the documents: each is run as it stands, or says above itself why not.

A block that calls the service gets one on a free port. Every other block runs in a copy of the
working tree. `<!-- not run: WHY -->` above a block leaves it out; `<!-- run: slow -->` leaves it to
the slow tests. A block of JSON below one that runs is its output.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.clones import cloned, quick
from support.documents import ROOT, documents
from support.service_process import Process

PROGRAMS = {"sh": ["bash", "-e"], "python": [sys.executable], "js": ["node", "--input-type=module"]}
SHOWN = {
    "",
    "json",
    "yaml",
    "promql",
    "mermaid",
    "ts",
    "java",
    "ini",
    "toml",
    "diff",
}  # not for running
SERVICE = "127.0.0.1:8000"
BLOCKS = [block for document in documents() for block in document.blocks()]
# The programs that tests skip without.
_NEEDED = {"node": "nodejs", "curl": "curl"}


def runnable():
    for block, following in zip(BLOCKS, [*BLOCKS[1:], None], strict=True):
        if block.language not in PROGRAMS or block.unrun:
            continue
        answer = following and following.language == "json" and following.document == block.document
        typed = {"js": "node ", "sh": block.code}.get(block.language, "")
        marks = [
            pytest.mark.system(program, package)
            for program, package in _NEEDED.items()
            if re.search(rf"\b{program} ", typed)
        ]
        if block.above == "run: slow":
            marks += [pytest.mark.slow, pytest.mark.nightly]
        name = f"{block.document}-{block.line}"
        yield pytest.param(block, following.code if answer else None, id=name, marks=marks)


@pytest.fixture(scope="module")
def service(bundle, tmp_path_factory):
    process = Process(tmp_path_factory.mktemp("docs"), MODEL_URI=bundle, API_WORKERS=1)
    process.ready()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the working tree, set up for few and quick steps."""
    clone = quick(cloned(tmp_path_factory.mktemp("copy")))
    for path in clone.folder.glob("conf/run/*.yaml"):
        path.write_text(re.sub(r"^epochs: \d+", "epochs: 1", path.read_text(), flags=re.M))
    clone.pick("data", "digits")
    # As if `make setup` had run.
    (clone.folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.suffix != ".installed":
            (clone.folder / ".venv" / part.name).symlink_to(part)
    (clone.folder / ".venv" / "dev.installed").touch()
    clone.commit("few and quick steps")
    return clone


@pytest.mark.parametrize(("block", "answer"), list(runnable()))
def test_a_block_runs(request, copy, block, answer):
    code = block.code
    if SERVICE in code or "serve.client" in code:
        url = request.getfixturevalue("service").url
        code = code.replace(SERVICE, url.removeprefix("http://"))
        code = code.replace("serve.client", f"serve.client --url {url}")
    ran = subprocess.run(
        PROGRAMS[block.language],
        input=code,
        cwd=copy.folder,
        env={**copy.environment, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr
    if SERVICE in block.code:
        assert ran.stdout or ran.stderr, "the service answered nothing"
    assert '"detail"' not in ran.stdout or '"detail"' in (answer or "")
    if answer:
        assert shape(last(ran.stdout)) == shape(json.loads(answer))


def last(text):
    """Return the last JSON object of an output."""
    found, place = None, text.find("{")
    while place >= 0:
        found, end = json.JSONDecoder().raw_decode(text, place)
        place = text.find("{", end)
    return found


def shape(answer):
    """Return the keys of an answer at any depth; each model has metrics of its own."""
    if isinstance(answer, list):
        return [shape(each) for each in answer if isinstance(each, dict)]
    if isinstance(answer, dict):
        return {key: None if key == "metrics" else shape(answer[key]) for key in answer}
    return None


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.document}-{block.line}")
def test_a_block_is_run_or_says_why_not(block):
    assert block.language in {*PROGRAMS, *SHOWN}, "sh, python and js are run, by these names"
    if block.above.startswith(("run", "not run")):
        assert block.unrun or block.above == "run: slow"
        assert block.language in PROGRAMS
    if not block.language:
        typed = re.compile(r"^\$? ?(make|python|dvc|git|curl|docker|kubectl|pip|mlflow) .*", re.M)
        assert not typed.search(block.code), "what is typed is a block of sh"
    if block.language == "sh":
        subprocess.run(["bash", "-n"], input=block.code, check=True, text=True)


def test_ci_runs_the_blocks_that_it_is_said_to_run():
    script = (ROOT / ".ci" / "run").read_text()
    for block in (block for block in BLOCKS if block.unrun and ".ci/run" in block.unrun):
        typed = [line.split("#")[0].strip() for line in block.code.splitlines()]
        assert [line for line in typed if line not in script] == []
