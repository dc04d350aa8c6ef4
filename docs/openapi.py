"""The service's OpenAPI document and a Postman collection of it: `python -m docs.openapi`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from docs import postman
from serve.app import create_app
from serve.settings import Settings

FOLDER = Path(__file__).parent


def document() -> dict[str, Any]:
    """What `/openapi.json` says, with the version of the project."""
    found = create_app(Settings.model_construct()).openapi()
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    return {**found, "info": {**found["info"], "version": project["version"]}}


def files() -> dict[Path, str]:
    """The files that are committed, with their content."""
    described = document()
    contents = {"openapi.json": described, "postman.json": postman.collection(described)}
    return {
        FOLDER / name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in contents.items()
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
