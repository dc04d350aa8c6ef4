"""The service's OpenAPI document as committed in docs/."""

from __future__ import annotations

import json
import tomllib

from docs.tools.tables import ROOT
from serve.app import create_app
from serve.settings import Settings

FILE = ROOT / "docs" / "openapi.json"


def document() -> str:
    """Return the answer of `/openapi.json`, with the project's version."""
    found = create_app(Settings.model_construct()).openapi()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    described = {**found, "info": {**found["info"], "version": project["version"]}}
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"
