"""The paths of the service that the docs name, and those that it has."""

import re

import pytest
from support.documents import NAMES, document

from serve.http import errors
from serve.settings import Settings

# Of other programs.
THEIRS = {
    "/-/healthy": "Prometheus, Alertmanager",
    "/api/2.0/mlflow/registered-models/search": "MLflow",
}
# Not endpoints: see test_paths.py for those that are folders.
_FOLDER = re.compile(r"/(state|tmp|etc|dev|mlflow|trainer)\b.*")


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_is_named_is_answered(routes, name):
    wrong = []
    for span in document(name).spans():
        found = re.fullmatch(r"(?:(GET|POST|WS|PUT|DELETE) )?(/[^\s?]*?)(…?)(?:\?.*)?", span)
        if not found or found[2] in THEIRS or _FOLDER.fullmatch(found[2]):
            continue
        method, path, more = found.groups()
        answered = any(
            pattern.fullmatch(path) or (more and template.startswith(path))
            for pattern, methods, template in routes
            if not method or method in methods
        )
        if not answered:
            wrong.append(span)
    assert wrong == []


def addresses(text):
    return re.findall(r"\w+://(?:127\.0\.0\.1|localhost):(\d+)(/[\w./-]*)?", text)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_in_an_address_is_answered_at_the_default_port(routes, name):
    port = str(Settings.model_fields["api_port"].default)
    wrong = []
    for given, path in addresses(document(name).text):
        ours = path and any(pattern.fullmatch(path) for pattern, _, _ in routes)
        if given == port and path and not ours:
            wrong.append(path)
        if given != port and ours and path not in ("/", "/metrics"):
            wrong.append(f"{given}{path}")
    assert wrong == []


def test_every_path_is_in_the_table(routes):
    head = document("docs/API.md").text.split("\n## ")[0]
    for _, methods, template in routes:
        for method in methods - {"HEAD"}:
            shown = "(GET )?" if method == "GET" else f"{method} "
            assert re.search(f"`{shown}{re.escape(template)}`", head), template


def test_every_path_is_in_the_overview(routes):
    overview = document("docs/README.md").under("Endpoints")
    for _, methods, template in routes:
        if not methods:
            continue  # a folder of files
        shown = "|".join({"POST", "WS"} & methods) or "(?:GET)?"
        # What is below one word may be told by it: `/v2/…`.
        begins = re.escape(f"/{template.split('/')[1]}/…")
        assert re.search(rf"`(?:{shown}) ?(?:{re.escape(template)}|{begins})`", overview), template


def rows(heading):
    """The cells of the first table below a heading of docs/API.md."""
    table = document("docs/API.md").under(heading)
    return [line.split(" | ") for line in re.findall(r"^\| (.*) \|$", table, re.MULTILINE)[1:]]


def test_the_errors_are_those_that_there_are():
    before = {405, 431, 500}  # of the framework, of the parser, of our faults
    assert [int(row[0]) for row in rows("Errors")] == sorted({*errors.STATUS.values(), *before})
