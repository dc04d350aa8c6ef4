"""The service's OpenAPI document and a Postman collection of it, as committed in docs/."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from docs.tools import postman
from docs.tools.tables import ROOT
from serve.app import create_app
from serve.settings import Settings


def document() -> dict[str, Any]:
    """Return the answer of `/openapi.json`, with the project's version."""
    found = create_app(Settings.model_construct()).openapi()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {**found, "info": {**found["info"], "version": project["version"]}}


def files() -> dict[Path, str]:
    """Return the committed files with their content."""
    described = document()
    contents = {"openapi.json": described, "postman.json": postman.collection(described)}
    return {
        ROOT / "docs" / name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in contents.items()
    }
