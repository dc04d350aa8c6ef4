"""docs/API.md against the service: its examples run, its tables hold."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ROOT, Process

from serve import errors
from serve.settings import Settings

TEXT = (ROOT / "docs" / "API.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PROGRAMS = {"sh": ["bash", "-e"], "python": [sys.executable], "js": ["node", "--input-type=module"]}
EXAMPLES = [
    pytest.param(
        language,
        code,
        BLOCKS[place + 1][1] if BLOCKS[place + 1 :] and BLOCKS[place + 1][0] == "json" else None,
        id=f"{language}-{place}",
        marks=[
            pytest.mark.system(program, package)
            for program, package in (("node", "nodejs"), ("curl", "curl"))
            if (program == "node" and language == "js") or f"{program} " in code
        ],
    )
    for place, (language, code) in enumerate(BLOCKS)
    if language in PROGRAMS
]


@pytest.fixture(scope="module")
def service(made, tmp_path_factory):
    process = Process(tmp_path_factory.mktemp("docs"), MODEL_URI=made[3], API_WORKERS=1)
    process.ready()
    yield process
    process.stop()


@pytest.mark.parametrize(("language", "code", "answer"), EXAMPLES)
def test_an_example_runs(service, language, code, answer):
    host = service.url.removeprefix("http://")
    code = code.replace("127.0.0.1:8000", host)
    code = code.replace("serve.client", f"serve.client --url {service.url}")
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        PROGRAMS[language],
        input=code,
        cwd=ROOT,
        env={**os.environ, "PATH": here, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
    assert '"detail"' not in ran.stdout
    if answer:
        start = ran.stdout.rindex("{")
        assert set(json.loads(ran.stdout[start:])) == set(json.loads(answer))


def test_there_are_examples_in_each_language():
    assert {language for language, _ in BLOCKS} == {*PROGRAMS, "json"}


def rows(heading):
    """The cells of the first table below a heading."""
    table = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\| (.*) \|$", table, re.MULTILINE)
    return [line.split(" | ") for line in lines[1:]]


def shown(field):
    if field.default_factory:
        return "one for each core"
    return "" if field.default in ("", (), None) else f"`{field.default}`"


def test_the_variables_are_those_of_the_settings():
    assert rows("Variables") == [
        [f"`{name.upper()}`", shown(field), field.description]
        for name, field in Settings.model_fields.items()
    ]


def test_the_errors_are_those_that_there_are():
    before = {405, 431, 500}  # of the framework, of the parser, of our faults
    assert [int(row[0]) for row in rows("Errors")] == sorted({*errors.STATUS.values(), *before})


def test_every_path_is_in_the_document(client):
    named = TEXT.split("## ")[0].replace("`/health/", "`GET /health/")
    for path in client().get("/openapi.json").json()["paths"]:
        assert f"{path}`" in named, path
