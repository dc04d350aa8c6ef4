"""The table of ports, from the settings, the programs and the manifests that have them."""

from __future__ import annotations

import re
from typing import Any

import yaml

from docs.figures.settings import COMMAND
from docs.figures.tables import ROOT, Table
from monitoring import pipeline_exporter
from serve.settings import Settings

# Their default, which nothing here sets; the rest of a row comes from where it is used.
_POSTGRES = "5432"


def table() -> Table:
    """On which port each program listens, here, by Compose and in Kubernetes."""
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    drift = (ROOT / "monitoring" / "drift" / "__main__.py").read_text()
    told = re.search(r'"--port", type=int, default=(\d+)', drift)
    listens = {
        "digits": f"{Settings.model_fields['api_port'].default}",
        "mlflow": _after("--port", compose["mlflow"]["command"]),
        "postgres": _POSTGRES,
        "prometheus": _checked(compose["prometheus"]),
        "alertmanager": _checked(compose["alertmanager"]),
        "grafana": _checked(compose["grafana"]),
        "drift": told[1] if told else "",
        "pipeline-exporter": f"{pipeline_exporter.PORT}",
    }
    kubernetes = _services()
    rows = []
    for name, port in listens.items():
        published = ", ".join(_published(each, port) for each in compose[name].get("ports", []))
        service = {"digits": "digit-platform"}.get(name, name)
        at = kubernetes.get(service, "")
        rows.append([f"`{name}`", port, published, f"`{service}` {at}" if at else ""])
    return Table(COMMAND, "", ["program", "port", "Compose publishes", "Service"], rows)


def _after(option: str, command: list[str]) -> str:
    return command[command.index(option) + 1]


def _checked(service: dict[str, Any]) -> str:
    """The port that the health check asks."""
    found = re.search(r"http://localhost:(\d+)/", " ".join(service["healthcheck"]["test"]))
    return found[1] if found else ""


def _published(mapping: str, port: str) -> str:
    """`127.0.0.1:${API_PORT:-8000}:8000` in words."""
    found = re.fullmatch(rf"([\d.]+):\$\{{(\w+):-(\d+)\}}:{port}", mapping)
    if not found:
        raise ValueError(
            f"deploy/compose.yaml publishes {mapping}, not a variable's port to {port}"
        )
    return f"`{found[1]}:{found[3]}` (`{found[2]}`)"


def _services() -> dict[str, str]:
    """The ports of the services in the cluster."""
    found = {}
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*/**/*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            if isinstance(each, dict) and each.get("kind") == "Service":  # a list is a patch
                ports = (f"{port['port']}" for port in each["spec"]["ports"])
                found[each["metadata"]["name"]] = ", ".join(ports)
    return found
