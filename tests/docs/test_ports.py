"""Every port that the docs name is that of the program that they speak of: the table `ports`."""

import re

import pytest
from documents import NAMES, document

from docs.figures import tables

PORTS = {cells[0].strip("`"): cells for cells in tables.read("ports").rows}
# Which program a line speaks of.
SPOKEN = {
    "digits": r"serv|digit|predict|health|make (up|demo)|feedback|URL",
    "mlflow": "mlflow",
    "postgres": "postgre",
    "prometheus": "prometheus",
    "alertmanager": "alertmanager|amtool",
    "grafana": "grafana",
    "drift": "drift|gauges",
    "pipeline-exporter": "exporter",
}
# Of programs that are not ours.
THEIRS = {"443": "HTTPS", "4318": "a collector of OpenTelemetry", "6379": "Ray"}
_NAMED = re.compile(
    r"(?:127\.0\.0\.1|localhost|HOST|<head>):(?:(?P<inside>\d+):)?(?P<at>\d+)"
    r"|\bport (?P<said>\d+)|--port (?P<told>\d+)"
    r"|\bpod/POD (?P<near>\d+):(?P<far>\d+)"
)


def programs(port):
    return {
        name for name, cells in PORTS.items() if port in re.findall(r"\d+", " ".join(cells[1:]))
    }


def spoken(text):
    return {name for name, words in SPOKEN.items() if re.search(words, text, re.IGNORECASE)}


def around(lines, number):
    """The programs that a line speaks of, and those beside it; of an arrow each line is whole."""
    whole = "--" in lines[number] and '"]' in lines[number]
    return spoken(" ".join([lines[number]] if whole else lines[max(number - 1, 0) : number + 2]))


@pytest.mark.parametrize("name", NAMES)
def test_a_port_is_that_of_the_program(name):
    lines = document(name).lines
    wrong = [
        (number + 1, port)
        for number, line in enumerate(lines)
        for found in _NAMED.finditer(line)
        for port in filter(None, found.groups())
        if port not in THEIRS and not programs(port) & around(lines, number)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_a_port_beside_a_name_is_its_own(name):
    """`mlflow:5000`, and what `kubectl port-forward service/NAME` leads to."""
    text = document(name).text
    inside = re.findall(rf"\b({'|'.join(PORTS)}):(\d{{4,}})\b", text)
    inside += [("mlflow", port) for port in re.findall(r"MLFLOW_TRACKING_URI=\S+:(\d+)", text)]
    assert [(name, port) for name, port in inside if port != PORTS[name][1]] == []
    services = dict(cells[3].replace("`", "").split() for cells in PORTS.values() if cells[3])
    forwarded = re.findall(r"port-forward\s+service/([\w-]+) (?:\d+:)?(\d+)", text)
    assert [(name, port) for name, port in forwarded if port != services[name]] == []


def test_the_docs_name_ports():
    found = [each for name in NAMES for each in _NAMED.finditer(document(name).text)]
    assert len(found) > 20
